package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Masks: a zmm tile's mask points at the bits of its columns, a ymm tile's at
// one int32 per column; a nil mask of an integer ymm tile means all columns.
//
// A tile is R rows x W vectors of the result, held in registers while k runs.
// A is read in place by broadcasts, B by rows of W vectors. The sum has two
// levels, so that a convolution's kernel rows (or, for the weight gradient,
// the output's rows) are one call: after the inner k steps A moves by a2 and B
// by b2 more bytes. One call does a column of tiles ("strips"), and that again
// for each of several lines, an image's rows of pixels.

// Tiles are as tall as the registers allow.
const (
	rowsF32Z  = 14 // 28 accumulators, 2 of B, 2 of A
	rowsThin  = 16 // of one vector: channels come in sixteens
	rowsF32Y  = 6  // 12, 2, 2
	rowsS8Z   = 14
	rowsTwice = 3 // integer tiles so low have two sets of sums: one waits for its own last step
	rowsS8Y   = 6 // 12 accumulators, 2 of B, A, the product
	rowsS6Y   = 5 // 10, ones, B, A, 2 sums, the product
)

const tileSignature = "func(k, k2 int, a *byte, rs, cs, a2, astrip int, b *byte, bs, b2 int, c *byte, ldc, cstrip, strips, lines, aline, cline int"

// rowBases returns registers and addresses for R rows at distance rs from a:
// one base register for three rows.
func (g *gen) rowBases(rows int, a, rs reg.Register) (bases []reg.GPVirtual, at func(i, disp int) operand.Mem) {
	for b := range (rows + 2) / 3 {
		p := g.GP64()
		if b == 0 {
			g.MOVQ(a, p)
		} else {
			g.LEAQ(operand.Mem{Base: bases[b-1], Index: rs, Scale: 2}, p)
			g.ADDQ(rs, p)
		}
		bases = append(bases, p)
	}
	return bases, rowsAt(bases, rs)
}

// rowsAt is the address of row i, three rows to a base.
func rowsAt(bases []reg.GPVirtual, rs reg.Register) func(i, disp int) operand.Mem {
	return func(i, disp int) operand.Mem {
		m := operand.Mem{Base: bases[i/3], Disp: disp}
		if r := i % 3; r > 0 {
			m.Index, m.Scale = rs, uint8(r)
		}
		return m
	}
}

// basesBehind is rowBases by bytes further.
func (g *gen) basesBehind(bases []reg.GPVirtual, rs, by reg.Register) (behind []reg.GPVirtual, at func(i, disp int) operand.Mem) {
	for _, p := range bases {
		q := g.GP64()
		g.LEAQ(operand.Mem{Base: p, Index: by, Scale: 1}, q)
		behind = append(behind, q)
	}
	return behind, rowsAt(behind, rs)
}

// operands are the addresses of one step of k: at is A's row i, b B's row.
type operands struct {
	at func(i, disp int) operand.Mem
	b  func(disp int) operand.Mem
}

// tileLoop emits the frame all tiles share: lines, strips, rows, and the
// two-level k loop around step; store runs once per strip, with pointers at the
// tile, and next between lines. With pairs an iteration does two steps, and an odd one goes first: a
// core whose other thread is busy has few instructions to spare for the loop.
func (g *gen) tileLoop(rows int, pairs bool, step func(o operands),
	clear, store func(at func(i, disp int) operand.Mem, bases []reg.GPVirtual, c reg.Register), next ...func()) {
	a, rs, c, left := g.arg("a"), g.arg("rs"), g.arg("c"), g.AllocLocal(8)
	g.Label("line")
	g.MOVQ(g.arg("strips"), left)
	g.Label("strip")
	bases, at := g.rowBases(rows, a, rs)
	cs, b, bs := g.arg("cs"), g.arg("b"), g.arg("bs")
	k2 := g.arg("k2")
	clear(at, bases, c)
	g.Label("outer")
	k := g.arg("k")
	here := func(disp int) operand.Mem { return off(b, disp) }
	one := func() {
		step(operands{at, here})
		g.ADDQ(bs, b)
		for _, p := range bases {
			g.ADDQ(cs, p)
		}
	}
	if pairs {
		g.TESTQ(operand.I32(1), k)
		g.JZ(operand.LabelRef("even"))
		one()
		g.DECQ(k)
		g.JZ(operand.LabelRef("summed"))
		g.Label("even")
		next, atNext := g.basesBehind(bases, rs, cs)
		g.Label("inner")
		step(operands{at, here})
		step(operands{atNext, func(disp int) operand.Mem {
			return operand.Mem{Base: b, Index: bs, Scale: 1, Disp: disp}
		}})
		g.LEAQ(operand.Mem{Base: b, Index: bs, Scale: 2}, b)
		for _, p := range append(next, bases...) {
			g.LEAQ(operand.Mem{Base: p, Index: cs, Scale: 2}, p)
		}
		g.SUBQ(operand.I8(2), k)
		g.JNZ(operand.LabelRef("inner"))
		g.Label("summed")
	} else {
		g.Label("inner")
		one()
		g.DECQ(k)
		g.JNZ(operand.LabelRef("inner"))
	}
	g.ADDQ(g.slot("b2"), b)
	for _, p := range bases {
		g.ADDQ(g.slot("a2"), p)
	}
	g.DECQ(k2)
	g.JNZ(operand.LabelRef("outer"))
	store(at, bases, c)
	g.ADDQ(g.slot("astrip"), a)
	g.ADDQ(g.slot("cstrip"), c)
	g.DECQ(left)
	g.JNZ(operand.LabelRef("strip"))
	g.ADDQ(g.slot("aline"), a)
	g.ADDQ(g.slot("cline"), c)
	for _, f := range next {
		f()
	}
	g.DECQ(g.slot("lines"))
	g.JNZ(operand.LabelRef("line"))
	g.end()
}

// nextB moves B from line to line, for tiles whose lines have their own.
func (g *gen) nextB() { g.ADDQ(g.arg("bline"), g.slot("b")) }

// eachC runs f over the tile's accumulators with their addresses in C.
func (g *gen) eachC(rows, w int, c reg.Register, f func(i, w int, m operand.Mem)) {
	ldc, p := g.arg("ldc"), g.GP64()
	g.MOVQ(c, p)
	for i := range rows {
		for j := range w {
			f(i, j, off(p, j*g.bytes()))
		}
		if i < rows-1 {
			g.ADDQ(ldc, p)
		}
	}
}

func tilesF32(g *gen) {
	for rows := 1; rows <= rowsF32Y; rows++ {
		g.wide = false
		g.tileF32(rows, 1)
		g.tileF32(rows, 2)
	}
	for rows := 1; rows <= rowsThin; rows++ {
		g.wide = true
		g.tileF32(rows, 1)
		if rows <= rowsF32Z {
			g.tileF32(rows, 2)
		}
	}
}

// tileF32 emits C (+)= A*B on one tile shape. Two-vector tiles are whole; a
// one-vector tile stores the columns its mask names.
func (g *gen) tileF32(rows, width int) {
	masked := width == 1
	name := g.tileName("tileF32", rows, width)
	g.begin(name, tileSignature+", acc int, mask *int32, ahead, bline int)",
		name+" computes strips of a float32 product: C = A*B, or C += A*B when acc is not 0.",
		"A step fetches one line of A's next strip, each ahead bytes behind the last. B moves by bline bytes from line to line.")
	acc, bv, av, next := g.vecs(rows*width), g.vecs(width), g.vecs(2), g.GP64()
	var km reg.OpmaskVirtual
	var vm reg.VecVirtual
	if masked {
		if g.wide {
			km = g.K()
			g.KMOVW(off(g.arg("mask"), 0), km)
		} else {
			vm = g.vec()
			g.VMOVDQU(off(g.arg("mask"), 0), vm)
		}
	}
	load := func(m operand.Mem, v reg.VecVirtual) {
		switch {
		case !masked:
			g.VMOVUPS(m, v)
		case g.wide:
			g.VMOVUPS_Z(m, km, v)
		default:
			g.VMASKMOVPS(m, vm, v)
		}
	}
	step := func(o operands) {
		for w := range width {
			load(o.b(w*g.bytes()), bv[w])
		}
		for i := range rows {
			if width == 1 && g.wide {
				g.VFMADD231PS_BCST(o.at(i, 0), bv[0], acc[i])
				continue
			}
			x := av[i%2]
			g.VBROADCASTSS(o.at(i, 0), x)
			for w := range width {
				g.VFMADD231PS(bv[w], x, acc[i*width+w])
			}
		}
		g.PREFETCHT0(off(next, 0))
		g.ADDQ(g.slot("ahead"), next)
	}
	clear := func(_ func(i, disp int) operand.Mem, bases []reg.GPVirtual, _ reg.Register) {
		g.MOVQ(bases[0], next)
		g.ADDQ(g.slot("astrip"), next)
		for _, v := range acc {
			g.zero(v)
		}
	}
	store := func(_ func(i, disp int) operand.Mem, _ []reg.GPVirtual, c reg.Register) {
		flag := g.arg("acc")
		g.TESTQ(flag, flag)
		g.JZ(operand.LabelRef("store"))
		old := bv[0]
		g.eachC(rows, width, c, func(i, w int, m operand.Mem) {
			load(m, old)
			g.VADDPS(old, acc[i*width+w], acc[i*width+w])
		})
		g.Label("store")
		g.eachC(rows, width, c, func(i, w int, m operand.Mem) {
			v := acc[i*width+w]
			switch {
			case !masked:
				g.VMOVUPS(v, m)
			case g.wide:
				g.VMOVUPS(v, km, m)
			default:
				g.VMASKMOVPS(v, vm, m)
			}
		})
	}
	g.tileLoop(rows, !g.wide, step, clear, store, g.nextB)
}

func tilesS8(g *gen) {
	for rows := 1; rows <= rowsS8Y; rows++ {
		g.wide = false
		g.tileWords(rows, sums)
	}
	for rows := 1; rows <= rowsS6Y; rows++ {
		g.tileBytes(rows, sums)
	}
	for rows := 1; rows <= rowsS8Z; rows++ {
		g.wide = true
		g.tileS8(rows, 1, sums)
		g.tileS8(rows, 2, sums)
	}
}

// tileResult is what an integer tile stores.
type tileResult uint8

const (
	sums tileResult = iota
	codes
	values
)

// tilesValues emits the integer tiles that store the values of their sums.
func tilesValues(g *gen) {
	g.wide = false
	for rows := 1; rows <= rowsS8Y; rows++ {
		g.tileWords(rows, values)
	}
	for rows := 1; rows <= rowsS6Y; rows++ {
		g.tileBytes(rows, values)
	}
	g.wide = true
	for rows := 1; rows <= rowsS8Z; rows++ {
		g.tileS8(rows, 1, values)
		g.tileS8(rows, 2, values)
	}
}

// tilesRequant emits the integer tiles that requantize what they store.
func tilesRequant(g *gen) {
	g.wide = false
	for rows := 1; rows <= rowsS8Y; rows++ {
		g.tileWords(rows, codes)
	}
	for rows := 1; rows <= rowsS6Y; rows++ {
		g.tileBytes(rows, codes)
	}
	g.wide = true
	for rows := 1; rows <= rowsS8Z; rows++ {
		g.tileS8(rows, 1, codes)
		g.tileS8(rows, 2, codes)
	}
}

// beginInteger starts an integer tile, named for what it stores.
func (g *gen) beginInteger(rows, width int, result tileResult) {
	g.beginResult("", rows, width, result)
}

func (g *gen) beginResult(kind string, rows, width int, result tileResult) {
	switch result {
	case values:
		name := g.tileName("tileValues"+kind, rows, width)
		g.begin(name, tileSignature+", tail int, mask *int32, bias *int32, m *float32)",
			name+" computes strips of values of a u8 x s8 product: C = float32(A*B+bias)*m.")
	case codes:
		name := g.tileName("tileRequant"+kind, rows, width)
		g.begin(name, tileSignature+", tail int, mask *int32, bias *int32, m *float32, lo, hi float32, zero int32)",
			name+" computes strips of codes from a u8 x s8 product: C = rint(clamp(float32(A*B+bias)*m, lo, hi)) + zero.")
	default:
		name := g.tileName("tileS8"+kind, rows, width)
		g.begin(name, tileSignature+", tail int, mask *int32)",
			name+" computes strips of an exact u8 x s8 product: C = A*B.")
	}
}

// tileS8 emits the exact integer product C = A*B of u8 A and packed s8 B, four
// steps of k at a time, and fetches A's next strip meanwhile, a line each step. The last tail (0..3) steps of k re-read the four bytes
// that end A's row, shifted down, against B rows padded with zeros. It is for
// zmm; tileWords is its ymm form.
func (g *gen) tileS8(rows, width int, result tileResult) {
	g.beginInteger(rows, width, result)
	acc, bv, x := g.vecs(rows*width), g.vecs(2), g.vec()
	var other []reg.VecVirtual
	low := rows <= rowsTwice
	if low {
		other = g.vecs(rows * width)
	}
	// dot adds the products of four steps to sums; bcast fills x with A's four bytes.
	dot := func(b func(disp int) operand.Mem, sums []reg.VecVirtual, bcast func(i int)) {
		for w := range width {
			g.VMOVDQU32(b(w*64), bv[w])
		}
		for i := range rows {
			bcast(i)
			for w := range width {
				g.VPDPBUSD(bv[w], x, sums[i*width+w])
			}
		}
	}
	var here func(disp int) operand.Mem         // where B is
	turn := [][]reg.VecVirtual{acc, acc, other} // an odd step, then two by two
	var next reg.GPVirtual                      // in A's next strip
	step := func(o operands) {
		if here == nil {
			here = o.b
		}
		dot(o.b, turn[0], func(i int) { g.VPBROADCASTD(o.at(i, 0), x) })
		if low {
			turn = turn[1:]
			return
		}
		g.PREFETCHT0(off(next, 0))
		g.ADDQ(operand.I8(64), next)
	}
	clear := func(_ func(i, disp int) operand.Mem, bases []reg.GPVirtual, _ reg.Register) {
		if !low {
			next = g.GP64()
			g.MOVQ(bases[0], next)
			g.ADDQ(g.slot("astrip"), next)
		}
		for _, v := range append(acc, other...) {
			g.zero(v)
		}
	}
	store := func(at func(i, disp int) operand.Mem, bases []reg.GPVirtual, c reg.Register) {
		for i, v := range other {
			g.VPADDD(v, acc[i], acc[i])
		}
		tail := g.arg("tail")
		g.TESTQ(tail, tail)
		g.JZ(operand.LabelRef("store"))
		// bases are behind the last whole step: go to end-4, shift by 8*(4-tail)
		g.SUBQ(operand.I8(4), tail)
		for _, p := range bases {
			g.ADDQ(tail, p)
		}
		g.NEGQ(tail)
		g.SHLQ(operand.I8(3), tail)
		g.MOVQ(tail, reg.RCX)
		word := g.GP32()
		dot(here, acc, func(i int) {
			g.MOVL(at(i, 0), word)
			g.SHRL(reg.CL, word)
			g.VPBROADCASTD(word, x)
		})
		g.Label("store")
		switch result {
		case values:
			g.storeValues(rows, width, acc, c)
		case codes:
			g.storeRequant(rows, width, acc, c)
		default:
			g.storeSums(rows, width, acc, c)
		}
	}
	g.tileLoop(rows, low, step, clear, store)
}

// storeSums stores the columns of a zmm tile that the mask names.
func (g *gen) storeSums(rows, width int, acc []reg.VecVirtual, c reg.Register) {
	mask := g.arg("mask")
	k := []reg.OpmaskVirtual{g.K(), g.K()}
	for w := range width {
		g.KMOVW(off(mask, 2*w), k[w])
	}
	g.eachC(rows, width, c, func(i, w int, m operand.Mem) { g.VMOVDQU32(acc[i*width+w], k[w], m) })
	if rows <= rowsTwice {
		return
	}
	next := g.GP64() // strip
	g.MOVQ(c, next)
	g.ADDQ(g.slot("cstrip"), next)
	g.eachC(rows, width, next, func(_, _ int, m operand.Mem) { g.PREFETCHT0(m) })
}

// storeValues turns a zmm tile into values, one vector of columns after the other, and stores those that the mask names.
func (g *gen) storeValues(rows, width int, acc []reg.VecVirtual, c reg.Register) {
	for w := range width {
		k, bias, factor := g.K(), g.vec(), g.vec()
		g.KMOVW(off(g.arg("mask"), 2*w), k)
		g.VMOVDQU32_Z(off(g.arg("bias"), 64*w), k, bias)
		g.VMOVUPS_Z(off(g.arg("m"), 64*w), k, factor)
		ldc, p := g.arg("ldc"), g.GP64()
		g.MOVQ(c, p)
		for i := range rows {
			v := acc[i*width+w]
			g.VPADDD(bias, v, v)
			g.VCVTDQ2PS(v, v)
			g.VMULPS(factor, v, v)
			g.VMOVUPS(v, k, off(p, 64*w))
			if i < rows-1 {
				g.ADDQ(ldc, p)
			}
		}
	}
}

// storeRequant turns a zmm tile into codes, one vector of columns after the
// other, and stores those that the mask names.
func (g *gen) storeRequant(rows, width int, acc []reg.VecVirtual, c reg.Register) {
	lo, hi, zero, bias := g.broadcast("lo"), g.broadcast("hi"), g.broadcast("zero"), g.vec()
	for w := range width {
		k := g.K()
		g.KMOVW(off(g.arg("mask"), 2*w), k)
		g.VMOVDQU32_Z(off(g.arg("bias"), 64*w), k, bias)
		m, ldc, p := g.arg("m"), g.arg("ldc"), g.GP64()
		g.MOVQ(c, p)
		for i := range rows {
			v := acc[i*width+w]
			g.VPADDD(bias, v, v)
			g.VCVTDQ2PS(v, v)
			g.VMULPS_Z(off(m, 64*w), v, k, v)
			g.VMAXPS(lo, v, v)
			g.VMINPS(hi, v, v)
			g.VCVTPS2DQ(v, v)
			g.VPADDD(zero, v, v)
			g.VPMOVDB(v, k, off(p, 16*w))
			if i < rows-1 {
				g.ADDQ(ldc, p)
			}
		}
	}
}
