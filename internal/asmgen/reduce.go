package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Routines that reduce: extremes, sums over rows and columns, gradients of scales; and the sums that feed them.

// clearSign returns a mask of all bits but the sign.
func (g *gen) clearSign() reg.VecVirtual {
	v, r := g.vec(), g.GP32()
	g.MOVL(operand.U32(0x7fffffff), r)
	g.VMOVD(r, v.AsX())
	g.VPBROADCASTD(v.AsX(), v)
	return v
}

func (g *gen) absMaxColumns() {
	name := "absMaxColumns" + g.suffix()
	g.begin(name, "func(dst, x *float32, rows, stride int) (nan int)",
		name+" raises dst to the greatest magnitude in each of sixteen columns, rows stride bytes apart.",
		"nan is not 0 when a column has a NaN, which then is in dst.")
	dst, x, rows, stride := g.arg("dst"), g.arg("x"), g.arg("rows"), g.arg("stride")
	// Magnitudes are ordered as their bits are, and those of a NaN are above infinity's.
	abs, top := g.clearSign(), g.vecs(g.halves())
	for h, v := range top {
		g.VMOVUPS(off(dst, h*g.bytes()), v)
	}
	each := func(m operand.Mem) {
		for h, acc := range top {
			v, at := g.vec(), m
			at.Disp += h * g.bytes()
			if g.wide {
				g.VPANDD(at, abs, v)
			} else {
				g.VPAND(at, abs, v)
			}
			g.VPMAXSD(v, acc, acc)
		}
	}
	three := g.times3(stride)
	g.SUBQ(operand.I8(4), rows)
	g.JL(operand.LabelRef("rest"))
	g.Label("four")
	each(off(x, 0))
	each(operand.Mem{Base: x, Index: stride, Scale: 1})
	each(operand.Mem{Base: x, Index: stride, Scale: 2})
	each(operand.Mem{Base: x, Index: three, Scale: 1})
	g.LEAQ(operand.Mem{Base: x, Index: stride, Scale: 4}, x)
	g.SUBQ(operand.I8(4), rows)
	g.JGE(operand.LabelRef("four"))
	g.Label("rest")
	g.ADDQ(operand.I8(4), rows)
	g.JZ(operand.LabelRef("done"))
	g.Label("one")
	each(off(x, 0))
	g.ADDQ(stride, x)
	g.DECQ(rows)
	g.JNZ(operand.LabelRef("one"))
	g.Label("done")
	result := g.GP64()
	g.XORQ(result, result)
	for h, acc := range top {
		seen := g.GP64()
		g.VMOVUPS(acc, off(dst, h*g.bytes()))
		if g.wide {
			k := g.K()
			g.VCMPPS(cmpUnordered, acc, acc, k)
			g.KMOVW(k, seen.As32())
		} else {
			g.VCMPPS(cmpUnordered, acc, acc, acc)
			g.VMOVMSKPS(acc, seen.As32())
		}
		g.ORQ(seen, result)
	}
	g.Store(result, g.ReturnIndex(0))
	g.end()
}

func (g *gen) minMax() {
	name := "minMax" + g.suffix()
	g.begin(name, "func(stats, x *float32, n int) (nan int)",
		name+" widens stats: sixteen running minima, then sixteen maxima of x.",
		"nan is not 0 when x has a NaN, which is left out.")
	s := g.newStream()
	x, stats := s.pointer("x", 64), g.arg("stats")
	lo, hi := g.vecs(g.halves()), g.vecs(g.halves())
	for h := range lo {
		g.VMOVUPS(off(stats, h*g.bytes()), lo[h])
		g.VMOVUPS(off(stats, 64+h*g.bytes()), hi[h])
	}
	var seenK reg.OpmaskVirtual
	seenV := g.vec()
	if g.wide {
		seenK = g.K()
		g.KXORW(seenK, seenK, seenK)
	} else {
		g.zero(seenV)
	}
	s.loop(false, func() {
		for h := range lo {
			v := g.vec()
			g.VMOVUPS(off(x, h*g.bytes()), v)
			if g.wide {
				k := g.K()
				g.VCMPPS(cmpUnordered, v, v, k)
				g.KORW(k, seenK, seenK)
			} else {
				c := g.vec()
				g.VCMPPS(cmpUnordered, v, v, c)
				g.VORPS(c, seenV, seenV)
			}
			g.VMINPS(lo[h], v, lo[h])
			g.VMAXPS(hi[h], v, hi[h])
		}
	})
	for h := range lo {
		g.VMOVUPS(lo[h], off(stats, h*g.bytes()))
		g.VMOVUPS(hi[h], off(stats, 64+h*g.bytes()))
	}
	result := g.GP64()
	if g.wide {
		g.KMOVW(seenK, result.As32())
	} else {
		g.VMOVMSKPS(seenV, result.As32())
	}
	g.Store(result, g.ReturnIndex(0))
	g.end()
}

// columnBlock is the number of rows added in float32; see package kernel.
const columnBlock = 32

// rowBlocks emits the loops of a sum over rows: clear begins a block, row adds
// a row and moves on, join ends a block.
func (g *gen) rowBlocks(clear, row, join func()) {
	rows, most := g.arg("rows"), g.GP64()
	g.MOVQ(operand.I32(columnBlock), most)
	left := g.GP64()
	g.Label("block")
	g.MOVQ(rows, left)
	g.CMPQ(rows, most)
	g.CMOVQGT(most, left)
	g.SUBQ(left, rows)
	clear()
	g.Label("row")
	row()
	g.DECQ(left)
	g.JNZ(operand.LabelRef("row"))
	join()
	g.TESTQ(rows, rows)
	g.JNZ(operand.LabelRef("block"))
	g.end()
}

// addDoubles adds sixteen float32 sums to as many float64.
func (g *gen) addDoubles(sums []reg.VecVirtual, dst reg.Register) {
	quarter := g.bytes() / 4
	for h, v := range sums {
		for i := range 2 {
			d, m := g.vec(), off(dst, (2*h+i)*2*2*quarter)
			switch {
			case i == 0 && g.wide:
				g.VCVTPS2PD(v.AsY(), d)
			case i == 0:
				g.VCVTPS2PD(v.AsX(), d)
			case g.wide:
				half := g.YMM()
				g.VEXTRACTF64X4(operand.U8(1), v, half)
				g.VCVTPS2PD(half, d)
			default:
				half := g.XMM()
				g.VEXTRACTF128(operand.U8(1), v, half)
				g.VCVTPS2PD(half, d)
			}
			g.VADDPD(m, d, d)
			g.VMOVUPD(d, m)
		}
	}
}

// columnSums emits a sum over rows of sixteen columns, of x or of (x-mean)^2.
func (g *gen) columnSums(kind string) {
	name := "column" + kind + g.suffix()
	doc := map[string]string{"Sum": "x", "SquaredDeviation": "(x-mean)^2"}[kind]
	g.begin(name, "func(dst *float64, x, mean *float32, rows, stride int)",
		name+" adds "+doc+" to sixteen columns of dst: float32 sums of blocks of 32 rows, added in order;",
		"rows are stride bytes apart.")
	dst, x, stride := g.arg("dst"), g.arg("x"), g.arg("stride")
	acc, mean := g.vecs(g.halves()), g.vecs(g.halves())
	if kind != "Sum" {
		mp := g.arg("mean")
		for h := range mean {
			g.VMOVUPS(off(mp, h*g.bytes()), mean[h])
		}
	}
	g.rowBlocks(func() {
		for _, v := range acc {
			g.zero(v)
		}
	}, func() {
		for h := range acc {
			d := h * g.bytes()
			if kind == "Sum" {
				g.VADDPS(off(x, d), acc[h], acc[h])
				continue
			}
			v := g.vec()
			g.VMOVUPS(off(x, d), v)
			g.VSUBPS(mean[h], v, v)
			g.VMULPS(v, v, v)
			g.VADDPS(v, acc[h], acc[h])
		}
		g.ADDQ(stride, x)
	}, func() { g.addDoubles(acc, dst) })
}

// normSums emits the sums of batch norm's gradient.
func (g *gen) normSums() {
	name := "normSums" + g.suffix()
	g.begin(name, "func(dgamma, dbeta *float64, dy *float32, mask *uint8, x, mean, inv *float32, rows, stride, maskStride int)",
		name+" adds d*((x-mean)*inv) to sixteen columns of dgamma and d to those of dbeta, as columnSum does;",
		"d is dy where the mask bit is set, else 0; the bits of rows are maskStride bytes apart.")
	dgamma, dbeta, dy, x, mask := g.arg("dgamma"), g.arg("dbeta"), g.arg("dy"), g.arg("x"), g.arg("mask")
	stride, maskStride := g.arg("stride"), g.arg("maskStride")
	sums, products, mean, inv := g.vecs(g.halves()), g.vecs(g.halves()), g.vecs(g.halves()), g.vecs(g.halves())
	mp, ip := g.arg("mean"), g.arg("inv")
	for h := range mean {
		g.VMOVUPS(off(mp, h*g.bytes()), mean[h])
		g.VMOVUPS(off(ip, h*g.bytes()), inv[h])
	}
	bits := g.newMaskBits()
	g.rowBlocks(func() {
		for h := range sums {
			g.zero(sums[h])
			g.zero(products[h])
		}
	}, func() {
		for _, r := range []reg.GPVirtual{dy, x} {
			g.PREFETCHT0(off(r, ahead))
		}
		for h := range sums {
			d, v := bits.load(off(dy, h*g.bytes()), mask, h), g.vec()
			g.VADDPS(d, sums[h], sums[h])
			g.VMOVUPS(off(x, h*g.bytes()), v)
			g.VSUBPS(mean[h], v, v)
			g.VMULPS(inv[h], v, v)
			g.VMULPS(d, v, v)
			g.VADDPS(v, products[h], products[h])
		}
		for _, r := range []reg.GPVirtual{dy, x} {
			g.ADDQ(stride, r)
		}
		g.ADDQ(maskStride, mask)
	}, func() {
		g.addDoubles(sums, dbeta)
		g.addDoubles(products, dgamma)
	})
}

// slope emits the derivative of s*clamp(rint(x/s)) by s into d: lo or hi where
// rint(t) is outside, else rint(t) - t. It overwrites t.
func (g *gen) slope(t, lo, hi, d reg.VecVirtual) {
	r := g.vec()
	g.round(t, r)
	g.VSUBPS(t, r, d)
	for _, side := range []struct {
		predicate operand.Op
		limit     reg.VecVirtual
	}{{cmpLess, lo}, {cmpGreater, hi}} {
		if g.wide {
			k := g.K()
			g.VCMPPS(side.predicate, side.limit, r, k)
			g.VMOVAPS(side.limit, k, d)
		} else {
			c := g.vec()
			g.VCMPPS(side.predicate, side.limit, r, c)
			g.VBLENDVPS(c, side.limit, d, d)
		}
	}
}

// lanesInOut loads the sixteen lanes that a sum adds to and returns what
// stores them.
func (g *gen) lanesInOut() (acc []reg.VecVirtual, store func()) {
	lane := g.arg("lane")
	acc = g.vecs(g.halves())
	for h, v := range acc {
		g.VMOVUPS(off(lane, h*g.bytes()), v)
	}
	return acc, func() {
		for h, v := range acc {
			g.VMOVUPS(v, off(lane, h*g.bytes()))
		}
	}
}

// scaleGrad emits the gradient of one scale, or of a scale of one: x/1 is x, and a division takes longer than the rest.
func (g *gen) scaleGrad(one bool) {
	name, scaled, doc := "scaleGrad"+g.suffix(), "scale, ", "slope(x/scale)"
	if one {
		name, scaled, doc = "scaleGradOne"+g.suffix(), "", "slope(x)"
	}
	g.begin(name, "func(lane, dy, x *float32, n int, "+scaled+"lo, hi float32)",
		name+" adds dy*"+doc+" to sixteen lanes; see scaleSlope.")
	s := g.newStream()
	dy, x := s.pointer("dy", 64), s.pointer("x", 64)
	var scale reg.VecVirtual
	if !one {
		scale = g.broadcast("scale")
	}
	lo, hi := g.broadcast("lo"), g.broadcast("hi")
	acc, store := g.lanesInOut()
	s.loop(false, func() {
		for h := range acc {
			t, d := g.vec(), g.vec()
			g.VMOVUPS(off(x, h*g.bytes()), t)
			if !one {
				g.VDIVPS(scale, t, t)
			}
			g.slope(t, lo, hi, d)
			g.VMULPS(off(dy, h*g.bytes()), d, d)
			g.VADDPS(d, acc[h], acc[h])
		}
	})
	store()
	g.end()
}

func (g *gen) scaleGradColumns() {
	name := "scaleGradColumns" + g.suffix()
	g.begin(name, "func(lane, dy, x, scale *float32, rows, stride int, lo, hi float32)",
		name+" adds dy*slope(x/scale) to sixteen columns, row by row; rows are stride bytes apart.")
	dy, x, rows, stride := g.arg("dy"), g.arg("x"), g.arg("rows"), g.arg("stride")
	lo, hi := g.broadcast("lo"), g.broadcast("hi")
	scale, sp := g.vecs(g.halves()), g.arg("scale")
	for h, v := range scale {
		g.VMOVUPS(off(sp, h*g.bytes()), v)
	}
	acc, store := g.lanesInOut()
	g.Label("loop")
	for h := range acc {
		t, d := g.vec(), g.vec()
		g.VMOVUPS(off(x, h*g.bytes()), t)
		g.VDIVPS(scale[h], t, t)
		g.slope(t, lo, hi, d)
		g.VMULPS(off(dy, h*g.bytes()), d, d)
		g.VADDPS(d, acc[h], acc[h])
	}
	g.ADDQ(stride, x)
	g.ADDQ(stride, dy)
	g.DECQ(rows)
	g.JNZ(operand.LabelRef("loop"))
	store()
	g.end()
}

func (g *gen) scaleGradU8() {
	name := "scaleGradU8" + g.suffix()
	g.begin(name, "func(lane, dy *float32, up *uint8, x *float32, codes, mask *uint8, n, upStep int, inverse float32, zero int32)",
		name+" adds d*(code-zero - x*inverse) to sixteen lanes where the mask bit is set, else d*(code-zero);",
		"d is dy where the bit of up is set, else 0; up moves by upStep bytes for sixteen elements.")
	s := g.newStream()
	dy, up, x := s.pointer("dy", 64), s.stepped("up", "upStep"), s.pointer("x", 64)
	codes, mask := s.pointer("codes", 16), s.pointer("mask", 2)
	inverse, zero, bits := g.broadcast("inverse"), g.broadcast("zero"), g.newMaskBits()
	acc, store := g.lanesInOut()
	s.loop(false, func() {
		for h := range acc {
			t := bits.load(off(x, h*g.bytes()), mask, h)
			g.VMULPS(inverse, t, t)
			g.codeSlope(codes, h, zero, t, bits.load(off(dy, h*g.bytes()), up, h), acc[h])
		}
	})
	store()
	g.end()
}

func (g *gen) scaleGradCodes() {
	name := "scaleGradCodes" + g.suffix()
	g.begin(name, "func(lane, dy, x, inverse *float32, codes *int8, mask *uint8, n, period int)",
		name+" adds dy*(code - x*inverse) to lane where the mask bit is set, else dy*code,",
		"and clears dy where it is not set. lane and inverse have period elements.")
	s := g.newStream()
	dy, x := s.pointer("dy", 64), s.far("x")
	codes, mask := s.pointer("codes", 16), s.pointer("mask", 2)
	lane, inverse, bits := g.arg("lane"), g.arg("inverse"), g.newMaskBits()
	s.loop(true, func() {
		for h := range g.halves() {
			inside := bits.at(off(mask, h))
			t, d, up := inside.keep(off(x, h*g.bytes())), g.vec(), g.vec()
			g.VMOVUPS(off(dy, h*g.bytes()), up)
			g.VMULPS(s.periodic(inverse, h), t, t)
			g.widen(true, codes, h, d)
			g.VCVTDQ2PS(d, d)
			g.VSUBPS(t, d, d)
			g.VMULPS(up, d, d)
			g.VADDPS(s.periodic(lane, h), d, d)
			g.VMOVUPS(d, s.periodic(lane, h))
			if g.wide { // few weights are outside: mostly there is nothing to store
				g.KORTESTW(inside.k, inside.k)
				g.JCS(operand.LabelRef("inside"))
			}
			g.VMOVUPS(inside.keep(up), off(dy, h*g.bytes()))
		}
		if g.wide {
			g.Label("inside")
		}
	})
	g.end()
}

// times3 is three times r.
func (g *gen) times3(r reg.GPVirtual) reg.GPVirtual {
	three := g.GP64()
	g.LEAQ(operand.Mem{Base: r, Index: r, Scale: 2}, three)
	return three
}

func (g *gen) sumSquares() {
	name := "sumSquares" + g.suffix()
	g.begin(name, "func(lane, x *float32, n int)", name+" adds x*x to sixteen lanes.")
	s := g.newStream()
	x := s.pointer("x", 64)
	acc, store := g.lanesInOut()
	s.loop(false, func() {
		for h := range acc {
			v := g.vec()
			g.VMOVUPS(off(x, h*g.bytes()), v)
			g.VMULPS(v, v, v)
			g.VADDPS(v, acc[h], acc[h])
		}
	})
	store()
	g.end()
}

func (g *gen) add() {
	name := "add" + g.suffix()
	g.begin(name, "func(dst, a, b *float32, n int)", name+" computes dst = a + b.")
	s := g.newStream()
	dst, a, b := s.pointer("dst", 64), s.far("a"), s.far("b")
	s.loop(false, func() {
		for h := range g.halves() {
			v := g.vec()
			g.VMOVUPS(off(a, h*g.bytes()), v)
			g.VADDPS(off(b, h*g.bytes()), v, v)
			g.VMOVUPS(v, off(dst, h*g.bytes()))
		}
	})
	g.end()
}

func (g *gen) addReLU() {
	name := "addReLU" + g.suffix()
	g.begin(name, "func(y *float32, mask *uint8, a, b *float32, n int)",
		name+" computes y = a + b where that is positive or NaN, else 0; mask has a bit set where it is positive.")
	s := g.newStream()
	y, mask, a, b := s.pointer("y", 64), s.pointer("mask", 2), s.far("a"), s.far("b")
	zero := g.vec()
	g.zero(zero)
	s.loop(false, func() {
		var ks []reg.OpmaskVirtual
		var vs []reg.VecVirtual
		for h := range g.halves() {
			v := g.vec()
			g.VMOVUPS(off(a, h*g.bytes()), v)
			g.VADDPS(off(b, h*g.bytes()), v, v)
			if g.wide {
				k := g.K()
				g.VCMPPS(cmpGreater, zero, v, k)
				ks = append(ks, k)
			} else {
				c := g.vec()
				g.VCMPPS(cmpGreater, zero, v, c)
				vs = append(vs, c)
			}
			g.keepPositive(zero, v)
			g.VMOVUPS(v, off(y, h*g.bytes()))
		}
		g.MOVW(g.bitsOf(ks, vs).As16(), off(mask, 0))
	})
	g.end()
}

func (g *gen) scale() {
	name := "scale" + g.suffix()
	g.begin(name, "func(dst, x *float32, n int, f float32)", name+" computes dst = f*x.")
	s := g.newStream()
	dst, x := s.pointer("dst", 64), s.pointer("x", 64)
	f := g.broadcast("f")
	s.loop(false, func() {
		for h := range g.halves() {
			v := g.vec()
			g.VMULPS(off(x, h*g.bytes()), f, v)
			g.VMOVUPS(v, off(dst, h*g.bytes()))
		}
	})
	g.end()
}
