package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// oneRow emits products of one row of A, the dense layers of a single example:
// as wide a tile as hides the latency of the sums, with B in float32 or 16
// bits. Sums have the order, and so the bits, of the tiles in tile.go.

// oneRowVectors is the width of these tiles.
const oneRowVectors = 8

func oneRow(g *gen) {
	g.eachWidth(func() {
		for _, format := range []string{"F32", "F16", "BF16"} {
			g.oneRow(format)
		}
	})
}

func (g *gen) oneRow(format string) {
	name := "oneRow" + format + g.suffix()
	element, size := "uint16", g.bytes()/2
	if format == "F32" {
		element, size = "float32", g.bytes()
	}
	g.begin(name, "func(y, a *float32, b *"+element+", k, bs, acc int)",
		name+" computes eight vectors of one row of a product, y = a*B, or y += a*B when acc is not 0.",
		"Rows of B are bs bytes apart.")
	sums, x, v := g.vecs(oneRowVectors), g.vec(), g.vec()
	for _, s := range sums {
		g.zero(s)
	}
	y, a, b, k, bs := g.arg("y"), g.arg("a"), g.arg("b"), g.arg("k"), g.arg("bs")
	g.Label("loop")
	g.VBROADCASTSS(off(a, 0), x)
	for w, s := range sums {
		m := off(b, w*size)
		if format == "F32" {
			g.VFMADD231PS(m, x, s)
			continue
		}
		g.decode16(format, m, v)
		g.VFMADD231PS(v, x, s)
	}
	g.ADDQ(operand.I8(4), a)
	g.ADDQ(bs, b)
	g.DECQ(k)
	g.JNZ(operand.LabelRef("loop"))
	flag := g.arg("acc")
	g.TESTQ(flag, flag)
	g.JZ(operand.LabelRef("store"))
	for w, s := range sums {
		g.VADDPS(off(y, w*g.bytes()), s, s)
	}
	g.Label("store")
	for w, s := range sums {
		g.VMOVUPS(s, off(y, w*g.bytes()))
	}
	g.end()
}

// decode16 loads a vector of 16-bit numbers as float32.
func (g *gen) decode16(format string, m operand.Mem, v reg.VecVirtual) {
	if format == "F16" {
		g.VCVTPH2PS(m, v)
		return
	}
	g.VPMOVZXWD(m, v)
	g.VPSLLD(operand.U8(16), v, v)
}
