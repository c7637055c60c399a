package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Transforms of Winograd convolutions of 3x3 cells, two by two results at a time: see winograd.go in package kernel.
// Images are pixels of channels side by side; a transformed image is sixteen planes of one pixel per tile.

func winograds(g *gen) {
	g.eachWidth(func() {
		g.winogradTaps()
		g.winogradPoints()
		g.winogradSums()
		g.winogradFilter()
		g.winogradGradient()
	})
}

// taps addresses the nine planes of weights, three pointers and a distance.
type taps struct {
	row []reg.GPVirtual
	tap reg.GPVirtual
}

func (g *gen) newTaps(arg string) taps {
	t := taps{tap: g.arg("tap"), row: []reg.GPVirtual{g.arg(arg)}}
	for i := range 2 {
		next := g.GP64()
		g.LEAQ(operand.Mem{Base: t.row[i], Index: t.tap, Scale: 2}, next)
		g.ADDQ(t.tap, next)
		t.row = append(t.row, next)
	}
	return t
}

func (t taps) at(i, j int) operand.Mem {
	m := operand.Mem{Base: t.row[i]}
	if j > 0 {
		m.Index, m.Scale = t.tap, uint8(j)
	}
	return m
}

// planes addresses the sixteen planes of a transformed image, four pointers and two distances.
type planes struct {
	row           []reg.GPVirtual
	plane, plane3 reg.GPVirtual
}

func (g *gen) newPlanes(arg string) planes {
	p := planes{plane: g.arg("plane"), plane3: g.GP64(), row: []reg.GPVirtual{g.arg(arg)}}
	g.LEAQ(operand.Mem{Base: p.plane, Index: p.plane, Scale: 2}, p.plane3)
	for range 3 {
		next := g.GP64()
		g.LEAQ(operand.Mem{Base: p.row[len(p.row)-1], Index: p.plane, Scale: 4}, next)
		p.row = append(p.row, next)
	}
	return p
}

func (p planes) at(i, j int) operand.Mem {
	m := operand.Mem{Base: p.row[i]}
	switch j {
	case 1, 2:
		m.Index, m.Scale = p.plane, uint8(j)
	case 3:
		m.Index, m.Scale = p.plane3, 1
	}
	return m
}

func (g *gen) advance(by operand.Op, pointers ...reg.GPVirtual) {
	for _, p := range pointers {
		g.ADDQ(by, p)
	}
}

// eachTile runs body for every register of channels of every tile, then adds what an image's next tile is further away
// than its next pixel.
func (g *gen) eachTile(p planes, image []reg.GPVirtual, pixel reg.GPVirtual, body func()) {
	tiles, n := g.arg("tiles"), g.GP64()
	g.Label("tile")
	g.MOVQ(pixel, n)
	g.Label("channels")
	body()
	g.advance(imm(g.bytes()), p.row...)
	g.advance(imm(g.bytes()), image...)
	g.SUBQ(imm(g.bytes()), n)
	g.JNZ(operand.LabelRef("channels"))
	g.advance(pixel, image...)
	g.DECQ(tiles)
	g.JNZ(operand.LabelRef("tile"))
	g.end()
}

const winogradDoc = "pixel is the size of one and a positive multiple of a register."

func (g *gen) winogradTaps() {
	name := "winogradTaps" + g.suffix()
	g.begin(name, "func(dst, src *float32, tiles, pixel, row, plane int)",
		name+" transforms a row of tiles of four by four pixels, two pixels apart, whose rows are row bytes apart.",
		winogradDoc)
	p, pixel := g.newPlanes("dst"), g.arg("pixel")
	row, first := g.arg("row"), g.arg("src")
	third := g.GP64() // of an image's rows
	g.LEAQ(operand.Mem{Base: first, Index: row, Scale: 2}, third)
	image := []reg.GPVirtual{first, third}
	// A column's pixel lies j pixels further: the column is walked by moving both pointers there and back.
	cell := func(i int) operand.Mem {
		m := operand.Mem{Base: image[i/2]}
		if i%2 == 1 {
			m.Index, m.Scale = row, 1
		}
		return m
	}
	// The first and last rows of B'd, and the middle ones' two terms.
	g.eachTile(p, image, pixel, func() {
		outer := [2][]reg.VecVirtual{g.vecs(4), g.vecs(4)}
		for j := range 4 {
			a, b := outer[0][j], outer[1][j]
			g.VMOVUPS(cell(0), a)
			g.VSUBPS(cell(2), a, a)
			g.VMOVUPS(cell(3), b)
			g.VSUBPS(cell(1), b, b)
			if j < 3 {
				g.advance(pixel, image...)
			}
		}
		for i, v := range outer {
			g.winogradRow(p, 3*i, v)
		}
		inner := [2][]reg.VecVirtual{g.vecs(4), g.vecs(4)}
		for j := 3; j >= 0; j-- {
			a, b, t := inner[0][j], inner[1][j], g.vec()
			g.VMOVUPS(cell(2), b)
			g.VMOVUPS(cell(1), t)
			g.VADDPS(b, t, a)
			g.VSUBPS(t, b, b)
			if j > 0 {
				for _, r := range image {
					g.SUBQ(pixel, r)
				}
			}
		}
		for i, v := range inner {
			g.winogradRow(p, 1+i, v)
		}
	})
}

// winogradRow stores row i of the transform of four values along a row.
func (g *gen) winogradRow(p planes, i int, v []reg.VecVirtual) {
	t := g.vec()
	g.VSUBPS(v[2], v[0], v[0])
	g.VMOVUPS(v[0], p.at(i, 0))
	g.VADDPS(v[1], v[2], t)
	g.VMOVUPS(t, p.at(i, 1))
	g.VSUBPS(v[1], v[2], t)
	g.VMOVUPS(t, p.at(i, 2))
	g.VSUBPS(v[1], v[3], v[3])
	g.VMOVUPS(v[3], p.at(i, 3))
}

func (g *gen) winogradPoints() {
	name := "winogradPoints" + g.suffix()
	g.begin(name, "func(dst, src *float32, tiles, pixel, row, plane int)",
		name+" transforms a row of tiles of two by two pixels, side by side, whose rows are row bytes apart.",
		winogradDoc)
	p, pixel := g.newPlanes("dst"), g.arg("pixel")
	upper, lower := g.arg("src"), g.arg("row")
	g.ADDQ(upper, lower)
	g.eachTile(p, []reg.GPVirtual{upper, lower}, pixel, func() {
		next := func(r reg.GPVirtual) operand.Mem { return operand.Mem{Base: r, Index: pixel, Scale: 1} }
		a, b := g.vecs(2), g.vecs(2)
		g.VMOVUPS(off(upper, 0), a[0])
		g.VMOVUPS(next(upper), a[1])
		g.VMOVUPS(off(lower, 0), b[0])
		g.VMOVUPS(next(lower), b[1])
		sum, difference := g.vecs(2), g.vecs(2)
		for j := range 2 {
			g.VADDPS(b[j], a[j], sum[j])
			g.VSUBPS(b[j], a[j], difference[j])
		}
		for i, v := range [][]reg.VecVirtual{a, sum, difference, b} {
			s, d := g.vec(), g.vec()
			g.VADDPS(v[1], v[0], s)
			g.VSUBPS(v[1], v[0], d)
			for j, x := range []reg.VecVirtual{v[0], s, d, v[1]} {
				g.VMOVUPS(x, p.at(i, j))
			}
		}
	})
}

func (g *gen) winogradSums() {
	name := "winogradSums" + g.suffix()
	g.begin(name, "func(dst, src *float32, tiles, pixel, row, plane int)",
		name+" makes a row of tiles of two by two pixels, side by side, whose rows are row bytes apart, from their products.",
		winogradDoc)
	p, pixel := g.newPlanes("src"), g.arg("pixel")
	upper, lower := g.arg("dst"), g.arg("row")
	g.ADDQ(upper, lower)
	g.eachTile(p, []reg.GPVirtual{upper, lower}, pixel, func() {
		a, b := g.vecs(4), g.vecs(4)
		for j := range 4 {
			t := g.vec()
			g.VMOVUPS(p.at(1, j), t)
			g.VMOVUPS(p.at(2, j), b[j])
			g.VADDPS(p.at(0, j), t, a[j])
			g.VADDPS(b[j], a[j], a[j])
			g.VSUBPS(b[j], t, b[j])
			g.VADDPS(p.at(3, j), b[j], b[j])
		}
		for i, v := range [][]reg.VecVirtual{a, b} {
			r := []reg.GPVirtual{upper, lower}[i]
			g.VADDPS(v[1], v[0], v[0])
			g.VADDPS(v[2], v[0], v[0])
			g.VMOVUPS(v[0], off(r, 0))
			g.VSUBPS(v[2], v[1], v[1])
			g.VADDPS(v[3], v[1], v[1])
			g.VMOVUPS(v[1], operand.Mem{Base: r, Index: pixel, Scale: 1})
		}
	})
}

// eachWeight runs body for every register of the weights' planes, with a register of halves.
func (g *gen) eachWeight(t taps, p planes, body func(half reg.VecVirtual)) {
	n, r, half := g.arg("n"), g.GP32(), g.vec()
	g.MOVL(operand.U32(0x3f000000), r)
	g.VMOVD(r, half.AsX())
	g.VPBROADCASTD(half.AsX(), half)
	g.Label("loop")
	body(half)
	g.advance(imm(g.bytes()), t.row...)
	g.advance(imm(g.bytes()), p.row...)
	g.DECQ(n)
	g.JNZ(operand.LabelRef("loop"))
	g.end()
}

func (g *gen) winogradFilter() {
	name := "winogradFilter" + g.suffix()
	g.begin(name, "func(dst, src *float32, n, tap, plane int)",
		name+" transforms n registers of nine planes of weights, tap bytes apart.")
	t, p := g.newTaps("src"), g.newPlanes("dst")
	g.eachWeight(t, p, func(half reg.VecVirtual) {
		for i := range 4 {
			v, s := g.vecs(3), g.vec()
			for j := range v {
				switch i {
				case 0, 3:
					g.VMOVUPS(t.at(i/3*2, j), v[j])
				default:
					g.VMOVUPS(t.at(0, j), v[j])
					g.VADDPS(t.at(2, j), v[j], v[j])
					g.addOr(i == 2, t.at(1, j), v[j])
					g.VMULPS(half, v[j], v[j])
				}
			}
			g.VMOVUPS(v[0], p.at(i, 0))
			g.VMOVUPS(v[2], p.at(i, 3))
			g.VADDPS(v[2], v[0], s)
			g.VSUBPS(v[1], s, v[0])
			g.VADDPS(v[1], s, s)
			for j, x := range []reg.VecVirtual{s, v[0]} {
				g.VMULPS(half, x, x)
				g.VMOVUPS(x, p.at(i, 1+j))
			}
		}
	})
}

// addOr adds m to v, or subtracts it.
func (g *gen) addOr(subtract bool, m operand.Mem, v reg.VecVirtual) {
	if subtract {
		g.VSUBPS(m, v, v)
	} else {
		g.VADDPS(m, v, v)
	}
}

func (g *gen) winogradGradient() {
	name := "winogradGradient" + g.suffix()
	g.begin(name, "func(dst, src *float32, n, tap, plane int)",
		name+" makes n registers of nine planes of a weight gradient, tap bytes apart, from sums of products.")
	t, p := g.newTaps("dst"), g.newPlanes("src")
	g.eachWeight(t, p, func(half reg.VecVirtual) {
		for i := range 3 {
			v := g.vecs(4)
			for j := range v {
				g.VMOVUPS(p.at(1, j), v[j])
				g.addOr(i == 1, p.at(2, j), v[j])
				g.VMULPS(half, v[j], v[j])
				if i != 1 {
					g.VADDPS(p.at(i/2*3, j), v[j], v[j])
				}
			}
			s, d := g.vec(), g.vec()
			g.VADDPS(v[2], v[1], s)
			g.VSUBPS(v[2], v[1], d)
			g.VMULPS(half, s, s)
			g.VMULPS(half, d, d)
			g.VADDPS(s, v[0], v[0])
			g.VADDPS(s, v[3], v[3])
			for j, x := range []reg.VecVirtual{v[0], d, v[3]} {
				g.VMOVUPS(x, t.at(i, j))
			}
		}
	})
}
