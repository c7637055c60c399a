package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// maskBits loads values where their mask bits are set.
type maskBits struct {
	g   *gen
	bit reg.VecVirtual // ymm: lane i tests bit i of its byte
}

func (g *gen) newMaskBits() maskBits {
	if g.wide {
		return maskBits{g: g}
	}
	bit, r := g.vec(), g.GP64()
	g.MOVQ(operand.U64(0x8040201008040201), r)
	g.VMOVQ(r, bit.AsX())
	g.VPMOVZXBD(bit.AsX(), bit)
	return maskBits{g, bit}
}

// load is the values at m, or 0 where the bits of register h at mask are not set.
func (b maskBits) load(m operand.Mem, mask reg.Register, h int) reg.VecVirtual {
	return b.at(off(mask, h)).keep(m)
}

// lanesSet are the lanes of a register whose bits are set.
type lanesSet struct {
	g *gen
	k reg.OpmaskVirtual // of a zmm
	v reg.VecVirtual    // of a ymm: all bits of a lane
}

// at reads the bits of a register at m.
func (b maskBits) at(m operand.Mem) lanesSet {
	g := b.g
	if g.wide {
		k := g.K()
		g.KMOVW(m, k)
		return lanesSet{g: g, k: k}
	}
	c, r := g.vec(), g.GP32()
	g.MOVBLZX(m, r)
	g.VMOVD(r, c.AsX())
	g.VPBROADCASTD(c.AsX(), c)
	g.VPAND(b.bit, c, c)
	g.VPCMPEQD(b.bit, c, c)
	return lanesSet{g: g, v: c}
}

// keep is the values of a register or at an address, or 0 where a lane is not set.
func (l lanesSet) keep(m operand.Op) reg.VecVirtual {
	v := l.g.vec()
	if l.g.wide {
		l.g.VMOVUPS_Z(m, l.k, v)
	} else {
		l.g.VANDPS(m, l.v, v)
	}
	return v
}

// or adds the lanes of y that compare with x.
func (l lanesSet) or(predicate operand.Op, x, y reg.VecVirtual) lanesSet {
	g := l.g
	if g.wide {
		k := g.K()
		g.VCMPPS(predicate, x, y, k)
		g.KORW(k, l.k, k)
		return lanesSet{g: g, k: k}
	}
	c := g.vec()
	g.VCMPPS(predicate, x, y, c)
	g.VORPS(c, l.v, c)
	return lanesSet{g: g, v: c}
}

// maskGrad emits the gradient behind a mask, and behind a ReLU, too.
func (g *gen) maskGrad(relu bool) {
	name, signature, doc := "maskGrad"+g.suffix(), "func(dx, dy *float32, mask *uint8, n int)", " computes dx = dy where the mask bit is set, else 0."
	if relu {
		name, signature, doc = "maskReLUGrad"+g.suffix(), "func(dx, dy, y *float32, mask *uint8, n int)", " computes dx = dy where the mask bit is set and y > 0, else 0."
	}
	g.begin(name, signature, name+doc)
	s := g.newStream()
	dx, dy, mask := s.pointer("dx", 64), s.far("dy"), s.pointer("mask", 2)
	bits := g.newMaskBits()
	var y reg.GPVirtual
	zero := g.vec()
	if relu {
		y = s.pointer("y", 64)
		g.zero(zero)
	}
	s.loop(false, func() {
		for h := range g.halves() {
			v := bits.load(off(dy, h*g.bytes()), mask, h)
			if relu {
				x := g.vec()
				g.VMOVUPS(off(y, h*g.bytes()), x)
				g.clearUnless(cmpGreater, x, zero, v)
			}
			g.VMOVUPS(v, off(dx, h*g.bytes()))
		}
	})
	g.end()
}

func (g *gen) addMasked() {
	name := "addMasked" + g.suffix()
	g.begin(name, "func(dst, a, dy *float32, mask *uint8, n int)", name+" computes dst = a + (dy where the mask bit is set, else 0).")
	s := g.newStream()
	dst, a, dy, mask := s.pointer("dst", 64), s.pointer("a", 64), s.pointer("dy", 64), s.pointer("mask", 2)
	bits := g.newMaskBits()
	s.loop(false, func() {
		for h := range g.halves() {
			v := bits.load(off(dy, h*g.bytes()), mask, h)
			g.VADDPS(off(a, h*g.bytes()), v, v)
			g.VMOVUPS(v, off(dst, h*g.bytes()))
		}
	})
	g.end()
}
