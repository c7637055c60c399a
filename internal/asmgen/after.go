package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// after emits what inference does with results: batch norm or bias, ReLU and
// rounding to 16 bits in one pass; sums of codes; means over cells.
func after(g *gen) {
	g.eachWidth(func() {
		for _, format := range []string{"", "F16", "BF16"} {
			for _, relu := range []bool{false, true} {
				g.scaleShift(format, relu, 1)
				if g.wide {
					g.scaleShift(format, relu, 4)
				}
			}
		}
		g.addRequant()
		g.addRequantTrain()
		g.addScaled()
		g.meanSums()
		g.meanF32()
	})
}

// scaleShift emits the pass for one format of the result, with or without a
// ReLU that has an upper limit; an iteration takes times sixteen elements.
func (g *gen) scaleShift(format string, relu bool, times int) {
	name := "scaleShift" + format
	doc := []string{"y = x*mul + add, product and sum rounded apart"}
	if relu {
		name += "ReLU"
		doc[0] += ", then min(max(y, 0), limit), a NaN staying one"
	}
	name += g.suffix()
	if times > 1 {
		name += "x4"
	}
	doc[0] = name + " computes " + doc[0] + "."
	if format != "" {
		doc = append(doc, "Each result is rounded to "+format+", up to the first iteration with one that is infinite or NaN then:",
			"left is how many elements there were from there on, else 0.")
	}
	signature := "func(y, x, mul, add *float32, n, period int"
	if relu {
		signature += ", limit float32"
	}
	signature += ")"
	if format != "" {
		signature += " (left int)"
	}
	g.begin(name, signature, doc...)
	s := g.newStream()
	s.times = times
	y, x := s.pointer("y", 64*times), s.pointer("x", 64*times)
	mul, add := g.arg("mul"), g.arg("add")
	zero, limit := g.vec(), reg.VecVirtual(nil)
	if relu {
		limit = g.broadcast("limit")
		g.zero(zero)
	}
	var bf bf16
	if format == "BF16" {
		bf = g.newBF16()
	}
	s.loop(true, func() {
		var out, bad []reg.VecVirtual
		badK := g.K()
		for h := range times * g.halves() {
			v := g.vec()
			g.VMOVUPS(off(x, h*g.bytes()), v)
			g.VMULPS(s.periodic(mul, h), v, v)
			g.VADDPS(s.periodic(add, h), v, v)
			if relu {
				g.keepPositive(zero, v)
				g.VMINPS(v, limit, v) // of a NaN and limit, the NaN
			}
			r := v
			switch format {
			case "F16":
				r = g.vec()
				g.roundF16(v, r)
			case "BF16":
				r = g.vec()
				bf.round(v, r)
			}
			switch {
			case format == "":
			case g.wide:
				k := badK
				if h > 0 {
					k = g.K()
				}
				g.notFinite(v, r, format, k)
				if h > 0 {
					g.KORW(k, badK, badK)
				}
			default: // r-r is NaN where r is not finite
				d := g.vec()
				g.VSUBPS(r, r, d)
				g.VCMPPS(cmpUnordered, v, d, d)
				bad = append(bad, d)
			}
			out = append(out, r)
		}
		if format != "" {
			if g.wide {
				g.KORTESTW(badK, badK)
			} else {
				some := g.GP32()
				g.VORPS(bad[0], bad[1], bad[0])
				g.VMOVMSKPS(bad[0], some)
				g.TESTL(some, some)
			}
			g.JNZ(operand.LabelRef("bad"))
		}
		for h, v := range out {
			g.VMOVUPS(v, off(y, h*g.bytes()))
		}
	})
	if format != "" { // n is 0 here
		g.Label("bad")
		g.Store(s.n, g.ReturnIndex(0))
	}
	g.end()
}

// notFinite sets the lanes of k where the rounded r is infinite or v is NaN.
func (g *gen) notFinite(v, r reg.VecVirtual, format string, k reg.OpmaskVirtual) {
	if format == "F16" { // where a NaN stays one
		const infinities, nans = 0x18, 0x81
		g.VFPCLASSPSZ(operand.U8(infinities|nans), r, k)
		return
	}
	d := g.vec()
	g.VSUBPS(r, r, d)
	g.VCMPPS(cmpUnordered, v, d, k)
}

// keepPositive clears v where it is not above zero, a NaN apart.
func (g *gen) keepPositive(zero, v reg.VecVirtual) {
	if g.wide {
		k := g.K()
		g.VCMPPS(cmpNotLessEqual, zero, v, k)
		g.VMOVAPS_Z(v, k, v)
		return
	}
	c := g.vec()
	g.VCMPPS(cmpNotLessEqual, zero, v, c)
	g.VANDPS(c, v, v)
}

// roundF16 rounds to fp16 and back, halves to even. Every CPU with AVX2 has
// the instructions.
func (g *gen) roundF16(v, r reg.VecVirtual) {
	if g.wide {
		half := g.YMM()
		g.VCVTPS2PH(operand.U8(0), v, half)
		g.VCVTPH2PS(half, r)
		return
	}
	half := g.XMM()
	g.VCVTPS2PH(operand.U8(0), v, half)
	g.VCVTPH2PS(half, r)
}

// bf16 rounds to bfloat16: half of the last kept bit is added, less one where
// that bit is 0, and what is below it cleared.
type bf16 struct {
	g               *gen
	one, most, keep reg.VecVirtual
}

func (g *gen) newBF16() bf16 {
	b := bf16{g, g.vec(), g.vec(), g.vec()}
	for _, c := range []struct {
		v    reg.VecVirtual
		bits uint32
	}{{b.one, 1}, {b.most, 0x7fff}, {b.keep, 0xffff0000}} {
		r := g.GP32()
		g.MOVL(operand.U32(c.bits), r)
		g.VMOVD(r, c.v.AsX())
		g.VPBROADCASTD(c.v.AsX(), c.v)
	}
	return b
}

func (b bf16) round(v, r reg.VecVirtual) {
	g := b.g
	g.VPSRLD(operand.U8(16), v, r)
	g.and(b.one, r)
	g.VPADDD(b.most, r, r)
	g.VPADDD(v, r, r)
	g.and(b.keep, r)
}

// and keeps the bits of v that mask has.
func (g *gen) and(mask, v reg.VecVirtual) {
	if g.wide {
		g.VPANDD(mask, v, v)
	} else {
		g.VPAND(mask, v, v)
	}
}

// sum is the arguments of a sum of two tensors of codes.
type sum struct {
	g       *gen
	q       [2]reg.GPVirtual
	m, zero [2]reg.VecVirtual
}

const sumDoc = "float32(a-za)*ma + float32(b-zb)*mb"

func (g *gen) newSum(s *stream) sum {
	return sum{
		g, [2]reg.GPVirtual{s.pointer("a", 16), s.pointer("b", 16)},
		[2]reg.VecVirtual{g.broadcast("ma"), g.broadcast("mb")}, [2]reg.VecVirtual{g.broadcast("za"), g.broadcast("zb")},
	}
}

// load emits register h of the sum, products and sum rounded apart.
func (t sum) load(h int) reg.VecVirtual {
	g := t.g
	var v [2]reg.VecVirtual
	for i, q := range t.q {
		v[i] = g.vec()
		g.widen(false, q, h, v[i])
		g.VPSUBD(t.zero[i], v[i], v[i])
		g.VCVTDQ2PS(v[i], v[i])
		g.VMULPS(t.m[i], v[i], v[i])
	}
	g.VADDPS(v[1], v[0], v[0])
	return v[0]
}

func (g *gen) addRequant() {
	name := "addRequant" + g.suffix()
	g.begin(name, "func(dst, a, b *uint8, n int, ma, mb, lo, hi float32, za, zb, zero int32)",
		name+" computes dst = rint(clamp("+sumDoc+", lo, hi)) + zero,",
		"products and sum rounded apart.")
	s := g.newStream()
	dst, t := s.pointer("dst", 16), g.newSum(s)
	lo, hi, zero := g.broadcast("lo"), g.broadcast("hi"), g.broadcast("zero")
	s.loop(false, func() {
		var out []reg.VecVirtual
		for h := range g.halves() {
			v := t.load(h)
			g.VMAXPS(lo, v, v)
			g.VMINPS(hi, v, v)
			g.VCVTPS2DQ(v, v)
			g.VPADDD(zero, v, v)
			out = append(out, v)
		}
		g.storeBytes(out, false, off(dst, 0))
	})
	g.end()
}

func (g *gen) addRequantTrain() {
	name := "addRequantTrain" + g.suffix()
	g.begin(name, "func(dst, mask, a, b *uint8, stats *float32, n int, ma, mb, lo, hi, above float32, za, zb, zero int32)",
		name+" is addRequant that also keeps mask bits and extremes, as requantTrain does.")
	s := g.newStream()
	dst, mask, t := s.pointer("dst", 16), s.pointer("mask", 2), g.newSum(s)
	e := g.newTrainEnd()
	s.loop(false, func() {
		for h := range g.halves() {
			e.add(t.load(h))
		}
		e.store(dst, mask)
	})
	e.close()
	g.end()
}

func (g *gen) addScaled() {
	name := "addScaled" + g.suffix()
	g.begin(name, "func(dst *float32, a, b *uint8, n int, ma, mb float32, za, zb int32)", name+" computes dst = "+sumDoc+".")
	s := g.newStream()
	dst, t := s.pointer("dst", 64), g.newSum(s)
	s.loop(false, func() {
		for h := range g.halves() {
			g.VMOVUPS(t.load(h), off(dst, h*g.bytes()))
		}
	})
	g.end()
}

// cells emits a loop over the cells of an image for sixteen channels.
func (g *gen) cells(body func(x reg.Register)) {
	x, left, stride := g.arg("x"), g.arg("cells"), g.arg("stride")
	g.Label("loop")
	body(x)
	g.ADDQ(stride, x)
	g.DECQ(left)
	g.JNZ(operand.LabelRef("loop"))
}

func (g *gen) meanSums() {
	name := "meanSums" + g.suffix()
	g.begin(name, "func(acc *int32, x *uint8, cells, stride int)", name+" computes acc += sum over cells of x, 16 channels.")
	acc := g.arg("acc")
	sums, t := g.vecs(g.halves()), g.vec()
	for h, v := range sums {
		g.loadInt(off(acc, h*g.bytes()), v)
	}
	g.cells(func(x reg.Register) {
		for h, v := range sums {
			g.widen(false, x, h, t)
			g.VPADDD(t, v, v)
		}
	})
	for h, v := range sums {
		if g.wide {
			g.VMOVDQU32(v, off(acc, h*64))
		} else {
			g.VMOVDQU(v, off(acc, h*32))
		}
	}
	g.end()
}

func (g *gen) meanF32() {
	name := "meanF32" + g.suffix()
	g.begin(name, "func(y, x *float32, cells, stride int, count float32)", name+" computes y = (sum over cells of x) / count, 16 channels.")
	y, count := g.arg("y"), g.broadcast("count")
	sums := g.vecs(g.halves())
	for _, v := range sums {
		g.zero(v)
	}
	g.cells(func(x reg.Register) {
		for h, v := range sums {
			g.VADDPS(off(x, h*g.bytes()), v, v)
		}
	})
	for h, v := range sums {
		g.VDIVPS(count, v, v)
		g.VMOVUPS(v, off(y, h*g.bytes()))
	}
	g.end()
}
