package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Transforms of Winograd convolutions on integers: see winograd16.go in package kernel. What is multiplied are s16 pairs, of
// which one addition does both; their sums, s32, wrap, as do those of sums.

func winograds16(g *gen) {
	g.eachWidth(func() {
		words := ring{"Words", "int32", g.VPADDW, g.VPSUBW}
		g.winogradTaps(words, "four by four pixels of s16 pairs")
		g.winogradTapsCodes(words)
		g.winogradPointsWords(words)
		g.winogradSumsInts(g.ints())
		g.winogradGradientInts(g.ints())
	})
}

func (g *gen) ints() ring { return ring{"Ints", "int32", g.VPADDD, g.VPSUBD} }

// partners is the doc of transforms of pairs of tiles.
const partners = "of which the first of a pair has its partner second bytes further, and the next pair begins gap bytes behind the next pixel."

// pairOf joins a cell with its partner's, which load brings into the low halves of lanes.
func (g *gen) pairOf(load func(ops ...operand.Op), first, second operand.Mem) reg.VecVirtual {
	a, b := g.vec(), g.vec()
	load(first, a)
	load(second, b)
	g.VPSLLD(operand.U8(16), b, b)
	if g.wide {
		g.VPORD(a, b, b)
	} else {
		g.VPOR(a, b, b)
	}
	return b
}

func (g *gen) winogradTapsCodes(r ring) {
	name := "winogradTapsCodes" + g.suffix()
	g.begin(name, "func(dst *int32, src *uint8, tiles, pixel, row, second, gap, plane int, zero4 int32)",
		name+" transforms pairs of tiles of four by four pixels of codes, whose rows are row bytes apart,",
		partners,
		"zero4 is four times the zero point, in both halves. pixel is the size of one and a positive multiple of a quarter of a register.")
	p, pixel, row := g.newPlanes("dst"), g.arg("pixel"), g.arg("row")
	image := []reg.GPVirtual{g.arg("src"), g.GP64(), g.arg("second"), g.GP64()} // rows 0 and 2, and of the partner
	g.ADDQ(image[0], image[2])
	for i := range 2 {
		g.LEAQ(operand.Mem{Base: image[2*i], Index: row, Scale: 2}, image[2*i+1])
	}
	constant := g.broadcast("zero4")
	g.eachTileApart(p, image, pixel, g.bytes()/4, g.slot("gap"), func() {
		g.winogradColumns(r, p, image, pixel, constant, func(i int) reg.VecVirtual {
			return g.pairOf(g.VPMOVZXBD, cell(image, row, i), cell(image[2:], row, i))
		})
	})
}

func (g *gen) winogradPointsWords(r ring) {
	name := "winogradPointsWords" + g.suffix()
	g.begin(name, "func(dst, src *int32, tiles, pixel, row, second, gap, plane int)",
		name+" transforms pairs of tiles of two by two pixels of s16, whose rows are row bytes apart,",
		partners,
		"pixel is the size of one and a positive multiple of half a register.")
	p, pixel := g.newPlanes("dst"), g.arg("pixel")
	image := []reg.GPVirtual{g.arg("src"), g.arg("row"), g.arg("second"), g.GP64()} // both rows, and of the partner
	g.LEAQ(operand.Mem{Base: image[1], Index: image[2], Scale: 1}, image[3])
	for i := range 3 {
		g.ADDQ(image[0], image[3-i])
	}
	g.eachTileApart(p, image, pixel, g.bytes()/2, g.slot("gap"), func() {
		g.winogradCorners(r, p, func(i, j int) reg.VecVirtual {
			first, second := operand.Mem{Base: image[i]}, operand.Mem{Base: image[2+i]}
			if j == 1 {
				first.Index, first.Scale, second.Index, second.Scale = pixel, 1, pixel, 1
			}
			return g.pairOf(g.VPMOVZXWD, first, second)
		})
	})
}

// quarter makes float32(v/4)*factor of sums that are multiples of four.
func (g *gen) quarter(v, factor reg.VecVirtual) {
	g.VPSRAD(operand.U8(2), v, v)
	g.VCVTDQ2PS(v, v)
	g.VMULPS(factor, v, v)
}

func (g *gen) winogradSumsInts(r ring) {
	name := "winogradSumsInts" + g.suffix()
	g.begin(name, "func(dst *float32, src *int32, tiles, pixel, row, plane int, unit float32)",
		name+" makes a row of tiles of two by two pixels, side by side, whose rows are row bytes apart, from their sums:",
		"a quarter of the transform, which is exact, times unit.",
		winogradDoc)
	unit := g.broadcast("unit")
	g.winogradResults(r, func(v reg.VecVirtual) { g.quarter(v, unit) })
}

func (g *gen) winogradGradientInts(r ring) {
	name := "winogradGradientInts" + g.suffix()
	g.begin(name, "func(dst *float32, src *int32, n, tap, plane int, m *float32, row, acc int)",
		name+" makes n rows of nine planes of a weight gradient, tap bytes apart, from sums of products:",
		"a quarter of the transform, which is exact, times m for each element of a row, added to dst when acc is not 0.",
		"row is the size of one and a positive multiple of a register.")
	t, p := g.newTaps("dst"), g.newPlanes("src")
	m, at := g.arg("m"), g.GP64()
	g.Label("row")
	g.XORQ(at, at)
	g.Label("loop")
	v := [3][]reg.VecVirtual{}
	for i := range v {
		v[i] = g.vecs(4)
	}
	for j := range 4 { // columns: 2a+b+c, b-c, b+c+2d
		a, b, c := v[0][j], v[1][j], v[2][j]
		g.VMOVUPS(p.at(1, j), b)
		g.VMOVUPS(p.at(0, j), a)
		r.add(a, a, a)
		g.VMOVUPS(p.at(3, j), c)
		r.add(c, c, c)
		sum := g.vec()
		r.add(p.at(2, j), b, sum)
		r.sub(p.at(2, j), b, b)
		r.add(sum, a, a)
		r.add(sum, c, c)
	}
	for i, w := range v {
		for j, x := range g.winogradTwice(r, w) {
			factor := g.vec()
			g.VMOVUPS(operand.Mem{Base: m, Index: at, Scale: 1}, factor)
			g.quarter(x, factor)
			v[i][j] = x
		}
	}
	flag := g.arg("acc")
	g.TESTQ(flag, flag)
	g.JZ(operand.LabelRef("store"))
	for i := range v {
		for j := range 3 {
			g.VADDPS(t.at(i, j), v[i][j], v[i][j])
		}
	}
	g.Label("store")
	for i := range v {
		for j := range 3 {
			g.VMOVUPS(v[i][j], t.at(i, j))
		}
	}
	g.advance(imm(g.bytes()), t.row...)
	g.advance(imm(g.bytes()), p.row...)
	g.ADDQ(imm(g.bytes()), at)
	g.CMPQ(at, g.slot("row"))
	g.JNE(operand.LabelRef("loop"))
	g.DECQ(g.slot("n"))
	g.JNZ(operand.LabelRef("row"))
	g.end()
}

// winogradTwice is 2a+b+c, b-c and b+c+2d of four values, over them.
func (g *gen) winogradTwice(r ring, v []reg.VecVirtual) []reg.VecVirtual {
	sum := g.vec()
	r.add(v[1], v[2], sum)
	r.sub(v[2], v[1], v[1])
	for _, x := range []reg.VecVirtual{v[0], v[3]} {
		r.add(x, x, x)
		r.add(sum, x, x)
	}
	return []reg.VecVirtual{v[0], v[1], v[3]}
}
