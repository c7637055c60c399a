package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Weight gradients of depthwise convolutions, one register of channels of a run
// of output pixels; distances are those of row.go. The sums of a few rows of
// three cells are kept in registers; one cell alone is the general case.

func rowGrads(g *gen) {
	g.eachWidth(func() {
		g.depthwiseTap()
		for rows := 1; rows <= 3; rows++ {
			g.depthwiseWeight(rows)
		}
	})
}

func (g *gen) depthwiseTap() {
	name := "depthwiseTap" + g.suffix()
	g.begin(name, "func(dw, x, dy *float32, pixels, xStep, yStep int)",
		name+" computes dw += sum over pixels of x*dy, product and sum rounded apart, pixels in order.")
	dw, x, dy := g.arg("dw"), g.arg("x"), g.arg("dy")
	pixels, xStep, yStep := g.arg("pixels"), g.arg("xStep"), g.arg("yStep")
	sum, t := g.vec(), g.vec()
	g.VMOVUPS(off(dw, 0), sum)
	g.Label("loop")
	g.VMOVUPS(off(dy, 0), t)
	g.VMULPS(off(x, 0), t, t)
	g.VADDPS(t, sum, sum)
	g.ADDQ(xStep, x)
	g.ADDQ(yStep, dy)
	g.DECQ(pixels)
	g.JNZ(operand.LabelRef("loop"))
	g.VMOVUPS(sum, off(dw, 0))
	g.end()
}

func (g *gen) depthwiseWeight(rows int) {
	name := fmt.Sprintf("depthwiseWeight%d%s", rows, g.suffix())
	g.begin(name, "func(dw, x, dy *float32, pixels, xStep, rowStep, pitch, yStep, wStep, wRow int)",
		fmt.Sprintf("%s is depthwiseTap for %d rows of three cells.", name, rows))
	dw, wStep, wRow := g.arg("dw"), g.arg("wStep"), g.arg("wRow")
	var at []operand.Mem
	for range rows {
		for c := range 3 {
			m := operand.Mem{Base: dw}
			if c > 0 {
				m.Index, m.Scale = wStep, uint8(c)
			}
			at = append(at, m)
		}
		next := g.GP64()
		g.LEAQ(operand.Mem{Base: dw, Index: wRow, Scale: 1}, next)
		dw = next
	}
	sums, up, t := g.vecs(3*rows), g.vec(), g.vec()
	for i, v := range sums {
		g.VMOVUPS(at[i], v)
	}
	x, rowStep, dy := g.arg("x"), g.arg("rowStep"), g.arg("dy")
	base := []reg.GPVirtual{x}
	for range rows - 1 {
		next := g.GP64()
		g.LEAQ(operand.Mem{Base: base[len(base)-1], Index: rowStep, Scale: 1}, next)
		base = append(base, next)
	}
	pixels, xStep, pitch, yStep := g.arg("pixels"), g.arg("xStep"), g.arg("pitch"), g.arg("yStep")
	g.Label("loop")
	g.VMOVUPS(off(dy, 0), up)
	for i, v := range sums {
		m := operand.Mem{Base: base[i/3]}
		if i%3 > 0 {
			m.Index, m.Scale = pitch, uint8(i%3)
		}
		g.VMULPS(m, up, t)
		g.VADDPS(t, v, v)
	}
	for _, b := range base {
		g.ADDQ(xStep, b)
	}
	g.ADDQ(yStep, dy)
	g.DECQ(pixels)
	g.JNZ(operand.LabelRef("loop"))
	for i, v := range sums {
		g.VMOVUPS(v, at[i])
	}
	g.end()
}
