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
