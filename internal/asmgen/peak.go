package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// peakChains is how many sums a peak loop keeps apart: of ymm registers too there are enough for them, and they hide the
// latency of two units.
const peakChains = 12

// peaks emits loops that only multiply and add, in registers: what tiles are measured against.
func peaks(g *gen) {
	g.eachWidth(func() {
		g.peak("peakF32", func(x, y, sum reg.VecVirtual) { g.VFMADD231PS(x, y, sum) })
	})
	g.peak("peakS8", func(x, y, sum reg.VecVirtual) { g.VPDPBUSD(x, y, sum) })
	g.wide = false
	g.peak("peakS16", func(x, y, sum reg.VecVirtual) {
		product := g.vec()
		g.VPMADDWD(x, y, product)
		g.VPADDD(product, sum, sum)
	})
}

func (g *gen) peak(kind string, step func(x, y, sum reg.VecVirtual)) {
	name := kind + g.suffix()
	g.begin(name, "func(loops int)", fmt.Sprintf("%s does %d vectors of products and sums in each loop, in registers alone.", name, 2*peakChains))
	x, y, sums := g.vec(), g.vec(), g.vecs(peakChains)
	for _, v := range append(sums, x, y) {
		g.zero(v)
	}
	loops := g.arg("loops")
	g.Label("loop")
	for range 2 {
		for _, sum := range sums {
			step(x, y, sum)
		}
	}
	g.DECQ(loops)
	g.JNZ(operand.LabelRef("loop"))
	g.end()
}
