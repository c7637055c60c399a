package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// norms emits what follows batch norm in training, and its gradient: streams
// whose parameters lie side by side, sixteen of each of four for every sixteen
// channels (NormParams of package kernel).
func norms(g *gen) {
	g.eachWidth(func() {
		g.normGrad()
		for _, a := range []activation{"", "ReLU", "Cap"} {
			g.normQuantize(a)
			g.normScaleGrad(a)
			g.normAct(a)
		}
	})
}

// side is the address of register h of parameter i.
func (s *stream) side(params reg.GPVirtual, i, h int) operand.Mem {
	return operand.Mem{Base: params, Index: s.o, Scale: 4, Disp: 64*i + h*s.g.bytes()}
}

func (g *gen) normGrad() {
	name := "normGrad" + g.suffix()
	g.begin(name, "func(dx, dy *float32, mask *uint8, x, params *float32, n, period, maskStep int)",
		name+" computes dx = (d - b - (x-mean)*k)*a, d being dy where the mask bit is set, else 0;",
		"params holds mean, a, b and k. mask moves by maskStep bytes for sixteen elements.")
	s := g.newStream()
	dx, dy, x, mask := s.pointer("dx", 64), s.far("dy"), s.far("x"), s.stepped("mask", "maskStep")
	params, bits := g.arg("params"), g.newMaskBits()
	s.loop(true, func() {
		for h := range g.halves() {
			v, d := g.vec(), bits.load(off(dy, h*g.bytes()), mask, h)
			g.VMOVUPS(off(x, h*g.bytes()), v)
			g.VSUBPS(s.side(params, 0, h), v, v)
			g.VMULPS(s.side(params, 3, h), v, v)
			g.VSUBPS(s.side(params, 2, h), d, d)
			g.VSUBPS(v, d, d)
			g.VMULPS(s.side(params, 1, h), d, d)
			g.VMOVUPS(d, off(dx, h*g.bytes()))
		}
	})
	g.end()
}

// activation is what follows a normalization: nothing, a ReLU, or a ReLU with
// an upper limit.
type activation string

// args are the activation's arguments in a signature.
func (a activation) args() string {
	if a == "Cap" {
		return ", limit float32"
	}
	return ""
}

func (a activation) doc() string {
	return map[activation]string{
		"":     "y = (v-mean)*a + beta",
		"ReLU": "y = max((v-mean)*a + beta, 0)",
		"Cap":  "y = min(max((v-mean)*a + beta, 0), limit)",
	}[a]
}

// normalized emits y = activation((v-mean)*a + beta).
type normalized struct {
	s           *stream
	a           activation
	v, params   reg.GPVirtual
	none, limit reg.VecVirtual
}

func (g *gen) newNormalized(s *stream, a activation) normalized {
	n := normalized{s: s, a: a, v: s.far("v"), params: g.arg("params")}
	if a != "" {
		n.none = g.vec()
		g.zero(n.none)
	}
	if a == "Cap" {
		n.limit = g.broadcast("limit")
	}
	return n
}

func (n normalized) load(h int) reg.VecVirtual {
	g, s, y := n.s.g, n.s, n.s.g.vec()
	g.VMOVUPS(off(n.v, h*g.bytes()), y)
	g.VSUBPS(s.side(n.params, 0, h), y, y)
	g.VMULPS(s.side(n.params, 1, h), y, y)
	g.VADDPS(s.side(n.params, 2, h), y, y)
	if n.a != "" {
		g.keepPositive(n.none, y)
	}
	if n.a == "Cap" {
		g.VMINPS(y, n.limit, y) // of a NaN and limit, the NaN
	}
	return y
}

// passes narrows the lanes that a gradient passes, or begins with those of the
// activation when k and v are nil.
func (n normalized) passes(y reg.VecVirtual, k reg.OpmaskVirtual, v reg.VecVirtual) (reg.OpmaskVirtual, reg.VecVirtual) {
	g := n.s.g
	test := func(predicate operand.U8, limit reg.VecVirtual) {
		switch {
		case g.wide && k == nil:
			k = g.K()
			g.VCMPPS(predicate, limit, y, k)
		case g.wide:
			g.VCMPPS(predicate, limit, y, k, k)
		case v == nil:
			v = g.vec()
			g.VCMPPS(predicate, limit, y, v)
		default:
			c := g.vec()
			g.VCMPPS(predicate, limit, y, c)
			g.VANDPS(c, v, v)
		}
	}
	if n.a != "" {
		test(cmpGreater, n.none)
	}
	if n.a == "Cap" {
		test(cmpLess, n.limit)
	}
	return k, v
}

func (g *gen) normAct(a activation) {
	name := "norm" + string(a) + g.suffix()
	g.begin(name, "func(y *float32, mask *uint8, v, params *float32, n, period int"+a.args()+")",
		name+" computes "+a.doc()+"; params holds mean, a and beta.",
		"mask has a bit set where the gradient passes the activation.")
	s := g.newStream()
	y, mask, n := s.pointer("y", 64), s.pointer("mask", 2), g.newNormalized(s, a)
	s.loop(true, func() {
		var ks []reg.OpmaskVirtual
		var vs []reg.VecVirtual
		for h := range g.halves() {
			r := n.load(h)
			k, v := n.passes(r, nil, nil)
			ks, vs = append(ks, k), append(vs, v)
			g.VMOVUPS(r, off(y, h*g.bytes()))
		}
		if a == "" {
			g.MOVW(operand.U16(0xffff), off(mask, 0))
		} else {
			g.MOVW(g.bitsOf(ks, vs).As16(), off(mask, 0))
		}
	})
	g.end()
}

func (g *gen) normQuantize(a activation) {
	name := "normQuantize" + string(a) + g.suffix()
	g.begin(name, "func(dst, mask *uint8, v, params, stats *float32, n, period int, scale, inverse, least, most float32, zero int32"+a.args()+") (odd int)",
		name+" computes the codes rint(y/scale) + zero, y/scale limited to least and most, of "+a.doc()+";",
		"params holds mean, a and beta; mask has a bit set where the gradient passes quantizer and activation;",
		"stats are sixteen running minima, then sixteen maxima of y. odd is not 0 when there is a NaN, or, of a zmm,",
		"a magnitude above 2^60.")
	s := g.newStream()
	dst, mask, n := s.pointer("dst", 16), s.pointer("mask", 2), g.newNormalized(s, a)
	q, stats := g.newQuantizer(), g.newExtremes()
	s.loop(true, func() {
		for h := range g.halves() {
			y := n.load(h)
			stats.add(h, y)
			q.add(y, func(k reg.OpmaskVirtual, v reg.VecVirtual) (reg.OpmaskVirtual, reg.VecVirtual) {
				return n.passes(y, k, v)
			})
		}
		q.store(dst, mask)
	})
	stats.close()
	g.Store(q.odd(), g.ReturnIndex(0))
	g.end()
}

func (g *gen) normScaleGrad(a activation) {
	name := "normScaleGrad" + string(a) + g.suffix()
	args, doc := a.args(), ""
	if a == "Cap" {
		args, doc = ", limit, within float32", " or y is within"
	}
	g.begin(name, "func(lane, dy *float32, up *uint8, v, params *float32, codes, mask *uint8, n, period, first, upStep int, inverse float32, zero int32"+args+")",
		name+" adds d*(code-zero - y*inverse) to sixteen lanes where the mask bit is set"+doc+", else d*(code-zero), of",
		a.doc()+"; params holds mean, a and beta; first is the place of the first element in the period;",
		"d is dy where the bit of up is set, else 0; up moves by upStep bytes for sixteen elements.")
	s := g.newStream()
	s.first = "first"
	dy, up, n := s.far("dy"), s.stepped("up", "upStep"), g.newNormalized(s, a)
	codes, mask := s.pointer("codes", 16), s.pointer("mask", 2)
	inverse, zero := g.broadcast("inverse"), g.broadcast("zero")
	var within reg.VecVirtual
	if a == "Cap" {
		within = g.broadcast("within")
	}
	bits := g.newMaskBits()
	acc, store := g.lanesInOut()
	s.loop(true, func() {
		for h := range acc {
			y, m := n.load(h), bits.at(off(mask, h))
			if a == "Cap" {
				m = m.or(cmpEqual, within, y)
			}
			g.VMULPS(inverse, y, y)
			g.codeSlope(codes, h, zero, m.keep(y), bits.load(off(dy, h*g.bytes()), up, h), acc[h])
		}
	})
	store()
	g.end()
}

// codeSlope emits acc += up*(code-zero - t), for the bytes of register h at codes.
func (g *gen) codeSlope(codes reg.Register, h int, zero, t, up, acc reg.VecVirtual) {
	d := g.vec()
	g.widen(false, codes, h, d)
	g.VPSUBD(zero, d, d)
	g.VCVTDQ2PS(d, d)
	g.VSUBPS(t, d, d)
	g.VMULPS(up, d, d)
	g.VADDPS(d, acc, acc)
}
