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
		"nan is not 0 when a column has a NaN.")
	dst, x, rows, stride := g.arg("dst"), g.arg("x"), g.arg("rows"), g.arg("stride")
	abs, top := g.clearSign(), g.vecs(g.halves())
	var seenK reg.OpmaskVirtual
	seenV := g.vec()
	if g.wide {
		seenK = g.K()
		g.KXORW(seenK, seenK, seenK)
	} else {
		g.zero(seenV)
	}
	for h, v := range top {
		g.VMOVUPS(off(dst, h*g.bytes()), v)
	}
	g.Label("loop")
	for h, acc := range top {
		v := g.vec()
		g.VMOVUPS(off(x, h*g.bytes()), v)
		if g.wide {
			k := g.K()
			g.VCMPPS(cmpUnordered, v, v, k)
			g.KORW(k, seenK, seenK)
			g.VPANDD(abs, v, v)
		} else {
			c := g.vec()
			g.VCMPPS(cmpUnordered, v, v, c)
			g.VORPS(c, seenV, seenV)
			g.VPAND(abs, v, v)
		}
		g.VMAXPS(acc, v, acc) // a NaN in v keeps acc
	}
	g.ADDQ(stride, x)
	g.DECQ(rows)
	g.JNZ(operand.LabelRef("loop"))
	for h, acc := range top {
		g.VMOVUPS(acc, off(dst, h*g.bytes()))
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

// columnSums emits a sum over rows of sixteen columns: of x, of (x-mean)^2, or
// of dy*((x-mean)*inv).
func (g *gen) columnSums(kind string) {
	name := "column" + kind + g.suffix()
	doc := map[string]string{
		"Sum":              "x",
		"SquaredDeviation": "(x-mean)^2",
		"Product":          "dy*((x-mean)*inv)",
	}[kind]
	g.begin(name, "func(lane, x, mean, dy, inv *float32, rows, stride int)",
		name+" adds "+doc+" to sixteen columns of lane, row by row; rows are stride bytes apart.")
	lane, x, rows, stride := g.arg("lane"), g.arg("x"), g.arg("rows"), g.arg("stride")
	acc, mean, inv := g.vecs(g.halves()), g.vecs(g.halves()), g.vecs(g.halves())
	for h := range acc {
		g.VMOVUPS(off(lane, h*g.bytes()), acc[h])
	}
	if kind != "Sum" {
		mp := g.arg("mean")
		for h := range mean {
			g.VMOVUPS(off(mp, h*g.bytes()), mean[h])
		}
	}
	var dy reg.GPVirtual
	if kind == "Product" {
		dy = g.arg("dy")
		ip := g.arg("inv")
		for h := range inv {
			g.VMOVUPS(off(ip, h*g.bytes()), inv[h])
		}
	}
	g.Label("loop")
	for h := range acc {
		d := h * g.bytes()
		if kind == "Sum" {
			g.VADDPS(off(x, d), acc[h], acc[h])
			continue
		}
		v := g.vec()
		g.VMOVUPS(off(x, d), v)
		g.VSUBPS(mean[h], v, v)
		if kind == "Product" {
			g.VMULPS(inv[h], v, v)
			g.VMULPS(off(dy, d), v, v)
		} else {
			g.VMULPS(v, v, v)
		}
		g.VADDPS(v, acc[h], acc[h])
	}
	g.ADDQ(stride, x)
	if kind == "Product" {
		g.ADDQ(stride, dy)
	}
	g.DECQ(rows)
	g.JNZ(operand.LabelRef("loop"))
	for h := range acc {
		g.VMOVUPS(acc[h], off(lane, h*g.bytes()))
	}
	g.end()
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

func (g *gen) scaleGrad() {
	name := "scaleGrad" + g.suffix()
	g.begin(name, "func(lane, dy, x *float32, n int, scale, lo, hi float32)",
		name+" adds dy*slope(x/scale) to sixteen lanes; see scaleSlope.")
	s := g.newStream()
	dy, x := s.pointer("dy", 64), s.pointer("x", 64)
	scale, lo, hi := g.broadcast("scale"), g.broadcast("lo"), g.broadcast("hi")
	acc, store := g.lanesInOut()
	s.loop(false, func() {
		for h := range acc {
			t, d := g.vec(), g.vec()
			g.VMOVUPS(off(x, h*g.bytes()), t)
			g.VDIVPS(scale, t, t)
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
	dst, a, b := s.pointer("dst", 64), s.pointer("a", 64), s.pointer("b", 64)
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
