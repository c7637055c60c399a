package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// pools emits the maximum over one pooling window, sixteen channels at a time.
func pools(g *gen) {
	g.eachWidth(func() { g.maxCellsF32() })
	g.wide = false
	g.maxCellsU8()
}

// window emits the loops over the cells of a window for blocks of sixteen
// channels: first on the first cell, next on every other one with its place
// in the window, last at the end of the block.
func (g *gen) window(yBytes, xBytes int, first, next func(x, place reg.GPVirtual), last func(y, arg reg.GPVirtual)) {
	y, arg, x, channels := g.arg("y"), g.arg("arg"), g.arg("x"), g.arg("channels")
	argStep := g.arg("argStep")
	g.Label("block")
	row, rows, place := g.GP64(), g.arg("rows"), g.arg("first")
	g.MOVQ(x, row)
	first(x, place)
	g.Label("row")
	cell, cols, at := g.GP64(), g.arg("cols"), g.GP64()
	g.MOVQ(row, cell)
	g.MOVQ(place, at)
	g.Label("cell")
	next(cell, at) // the first cell meets itself, which changes nothing
	g.ADDQ(g.slot("pitch"), cell)
	g.INCQ(at)
	g.DECQ(cols)
	g.JNZ(operand.LabelRef("cell"))
	g.ADDQ(g.slot("rowStep"), row)
	g.ADDQ(g.slot("width"), place)
	g.DECQ(rows)
	g.JNZ(operand.LabelRef("row"))
	last(y, arg)
	g.ADDQ(imm(yBytes), y)
	g.ADDQ(argStep, arg)
	g.ADDQ(imm(xBytes), x)
	g.SUBQ(operand.I8(lanes), channels)
	g.JNZ(operand.LabelRef("block"))
	g.end()
}

func (g *gen) maxCellsF32() {
	name := "maxCellsF32" + g.suffix()
	g.begin(name, "func(y *float32, arg *uint8, x *float32, channels, rows, cols, rowStep, pitch, first, width, argStep int)",
		name+" computes the maximum of one pooling window and its place; see maxCells.",
		"Distances are in bytes; arg moves by argStep for sixteen channels.")
	best, where := g.vecs(g.halves()), g.vecs(g.halves())
	spread := func(place reg.GPVirtual, v reg.VecVirtual) {
		g.VMOVD(place.As32(), v.AsX())
		g.VPBROADCASTD(v.AsX(), v)
	}
	g.window(64, 64, func(x, place reg.GPVirtual) {
		for h := range best {
			g.VMOVUPS(off(x, h*g.bytes()), best[h])
			spread(place, where[h])
		}
	}, func(x, place reg.GPVirtual) {
		p := g.vec()
		spread(place, p)
		for h := range best {
			v := g.vec()
			g.VMOVUPS(off(x, h*g.bytes()), v)
			// greater, or NaN where best is a number
			if g.wide {
				k := g.K()
				g.VCMPPS(cmpOrdered, best[h], best[h], k)
				g.VCMPPS(cmpNotLessEqual, best[h], v, k, k)
				g.VMOVAPS(v, k, best[h])
				g.VMOVDQA32(p, k, where[h])
			} else {
				c, ordered := g.vec(), g.vec()
				g.VCMPPS(cmpOrdered, best[h], best[h], ordered)
				g.VCMPPS(cmpNotLessEqual, best[h], v, c)
				g.VANDPS(ordered, c, c)
				g.VBLENDVPS(c, v, best[h], best[h])
				g.VBLENDVPS(c, p, where[h], where[h])
			}
		}
	}, func(y, arg reg.GPVirtual) {
		for h := range best {
			g.VMOVUPS(best[h], off(y, h*g.bytes()))
		}
		g.storeBytes(where, false, off(arg, 0))
	})
}

func (g *gen) maxCellsU8() {
	name := "maxCellsU8"
	g.begin(name, "func(y, arg, x *uint8, channels, rows, cols, rowStep, pitch, first, width, argStep int)",
		name+" is maxCellsF32 for codes. It needs AVX2.")
	best, where := g.XMM(), g.XMM()
	spread := func(place reg.GPVirtual, v reg.VecVirtual) {
		g.VMOVD(place.As32(), v)
		g.VPBROADCASTB(v, v)
	}
	g.window(16, 16, func(x, place reg.GPVirtual) {
		g.VMOVDQU(off(x, 0), best)
		spread(place, where)
	}, func(x, place reg.GPVirtual) {
		p, top, same := g.XMM(), g.XMM(), g.XMM()
		spread(place, p)
		g.VPMAXUB(off(x, 0), best, top)
		g.VPCMPEQB(top, best, same) // where best stays
		g.VPBLENDVB(same, where, p, where)
		g.VMOVDQA(top, best)
	}, func(y, arg reg.GPVirtual) {
		g.VMOVDQU(best, off(y, 0))
		g.VMOVDQU(where, off(arg, 0))
	})
}
