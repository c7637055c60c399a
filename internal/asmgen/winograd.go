package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Transforms of Winograd convolutions of 3x3 cells, two by two results at a time: see winograd.go in package kernel.
// Images are pixels of channels side by side; a transformed image is sixteen planes of one pixel per tile.

func winograds(g *gen) {
	g.eachWidth(func() {
		r := g.floats()
		g.winogradTaps(r, "four by four pixels")
		g.winogradPoints()
		g.winogradSums(r)
		g.winogradFilter()
		g.winogradGradient()
	})
}

// ring is what a transform's elements are and how they are added.
type ring struct {
	name, element string
	add, sub      func(...operand.Op)
}

func (g *gen) floats() ring { return ring{"", "float32", g.VADDPS, g.VSUBPS} }

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

// eachTile runs body for every register of channels of every tile, where an image's elements are as long as a plane's and
// the next tile begins two pixels further.
func (g *gen) eachTile(p planes, image []reg.GPVirtual, pixel reg.GPVirtual, body func()) {
	g.eachTileApart(p, image, pixel, g.bytes(), pixel, body)
}

// eachTileApart is eachTile where a register has step bytes of the image, and the next tile begins gap bytes behind the next
// pixel.
func (g *gen) eachTileApart(p planes, image []reg.GPVirtual, pixel reg.GPVirtual, step int, gap operand.Op, body func()) {
	n := g.GP64()
	g.Label("tile")
	g.MOVQ(pixel, n)
	g.Label("channels")
	body()
	g.advance(imm(g.bytes()), p.row...)
	g.advance(imm(step), image...)
	g.SUBQ(imm(step), n)
	g.JNZ(operand.LabelRef("channels"))
	g.advance(gap, image...)
	g.DECQ(g.slot("tiles"))
	g.JNZ(operand.LabelRef("tile"))
	g.end()
}

const winogradDoc = "pixel is the size of one and a positive multiple of a register."

func (g *gen) winogradTaps(r ring, of string) {
	name := "winogradTaps" + r.name + g.suffix()
	g.begin(name, "func(dst, src *"+r.element+", tiles, pixel, row, plane int)",
		name+" transforms a row of tiles of "+of+", two pixels apart, whose rows are row bytes apart.",
		winogradDoc)
	p, pixel := g.newPlanes("dst"), g.arg("pixel")
	row, first := g.arg("row"), g.arg("src")
	third := g.GP64() // of an image's rows
	g.LEAQ(operand.Mem{Base: first, Index: row, Scale: 2}, third)
	image := []reg.GPVirtual{first, third}
	g.eachTile(p, image, pixel, func() {
		g.winogradColumns(r, p, image, pixel, nil, func(i int) reg.VecVirtual {
			v := g.vec()
			g.VMOVUPS(cell(image, row, i), v)
			return v
		})
	})
}

// cell is row i of a tile's column, rows two at a time from the pointers in image.
func cell(image []reg.GPVirtual, row reg.Register, i int) operand.Mem {
	m := operand.Mem{Base: image[i/2]}
	if i%2 == 1 {
		m.Index, m.Scale = row, 1
	}
	return m
}

// winogradColumns stores the transform of four by four cells. A column's pixel lies j pixels further: the columns are walked
// by moving all pointers of image there and back, and load gives the cell in row i of the present one. constant, unless
// nil, is taken from the sum of the four cells in the middle.
func (g *gen) winogradColumns(r ring, p planes, image []reg.GPVirtual, pixel reg.Register, constant reg.Register, load func(i int) reg.VecVirtual) {
	outer := [2][]reg.VecVirtual{make([]reg.VecVirtual, 4), make([]reg.VecVirtual, 4)} // the first and last rows of B'd
	for j := range 4 {
		a, b := load(0), load(3)
		r.sub(load(2), a, a)
		r.sub(load(1), b, b)
		outer[0][j], outer[1][j] = a, b
		if j < 3 {
			g.advance(pixel, image...)
		}
	}
	for i, v := range outer {
		g.winogradRow(r, p, 3*i, v, nil)
	}
	inner := [2][]reg.VecVirtual{make([]reg.VecVirtual, 4), make([]reg.VecVirtual, 4)} // and the middle ones
	for j := 3; j >= 0; j-- {
		a, b, t := g.vec(), load(2), load(1)
		r.add(b, t, a)
		r.sub(t, b, b)
		inner[0][j], inner[1][j] = a, b
		if j > 0 {
			for _, q := range image {
				g.SUBQ(pixel, q)
			}
		}
	}
	g.winogradRow(r, p, 1, inner[0], constant)
	g.winogradRow(r, p, 2, inner[1], nil)
}

// winogradRow stores row i of the transform of four values along a row; constant, unless nil, is taken from its second.
func (g *gen) winogradRow(r ring, p planes, i int, v []reg.VecVirtual, constant reg.Register) {
	t := g.vec()
	r.sub(v[2], v[0], v[0])
	g.VMOVUPS(v[0], p.at(i, 0))
	r.add(v[1], v[2], t)
	if constant != nil {
		r.sub(constant, t, t)
	}
	g.VMOVUPS(t, p.at(i, 1))
	r.sub(v[1], v[2], t)
	g.VMOVUPS(t, p.at(i, 2))
	r.sub(v[1], v[3], v[3])
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
		g.winogradCorners(g.floats(), p, func(i, j int) reg.VecVirtual {
			m, v := operand.Mem{Base: []reg.GPVirtual{upper, lower}[i]}, g.vec()
			if j == 1 {
				m.Index, m.Scale = pixel, 1
			}
			g.VMOVUPS(m, v)
			return v
		})
	})
}

// winogradCorners stores the transform of two by two cells.
func (g *gen) winogradCorners(r ring, p planes, load func(i, j int) reg.VecVirtual) {
	a := []reg.VecVirtual{load(0, 0), load(0, 1)}
	b := []reg.VecVirtual{load(1, 0), load(1, 1)}
	sum, difference := g.vecs(2), g.vecs(2)
	for j := range 2 {
		r.add(b[j], a[j], sum[j])
		r.sub(b[j], a[j], difference[j])
	}
	for i, v := range [][]reg.VecVirtual{a, sum, difference, b} {
		s, d := g.vec(), g.vec()
		r.add(v[1], v[0], s)
		r.sub(v[1], v[0], d)
		for j, x := range []reg.VecVirtual{v[0], s, d, v[1]} {
			g.VMOVUPS(x, p.at(i, j))
		}
	}
}

func (g *gen) winogradSums(r ring) {
	name := "winogradSums" + r.name + g.suffix()
	g.begin(name, "func(dst, src *float32, tiles, pixel, row, plane int)",
		name+" makes a row of tiles of two by two pixels, side by side, whose rows are row bytes apart, from their products.",
		winogradDoc)
	g.winogradResults(r, func(reg.VecVirtual) {})
}

// winogradResults makes tiles of two by two pixels from their sums; finish makes what is stored of each.
func (g *gen) winogradResults(r ring, finish func(v reg.VecVirtual)) {
	p, pixel := g.newPlanes("src"), g.arg("pixel")
	upper, lower := g.arg("dst"), g.arg("row")
	g.ADDQ(upper, lower)
	g.eachTile(p, []reg.GPVirtual{upper, lower}, pixel, func() {
		a, b := g.vecs(4), g.vecs(4)
		for j := range 4 {
			t := g.vec()
			g.VMOVUPS(p.at(1, j), t)
			g.VMOVUPS(p.at(2, j), b[j])
			r.add(p.at(0, j), t, a[j])
			r.add(b[j], a[j], a[j])
			r.sub(b[j], t, b[j])
			r.add(p.at(3, j), b[j], b[j])
		}
		for i, v := range [][]reg.VecVirtual{a, b} {
			to := []reg.GPVirtual{upper, lower}[i]
			r.add(v[1], v[0], v[0])
			r.add(v[2], v[0], v[0])
			finish(v[0])
			g.VMOVUPS(v[0], off(to, 0))
			r.sub(v[2], v[1], v[1])
			r.add(v[3], v[1], v[1])
			finish(v[1])
			g.VMOVUPS(v[1], operand.Mem{Base: to, Index: pixel, Scale: 1})
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
