package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// blocks emits what a layer does around a pooling whose windows tile the image:
// one call is a row of windows, channels a multiple of sixteen.
func blocks(g *gen) {
	g.eachWidth(func() {
		g.normPool()
		g.normPoolGrad()
		g.poolScatter()
		g.maxAccs()
	})
}

// tiling is the frame of these routines. image holds the pointers into images,
// whose rows are their own row distance apart; packed the pointers that move on
// with every sixteen channels of a window.
type tiling struct {
	g      *gen
	o      reg.GPVirtual // byte offset of the channels
	packed []movingPointer
	image  []reg.GPVirtual // at the window
	rows   []string        // argument: bytes from one image row to the next
}

func (g *gen) newTiling() *tiling { return &tiling{g: g, o: g.GP64()} }

func (t *tiling) pack(name string, bytes int) reg.GPVirtual {
	r := t.g.arg(name)
	t.packed = append(t.packed, movingPointer{r: r, bytes: bytes})
	return r
}

func (t *tiling) img(name, row string) {
	t.image, t.rows = append(t.image, t.g.arg(name)), append(t.rows, row)
}

// param is register h of the i-th of the four parameters that lie side by side
// for sixteen channels.
func (t *tiling) param(base reg.GPVirtual, i, h int) operand.Mem {
	return operand.Mem{Base: base, Index: t.o, Scale: 4, Disp: 64*i + h*t.g.bytes()}
}

// loop emits the loops: begin and end once per window and sixteen channels,
// cell for every cell with its addresses and its place.
func (t *tiling) loop(begin func(), cell func(at func(image, h int) operand.Mem, place reg.GPVirtual), end func()) {
	g := t.g
	g.Label("window")
	g.XORQ(t.o, t.o)
	g.Label("block")
	begin()
	at := make([]reg.GPVirtual, len(t.image))
	for i, p := range t.image {
		at[i] = g.GP64()
		g.LEAQ(operand.Mem{Base: p, Index: t.o, Scale: 1}, at[i])
	}
	place, left := g.GP64(), g.arg("rows")
	g.XORQ(place, place)
	g.Label("row")
	x := g.GP64()
	g.XORQ(x, x)
	g.Label("cell")
	cell(func(i, h int) operand.Mem {
		return operand.Mem{Base: at[i], Index: x, Scale: 1, Disp: h * g.bytes()}
	}, place)
	g.INCQ(place)
	g.ADDQ(g.slot("pitch"), x)
	g.CMPQ(x, g.slot("width"))
	g.JNE(operand.LabelRef("cell"))
	for i := range at {
		g.ADDQ(g.slot(t.rows[i]), at[i])
	}
	g.DECQ(left)
	g.JNZ(operand.LabelRef("row"))
	end()
	for _, p := range t.packed {
		g.ADDQ(imm(p.bytes), p.r)
	}
	g.ADDQ(operand.I8(64), t.o)
	g.CMPQ(t.o, g.slot("pitch"))
	g.JNE(operand.LabelRef("block"))
	for _, p := range t.image {
		g.ADDQ(g.slot("width"), p)
	}
	n := g.arg("windows")
	g.DECQ(n)
	g.MOVQ(n, g.slot("windows"))
	g.JNZ(operand.LabelRef("window"))
	g.end()
}

// tilingArgs are the arguments that loop reads, in bytes: width is a row of a
// window's cells, pitch one cell.
const tilingArgs = "rows, width, pitch, windows"

// spread fills a register with a cell's place.
func (g *gen) spread(place reg.GPVirtual, v reg.VecVirtual) {
	g.VMOVD(place.As32(), v.AsX())
	g.VPBROADCASTD(v.AsX(), v)
}

func (g *gen) normPool() {
	name := "normPool" + g.suffix()
	g.begin(name, "func(y *float32, arg *uint8, win, v, params *float32, vRow, "+tilingArgs+" int)",
		name+" computes the maxima of (v-mean)*a + beta in a row of windows, their places, and v there.",
		"params holds sixteen of mean, a, beta and one unused, for each sixteen channels.")
	t := g.newTiling()
	y, arg, win := t.pack("y", 64), t.pack("arg", 16), t.pack("win", 64)
	t.img("v", "vRow")
	params := g.arg("params")
	best, where, source := g.vecs(g.halves()), g.vecs(g.halves()), g.vecs(g.halves())
	t.loop(func() {
		for h := range best {
			g.zero(where[h])
		}
	}, func(at func(int, int) operand.Mem, place reg.GPVirtual) {
		g.TESTQ(place, place)
		g.JNZ(operand.LabelRef("next"))
		for h := range best { // the first cell meets itself below, which changes nothing
			g.VMOVUPS(at(0, h), source[h])
			g.VSUBPS(t.param(params, 0, h), source[h], best[h])
			g.VMULPS(t.param(params, 1, h), best[h], best[h])
			g.VADDPS(t.param(params, 2, h), best[h], best[h])
		}
		g.Label("next")
		p := g.vec()
		g.spread(place, p)
		for h := range best {
			v, n := g.vec(), g.vec()
			g.VMOVUPS(at(0, h), v)
			g.VSUBPS(t.param(params, 0, h), v, n)
			g.VMULPS(t.param(params, 1, h), n, n)
			g.VADDPS(t.param(params, 2, h), n, n)
			// greater, or NaN where best is a number
			if g.wide {
				k := g.K()
				g.VCMPPS(cmpOrdered, best[h], best[h], k)
				g.VCMPPS(cmpNotLessEqual, best[h], n, k, k)
				g.VMOVAPS(n, k, best[h])
				g.VMOVAPS(v, k, source[h])
				g.VMOVDQA32(p, k, where[h])
			} else {
				c, ordered := g.vec(), g.vec()
				g.VCMPPS(cmpOrdered, best[h], best[h], ordered)
				g.VCMPPS(cmpNotLessEqual, best[h], n, c)
				g.VANDPS(ordered, c, c)
				g.VBLENDVPS(c, n, best[h], best[h])
				g.VBLENDVPS(c, v, source[h], source[h])
				g.VBLENDVPS(c, p, where[h], where[h])
			}
		}
	}, func() {
		for h := range best {
			g.VMOVUPS(best[h], off(y, h*g.bytes()))
			g.VMOVUPS(source[h], off(win, h*g.bytes()))
		}
		g.storeBytes(where, false, off(arg, 0))
	})
}

// gradient loads the gradients and the places of a window.
func (t *tiling) gradient(dy, arg reg.GPVirtual, up, where []reg.VecVirtual) {
	g := t.g
	for h := range up {
		g.VMOVUPS(off(dy, h*g.bytes()), up[h])
		g.widen(false, arg, h, where[h])
	}
}

// chosen is the gradient where this cell was the maximum, else zero.
func (g *gen) chosen(place, where, up reg.VecVirtual) reg.VecVirtual {
	d := g.vec()
	if g.wide {
		k := g.K()
		g.VPCMPEQD(place, where, k)
		g.VMOVAPS_Z(up, k, d)
	} else {
		g.VPCMPEQD(place, where, d)
		g.VANDPS(up, d, d)
	}
	return d
}

func (g *gen) normPoolGrad() {
	name := "normPoolGrad" + g.suffix()
	g.begin(name, "func(dv, v, dy *float32, arg *uint8, params *float32, dvRow, vRow, "+tilingArgs+" int)",
		name+" computes dv = (d - b - (v-mean)*k)*a in a row of windows, d being dy where arg names the cell, else 0.",
		"params holds sixteen of mean, a, b and k for each sixteen channels.")
	t := g.newTiling()
	dy, arg := t.pack("dy", 64), t.pack("arg", 16)
	t.img("dv", "dvRow")
	t.img("v", "vRow")
	params := g.arg("params")
	up, where := g.vecs(g.halves()), g.vecs(g.halves())
	t.loop(func() {
		t.gradient(dy, arg, up, where)
	}, func(at func(int, int) operand.Mem, place reg.GPVirtual) {
		p := g.vec()
		g.spread(place, p)
		for h := range up {
			d, v := g.chosen(p, where[h], up[h]), g.vec()
			g.VMOVUPS(at(1, h), v)
			g.VSUBPS(t.param(params, 0, h), v, v)
			g.VMULPS(t.param(params, 3, h), v, v)
			g.VSUBPS(t.param(params, 2, h), d, d)
			g.VSUBPS(v, d, d)
			g.VMULPS(t.param(params, 1, h), d, d)
			g.VMOVUPS(d, at(0, h))
		}
	}, func() {})
}

func (g *gen) poolScatter() {
	name := "poolScatter" + g.suffix()
	g.begin(name, "func(dst, dy *float32, arg *uint8, dstRow, "+tilingArgs+" int)",
		name+" writes dy into the cells that arg names and zeros into the others.")
	t := g.newTiling()
	dy, arg := t.pack("dy", 64), t.pack("arg", 16)
	t.img("dst", "dstRow")
	up, where := g.vecs(g.halves()), g.vecs(g.halves())
	t.loop(func() {
		t.gradient(dy, arg, up, where)
	}, func(at func(int, int) operand.Mem, place reg.GPVirtual) {
		p := g.vec()
		g.spread(place, p)
		for h := range up {
			g.VMOVUPS(g.chosen(p, where[h], up[h]), at(0, h))
		}
	}, func() {})
}

func (g *gen) maxAccs() {
	name := "maxAccs" + g.suffix()
	g.begin(name, "func(win *int32, arg *uint8, acc, sign *int32, accRow, "+tilingArgs+" int)",
		name+" finds the maxima of sign*acc in a row of windows: acc there, and their places.",
		"sign has 64 integers for each sixteen channels, of which the first sixteen count.")
	t := g.newTiling()
	win, arg := t.pack("win", 64), t.pack("arg", 16)
	t.img("acc", "accRow")
	sign := g.arg("sign")
	best, where, source := g.vecs(g.halves()), g.vecs(g.halves()), g.vecs(g.halves())
	t.loop(func() {
		for h := range best {
			g.zero(where[h])
		}
	}, func(at func(int, int) operand.Mem, place reg.GPVirtual) {
		g.TESTQ(place, place)
		g.JNZ(operand.LabelRef("next"))
		for h := range best {
			g.loadInt(at(0, h), source[h])
			g.VPMULLD(t.param(sign, 0, h), source[h], best[h])
		}
		g.Label("next")
		p := g.vec()
		g.spread(place, p)
		for h := range best {
			v, n := g.vec(), g.vec()
			g.loadInt(at(0, h), v)
			g.VPMULLD(t.param(sign, 0, h), v, n)
			if g.wide {
				k := g.K()
				g.VPCMPGTD(best[h], n, k)
				g.VMOVDQA32(n, k, best[h])
				g.VMOVDQA32(v, k, source[h])
				g.VMOVDQA32(p, k, where[h])
			} else {
				c := g.vec()
				g.VPCMPGTD(best[h], n, c)
				g.VBLENDVPS(c, n, best[h], best[h])
				g.VBLENDVPS(c, v, source[h], source[h])
				g.VBLENDVPS(c, p, where[h], where[h])
			}
		}
	}, func() {
		for h := range best {
			g.VMOVUPS(source[h], off(win, h*g.bytes()))
		}
		g.storeBytes(where, false, off(arg, 0))
	})
}
