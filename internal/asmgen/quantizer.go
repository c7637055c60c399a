package main

import (
	"math"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// quantizer emits codes of activations by one scale: arguments scale, inverse, least, most and zero. A zmm divides by the
// reciprocal, which two steps of Newton's make the quotient's own bits as long as all numbers are moderate; a ymm divides.
// The quotient is limited before it is rounded, to what is rounded to the least and the greatest code.
type quantizer struct {
	g                                 *gen
	scale, inverse, least, most, zero reg.VecVirtual
	abs, top                          reg.VecVirtual // of a zmm: the greatest magnitude as an integer
	nan                               reg.GPVirtual  // of a ymm: bits of the lanes that have seen one
	out, inside                       []reg.VecVirtual
	k                                 []reg.OpmaskVirtual
}

// moderate is the greatest magnitude, and its reciprocal the least, that keeps remainders of quotients exact.
const moderate = 0x1p60

func (g *gen) newQuantizer() *quantizer {
	q := &quantizer{g: g, scale: g.broadcast("scale"), least: g.broadcast("least"), most: g.broadcast("most"), zero: g.broadcast("zero")}
	if g.wide {
		q.inverse, q.abs, q.top = g.broadcast("inverse"), g.clearSign(), g.vec()
		g.zero(q.top)
	} else {
		q.nan = g.GP64()
		g.XORQ(q.nan, q.nan)
	}
	return q
}

// add rounds the next register of an iteration; passes, unless nil, narrows the lanes that a gradient passes.
func (q *quantizer) add(y reg.VecVirtual, passes func(reg.OpmaskVirtual, reg.VecVirtual) (reg.OpmaskVirtual, reg.VecVirtual)) {
	g, t, c := q.g, q.g.vec(), q.g.vec()
	if g.wide {
		rest := g.vec()
		g.VPANDD(y, q.abs, c)
		g.VPMAXUD(c, q.top, q.top)
		g.quotient(y, q.scale, q.inverse, t, rest)
	} else {
		seen := g.GP64()
		g.VCMPPS(cmpUnordered, y, y, c)
		g.VMOVMSKPS(c, seen.As32())
		g.ORQ(seen, q.nan)
		g.VDIVPS(q.scale, y, t)
	}
	g.VMAXPS(q.least, t, c)
	g.VMINPS(q.most, c, c)
	var k reg.OpmaskVirtual
	var in reg.VecVirtual
	if g.wide {
		k = g.K()
		g.VCMPPS(cmpEqual, t, c, k)
	} else {
		in = g.vec()
		g.VCMPPS(cmpEqual, t, c, in)
	}
	if passes != nil {
		k, in = passes(k, in)
	}
	q.k, q.inside = append(q.k, k), append(q.inside, in)
	g.VCVTPS2DQ(c, c)
	g.VPADDD(q.zero, c, c)
	q.out = append(q.out, c)
}

// quotient emits q = y/scale, to the bit where all are moderate and inverse is the reciprocal of scale.
func (g *gen) quotient(y, scale, inverse, q, rest reg.VecVirtual) {
	g.VMULPS(y, inverse, q)
	for range 2 {
		g.VMOVAPS(y, rest)
		g.VFNMADD231PS(scale, q, rest)
		g.VFMADD231PS(inverse, rest, q)
	}
}

// store ends an iteration.
func (q *quantizer) store(dst, mask reg.GPVirtual) {
	q.g.MOVW(q.g.bitsOf(q.k, q.inside).As16(), off(mask, 0))
	q.g.storeBytes(q.out, false, off(dst, 0))
}

// odd is not 0 when there was a NaN, or, of a zmm, a number that is not moderate.
func (q *quantizer) odd() reg.GPVirtual {
	g, result := q.g, q.g.GP64()
	if !g.wide {
		return q.nan
	}
	limit, r, k := g.vec(), g.GP32(), g.K()
	g.MOVL(operand.U32(math.Float32bits(moderate)), r)
	g.VPBROADCASTD(r, limit)
	g.VPCMPUD(operand.U8(cmpGreaterUnsigned), limit, q.top, k)
	g.KMOVW(k, result.As32())
	return result
}

// cmpGreaterUnsigned is the predicate of VPCMPUD: not less or equal.
const cmpGreaterUnsigned = 6

// extremes emits sixteen running minima and sixteen maxima: argument stats.
type extremes struct {
	g           *gen
	stats       reg.GPVirtual
	least, most []reg.VecVirtual
}

func (g *gen) newExtremes() *extremes {
	e := &extremes{g: g, stats: g.arg("stats"), least: g.vecs(g.halves()), most: g.vecs(g.halves())}
	for h := range e.least {
		g.VMOVUPS(off(e.stats, h*g.bytes()), e.least[h])
		g.VMOVUPS(off(e.stats, 64+h*g.bytes()), e.most[h])
	}
	return e
}

// add takes register h of an iteration, NaN left out.
func (e *extremes) add(h int, y reg.VecVirtual) {
	e.g.VMINPS(e.least[h], y, e.least[h])
	e.g.VMAXPS(e.most[h], y, e.most[h])
}

// close stores them.
func (e *extremes) close() {
	for h := range e.least {
		e.g.VMOVUPS(e.least[h], off(e.stats, h*e.g.bytes()))
		e.g.VMOVUPS(e.most[h], off(e.stats, 64+h*e.g.bytes()))
	}
}

func (g *gen) quantizeTrain() {
	name := "quantizeTrain" + g.suffix()
	g.begin(name, "func(dst, mask *uint8, x, stats *float32, n int, scale, inverse, least, most float32, zero int32) (odd int)",
		name+" computes the codes rint(x/scale) + zero, x/scale limited to least and most; mask has a bit set where it was",
		"within them; stats are sixteen running minima, then sixteen maxima of x. odd is not 0 when there is a NaN, or,",
		"of a zmm, a magnitude above 2^60.")
	s := g.newStream()
	dst, mask, x := s.pointer("dst", 16), s.pointer("mask", 2), s.pointer("x", 64)
	q, stats := g.newQuantizer(), g.newExtremes()
	s.loop(false, func() {
		for h := range g.halves() {
			v := g.vec()
			g.VMOVUPS(off(x, h*g.bytes()), v)
			stats.add(h, v)
			q.add(v, nil)
		}
		q.store(dst, mask)
	})
	stats.close()
	g.Store(q.odd(), g.ReturnIndex(0))
	g.end()
}

// quantize emits one of the three quantizers: to codes (U8, S8) or to the
// values they stand for (F32).
func (g *gen) quantize(to string) {
	name := "quantize" + to + g.suffix()
	element := map[string]string{"F32": "float32", "U8": "uint8", "S8": "int8"}[to]
	size := map[string]int{"F32": 64, "U8": 16, "S8": 16}[to]
	g.begin(name, "func(dst *"+element+", mask *uint8, x, scale *float32, n, period, maskStep int, lo, hi float32, zero int32) (odd int)",
		name+" rounds x/scale to integers between lo and hi, 0 for NaN; see round.",
		"mask moves by maskStep bytes for sixteen elements. odd is 0, or says where the first NaN"+infinities[to == "S8"],
		"is: the elements left at its sixteen, shifted by 16, and one bit for each there.")
	s := g.newStream()
	dst, mask, x := s.pointer("dst", size), s.stepped("mask", "maskStep"), s.pointer("x", 64)
	scale := g.arg("scale")
	lo, hi, zero, none := g.broadcast("lo"), g.broadcast("hi"), g.broadcast("zero"), g.vec()
	g.zero(none)
	first := g.GP64()
	g.XORQ(first, first)
	s.loop(true, func() {
		var out, inside, oddV []reg.VecVirtual
		var k, evenK []reg.OpmaskVirtual
		for h := range g.halves() {
			v, r := g.vec(), g.vec()
			g.VMOVUPS(off(x, h*g.bytes()), v)
			rest := v
			if to == "S8" {
				rest = g.vec()
				g.VSUBPS(v, v, rest) // 0, and NaN of an infinity, too
			}
			g.VDIVPS(s.periodic(scale, h), v, v)
			g.round(v, r)
			if g.wide {
				in, ordered, c := g.K(), g.K(), g.vec()
				g.VCMPPS(cmpOrdered, v, v, ordered)
				even := ordered
				if to == "S8" {
					even = g.K()
					g.VCMPPS(cmpOrdered, rest, rest, even)
				}
				evenK = append(evenK, even)
				g.VMAXPS(lo, r, c)
				g.VMINPS(hi, c, c)
				g.VCMPPS(cmpEqual, r, c, in) // what the limits leave alone
				k = append(k, in)
				g.VMOVAPS_Z(c, ordered, r)
			} else {
				in, c, nan := g.vec(), g.vec(), g.vec()
				g.VCMPPS(cmpUnordered, v, v, nan)
				odd := nan
				if to == "S8" {
					odd = g.vec()
					g.VCMPPS(cmpUnordered, rest, rest, odd)
				}
				oddV = append(oddV, odd)
				g.VCMPPS(cmpGreaterEqual, lo, r, in)
				g.VCMPPS(cmpLessEqual, hi, r, c)
				g.VANDPS(c, in, in)
				inside = append(inside, in)
				g.VMAXPS(lo, r, r)
				g.VMINPS(hi, r, r)
				g.VANDNPS(r, nan, r)
			}
			if to == "F32" {
				g.VADDPS(none, r, r) // -0 becomes 0
				g.VMULPS(s.periodic(scale, h), r, r)
				g.VMOVUPS(r, off(dst, h*g.bytes()))
				continue
			}
			g.VCVTPS2DQ(r, r)
			if to == "U8" {
				g.VPADDD(zero, r, r)
			}
			out = append(out, r)
		}
		g.MOVW(g.bitsOf(k, inside).As16(), off(mask, 0))
		if to != "F32" {
			g.storeBytes(out, to == "S8", off(dst, 0))
		}
		var odd reg.GPVirtual
		if g.wide {
			g.KORTESTW(evenK[0], evenK[0])
			g.JCS(operand.LabelRef("next")) // none is odd
			g.KNOTW(evenK[0], evenK[0])
			odd = g.bitsOf(evenK, nil)
		} else {
			odd = g.bitsOf(nil, oddV)
			g.TESTL(odd.As32(), odd.As32())
			g.JZ(operand.LabelRef("next"))
		}
		g.TESTQ(first, first)
		g.JNZ(operand.LabelRef("next"))
		g.MOVQ(s.n, first)
		g.SHLQ(operand.U8(16), first)
		g.ORQ(odd, first)
		g.Label("next")
	})
	g.Store(first, g.ReturnIndex(0))
	g.end()
}

// quantizeWeights is quantize("S8") with fewer instructions, for values and scales far from the limits of float32. It
// multiplies by reciprocals, and two steps of Newton's method make the product the nearest number to the quotient
// (P. Markstein, IA-64 and Elementary Functions, 2000, chapter 8: after the first it is off by less than one in the last place, and
// so the second rounds right, as the reciprocal is rounded right). What is left alone by limits before rounding is what
// lies inside after it.
func (g *gen) quantizeWeights() {
	name := "quantizeWeights" + g.suffix()
	g.begin(name, "func(dst *int8, mask *uint8, x, scale, inverse *float32, n, period, maskStep int, least, most float32) (top int32)",
		name+" rounds x/scale to integers, after limiting it to what is rounded to the least and to the greatest of them.",
		"mask moves by maskStep bytes for sixteen elements. top is the bits of the greatest magnitude of x.")
	s := g.newStream()
	dst, mask, x := s.pointer("dst", 16), s.stepped("mask", "maskStep"), s.far("x")
	scale, inverse := g.arg("scale"), g.arg("inverse")
	least, most, abs, top := g.broadcast("least"), g.broadcast("most"), g.clearSign(), g.vec()
	g.zero(top)
	s.loop(true, func() {
		v, rest, q, c, k := g.vec(), g.vec(), g.vec(), g.vec(), g.K()
		divisor := g.vec()
		by := g.vec()
		g.VMOVUPS(off(x, 0), v)
		g.VMOVUPS(s.periodic(scale, 0), divisor)
		g.VMOVUPS(s.periodic(inverse, 0), by)
		g.VPANDD(v, abs, c)
		g.VPMAXUD(c, top, top)
		g.quotient(v, divisor, by, q, rest)
		g.VMAXPS(least, q, c)
		g.VMINPS(most, c, c)
		g.VCMPPS(cmpEqual, q, c, k)
		g.VCVTPS2DQ(c, c)
		g.MOVW(g.bitsOf([]reg.OpmaskVirtual{k}, nil).As16(), off(mask, 0))
		g.storeBytes([]reg.VecVirtual{c}, true, off(dst, 0))
	})
	g.foldMax(top)
	result := g.GP32()
	g.VMOVD(top.AsX(), result)
	g.Store(result, g.ReturnIndex(0))
	g.end()
}

// foldMax brings the greatest of the unsigned lanes of a zmm into its first.
func (g *gen) foldMax(v reg.VecVirtual) {
	t := g.vec()
	g.VEXTRACTI64X4(operand.U8(1), v, t.AsY())
	g.VPMAXUD(t.AsY(), v.AsY(), v.AsY())
	g.VEXTRACTI128(operand.U8(1), v.AsY(), t.AsX())
	for _, order := range []int{-1, 0x4e, 0xb1} {
		if order >= 0 {
			g.VPSHUFD(operand.U8(order), v.AsX(), t.AsX())
		}
		g.VPMAXUD(t.AsX(), v.AsX(), v.AsX())
	}
}

// reciprocals divides one by scales.
func (g *gen) reciprocals() {
	name := "reciprocals" + g.suffix()
	g.begin(name, "func(dst, x *float32, n int, least, most float32) (odd int)",
		name+" computes dst = 1/x, n a multiple of sixteen; odd is not 0 when one of x is below least or above most.")
	dst, x, n := g.arg("dst"), g.arg("x"), g.arg("n")
	least, most, one, r := g.broadcast("least"), g.broadcast("most"), g.vec(), g.GP32()
	g.MOVL(operand.U32(0x3f800000), r)
	g.VMOVD(r, one.AsX())
	g.VPBROADCASTD(one.AsX(), one)
	odd, k := g.K(), g.K()
	g.KXORW(odd, odd, odd)
	g.Label("loop")
	v := g.vec()
	g.VMOVUPS(off(x, 0), v)
	g.VCMPPS(cmpLess, least, v, k)
	g.KORW(k, odd, odd)
	g.VCMPPS(cmpGreater, most, v, k)
	g.KORW(k, odd, odd)
	g.VDIVPS(v, one, v)
	g.VMOVUPS(v, off(dst, 0))
	g.advance(imm(g.bytes()), x, dst)
	g.SUBQ(operand.I8(16), n)
	g.JNZ(operand.LabelRef("loop"))
	result := g.GP64()
	g.KMOVW(odd, result.As32())
	g.Store(result, g.ReturnIndex(0))
	g.end()
}

// infinities is how the quantizer of weights goes on about what it reports.
var infinities = map[bool]string{true: " or infinity"}
