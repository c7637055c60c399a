package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Integer depthwise convolutions of whole 3x3 windows side by side on AVX2. A
// column of three cells is read once, as s16 pairs: the cells of rows 0 and 1,
// and that of row 2 beside a zero, so that VPMADDWD does two cells at once. The
// column then counts for up to three windows. Pairs come from VPUNPCK, which
// works within halves of a register, so sixteen channels lie in two registers
// as 0-3, 8-11 and 4-7, 12-15 until the end. Distances are those of row.go.

// column3 is the state of such a routine.
type column3 struct {
	g              *gen
	weights        operand.Mem // three columns of four registers
	zeros          reg.VecVirtual
	x              []reg.VecVirtual // a column: rows 0 and 1, twice, and row 2, twice
	third, rowStep reg.GPVirtual    // the third row, relative to the first; the second
}

func rows3y(g *gen) {
	g.wide = false
	for stride := 1; stride <= 2; stride++ {
		g.depthwise3y("U8", stride)
		g.depthwise3y("Requant", stride)
	}
}

func (g *gen) depthwise3y(kind string, stride int) {
	name := "depthwise3" + kind + map[int]string{1: "Stride1", 2: "Stride2"}[stride] + "Y"
	signature := map[string]string{
		"U8":      "func(y *int32, x *uint8, w *int8, pixels, rowStep, pitch, yStep, wStep int)",
		"Requant": "func(y, x *uint8, w *int8, pixels, rowStep, pitch, yStep, wStep int, bias *int32, m *float32, lo, hi float32, zero int32)",
	}[kind]
	g.begin(name, signature, name+" is depthwise"+kind+" for whole 3x3 windows, sixteen channels; see row3y.go.")
	c := &column3{g: g, weights: g.AllocLocal(12 * 32), zeros: g.vec(), x: g.vecs(4), third: g.GP64(), rowStep: g.arg("rowStep")}
	g.zero(c.zeros)
	c.pairWeights()
	store := g.storeSums16
	if kind == "Requant" {
		store = g.requant16()
	}
	x, y, pitch, yStep, pixels := g.arg("x"), g.arg("y"), g.arg("pitch"), g.arg("yStep"), g.arg("pixels")
	g.LEAQ(operand.Mem{Base: c.rowStep, Index: c.rowStep, Scale: 1}, c.third)
	next := func() {
		c.load(x)
		g.ADDQ(pitch, x)
	}
	out := g.vecs(2)
	finish := func() {
		store(out, off(y, 0))
		g.ADDQ(yStep, y)
	}
	// The windows under way: of stride 1 two, the older in a; of stride 2 one.
	a, b := g.vecs(2), g.vecs(2)
	next()
	c.begin(a, 0)
	if stride == 1 {
		next()
		c.add(a, a, 1)
		c.begin(b, 0)
	}
	g.Label("pixel")
	if stride == 1 {
		next()
		c.add(a, out, 2)
		c.add(b, a, 1)
		c.begin(b, 0)
	} else {
		next()
		c.add(a, a, 1)
		next()
		c.add(a, out, 2)
		c.begin(a, 0)
	}
	finish()
	g.DECQ(pixels)
	g.JNZ(operand.LabelRef("pixel"))
	g.end()
}

// pairWeights writes the nine weights as pairs.
func (c *column3) pairWeights() {
	g := c.g
	w, wStep := g.arg("w"), g.arg("wStep")
	down := g.GP64() // from a kernel row to the next
	g.LEAQ(operand.Mem{Base: wStep, Index: wStep, Scale: 2}, down)
	for kw := range 3 {
		taps := g.vecs(2)
		g.VPMOVSXBW(off(w, 0), taps[0])
		g.VPMOVSXBW(operand.Mem{Base: w, Index: down, Scale: 1}, taps[1])
		p := g.vec()
		g.VPUNPCKLWD(taps[1], taps[0], p)
		g.VMOVDQU(p, c.weight(kw, 0))
		g.VPUNPCKHWD(taps[1], taps[0], p)
		g.VMOVDQU(p, c.weight(kw, 1))
		g.VPMOVSXBW(operand.Mem{Base: w, Index: down, Scale: 2}, taps[0])
		g.VPUNPCKLWD(c.zeros, taps[0], p)
		g.VMOVDQU(p, c.weight(kw, 2))
		g.VPUNPCKHWD(c.zeros, taps[0], p)
		g.VMOVDQU(p, c.weight(kw, 3))
		if kw < 2 {
			g.ADDQ(wStep, w)
		}
	}
}

func (c *column3) weight(kw, i int) operand.Mem { return shifted(c.weights, 32*(4*kw+i)) }

// load reads the column at x.
func (c *column3) load(x reg.GPVirtual) {
	g, r := c.g, c.g.vecs(2)
	g.VPMOVZXBW(off(x, 0), r[0])
	g.VPMOVZXBW(operand.Mem{Base: x, Index: c.rowStep, Scale: 1}, r[1])
	g.VPUNPCKLWD(r[1], r[0], c.x[0])
	g.VPUNPCKHWD(r[1], r[0], c.x[1])
	g.VPMOVZXBW(operand.Mem{Base: x, Index: c.third, Scale: 1}, r[0])
	g.VPUNPCKLWD(c.zeros, r[0], c.x[2])
	g.VPUNPCKHWD(c.zeros, r[0], c.x[3])
}

// begin makes the sums of a window whose column kw was read last.
func (c *column3) begin(sum []reg.VecVirtual, kw int) {
	g, t := c.g, c.g.vec()
	for h := range sum {
		g.VPMADDWD(c.weight(kw, h), c.x[h], sum[h])
		g.VPMADDWD(c.weight(kw, 2+h), c.x[2+h], t)
		g.VPADDD(t, sum[h], sum[h])
	}
}

// add adds that column to the sums.
func (c *column3) add(sum, to []reg.VecVirtual, kw int) {
	g, t := c.g, c.g.vec()
	for h := range sum {
		g.VPMADDWD(c.weight(kw, h), c.x[h], t)
		g.VPADDD(t, sum[h], to[h])
		g.VPMADDWD(c.weight(kw, 2+h), c.x[2+h], t)
		g.VPADDD(t, to[h], to[h])
	}
}

// storeSums16 stores sixteen sums in order.
func (g *gen) storeSums16(sum []reg.VecVirtual, m operand.Mem) {
	v := g.vec()
	g.VPERM2I128(operand.U8(0x20), sum[1], sum[0], v)
	g.VMOVDQU(v, m)
	g.VPERM2I128(operand.U8(0x31), sum[1], sum[0], v)
	g.VMOVDQU(v, shifted(m, 32))
}

// requant16 prepares what turns sixteen sums into codes, rint(clamp(float32(v+bias)*m, lo, hi)) + zero, and stores them.
func (g *gen) requant16() func(sum []reg.VecVirtual, m operand.Mem) {
	bias, factor := g.AllocLocal(64), g.AllocLocal(64)
	for i, name := range []string{"bias", "m"} {
		from, v := g.arg(name), g.vec()
		to := []operand.Mem{bias, factor}[i]
		for h := range 2 {
			g.VMOVDQU(off(from, 16*h), v.AsX())
			g.VINSERTI128(operand.U8(1), off(from, 32+16*h), v, v)
			g.VMOVDQU(v, shifted(to, 32*h))
		}
	}
	lo, hi, zero := g.broadcast("lo"), g.broadcast("hi"), g.broadcast("zero")
	return func(sum []reg.VecVirtual, m operand.Mem) {
		for h, v := range sum {
			g.VPADDD(shifted(bias, 32*h), v, v)
			g.VCVTDQ2PS(v, v)
			g.VMULPS(shifted(factor, 32*h), v, v)
			g.VMAXPS(lo, v, v)
			g.VMINPS(hi, v, v)
			g.VCVTPS2DQ(v, v)
			g.VPADDD(zero, v, v)
		}
		g.VPACKSSDW(sum[1], sum[0], sum[0])
		high := g.XMM()
		g.VEXTRACTI128(operand.U8(1), sum[0], high)
		g.VPACKUSWB(high, sum[0].AsX(), high)
		g.VMOVDQU(high, m)
	}
}
