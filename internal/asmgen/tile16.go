package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The integer backward pass multiplies s16 by s16. Its operands are pairs: a
// dword holds two neighbours along the sum, the first in its low half, so that
// VPDPWSSD (or VPMADDWD and VPADDD) does two steps of k at once. Otherwise a
// tile is a float32 one: A by broadcasts, B by rows of dwords.

const (
	rowsS16Z = 14
	rowsS16Y = 6 // 12 accumulators, 2 of B, A, the product
)

func tilesS16(g *gen) {
	for rows := 1; rows <= rowsS16Y; rows++ {
		g.wide = false
		g.tileS16(rows, 1)
		g.tileS16(rows, 2)
	}
	for rows := 1; rows <= rowsS16Z; rows++ {
		g.wide = true
		g.tileS16(rows, 1)
		g.tileS16(rows, 2)
	}
	g.eachWidth(func() {
		g.pairRows(true)
		g.pairRows(false)
		g.roundWords()
		g.pairCodes()
		g.widenWords("S8")
		g.widenWords("U8")
	})
}

// tileS16 emits C (+)= float32(A*B)*m. Two-vector tiles are whole; a one-vector
// tile has the columns its mask names.
func (g *gen) tileS16(rows, width int) {
	masked := width == 1
	name := g.tileName("tileS16", rows, width)
	g.begin(name, tileSignature+", acc int, mask *int32, m *float32, bline int)",
		name+" computes strips of C = float32(A*B)*m, or C += float32(A*B)*m when acc is not 0, of s16 pairs A and B;",
		"where m is nil, C = A*B or C += A*B in s32, which wraps. B moves by bline bytes from line to line.")
	acc, bv := g.vecs(rows*width), g.vecs(width)
	var km reg.OpmaskVirtual
	mask := func() (v reg.VecVirtual) { // ymm: a register only while it is used
		v = g.vec()
		g.VMOVDQU(off(g.arg("mask"), 0), v)
		return v
	}
	var vm reg.VecVirtual
	if masked && g.wide {
		km = g.K()
		g.KMOVW(off(g.arg("mask"), 0), km)
	} else if masked {
		vm = mask()
	}
	loadInt := func(m operand.Mem, v reg.VecVirtual) {
		switch {
		case !masked:
			g.loadInt(m, v)
		case g.wide:
			g.VMOVDQU32_Z(m, km, v)
		default:
			g.VPMASKMOVD(m, vm, v)
		}
	}
	loadFloat := func(m operand.Mem, v reg.VecVirtual) {
		switch {
		case !masked:
			g.VMOVUPS(m, v)
		case g.wide:
			g.VMOVUPS_Z(m, km, v)
		default:
			g.VMASKMOVPS(m, vm, v)
		}
	}
	x, product := g.vec(), g.vec()
	low := g.wide && rows <= rowsTwice
	var other []reg.VecVirtual
	if low {
		other = g.vecs(rows * width)
	}
	turn := [][]reg.VecVirtual{acc, acc, other} // an odd step, then two by two
	step := func(o operands) {
		sums := turn[0]
		if low {
			turn = turn[1:]
		}
		for w := range width {
			loadInt(o.b(w*g.bytes()), bv[w])
		}
		for i := range rows {
			if g.wide && masked {
				g.VPDPWSSD_BCST(o.at(i, 0), bv[0], sums[i])
				continue
			}
			g.VPBROADCASTD(o.at(i, 0), x)
			for w := range width {
				if g.wide {
					g.VPDPWSSD(bv[w], x, sums[i*width+w])
					continue
				}
				g.VPMADDWD(bv[w], x, product)
				g.VPADDD(product, sums[i*width+w], sums[i*width+w])
			}
		}
	}
	clear := func(func(i, disp int) operand.Mem, []reg.GPVirtual, reg.Register) {
		for _, v := range append(acc, other...) {
			g.zero(v)
		}
	}
	store := func(_ func(i, disp int) operand.Mem, _ []reg.GPVirtual, c reg.Register) {
		for i, v := range other {
			g.VPADDD(v, acc[i], acc[i])
		}
		m, flag := g.arg("m"), g.arg("acc")
		old := bv[0]
		g.TESTQ(m, m)
		g.JZ(operand.LabelRef("sums"))
		for w := range width {
			loadFloat(off(m, w*g.bytes()), bv[w])
		}
		for i := range rows {
			for w := range width {
				v := acc[i*width+w]
				g.VCVTDQ2PS(v, v)
				g.VMULPS(bv[w], v, v)
			}
		}
		g.TESTQ(flag, flag)
		g.JZ(operand.LabelRef("store"))
		g.eachC(rows, width, c, func(i, w int, m operand.Mem) {
			loadFloat(m, old)
			g.VADDPS(old, acc[i*width+w], acc[i*width+w])
		})
		g.JMP(operand.LabelRef("store"))
		g.Label("sums")
		g.TESTQ(flag, flag)
		g.JZ(operand.LabelRef("store"))
		g.eachC(rows, width, c, func(i, w int, m operand.Mem) {
			loadInt(m, old)
			g.VPADDD(old, acc[i*width+w], acc[i*width+w])
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
	g.tileLoop(rows, !g.wide || low, step, clear, store, g.nextB)
}

// lowHalves fills a register with 0x0000ffff in each dword.
func (g *gen) lowHalves() reg.VecVirtual {
	v := g.vec()
	if g.wide {
		g.VPTERNLOGD(operand.U8(0xff), v, v, v)
	} else {
		g.VPCMPEQD(v, v, v)
	}
	g.VPSRLD(operand.U8(16), v, v)
	return v
}

// join writes a's low halves and b's as pairs over b.
func (g *gen) join(low, a, b reg.VecVirtual) {
	g.VPSLLD(operand.U8(16), b, b)
	if g.wide {
		g.VPANDD(low, a, a)
		g.VPORD(a, b, b)
		return
	}
	g.VPAND(low, a, a)
	g.VPOR(a, b, b)
}

// storeWords stores the int32 lanes of sixteen elements as s16, which they fit.
func (g *gen) storeWords(v []reg.VecVirtual, m operand.Mem) {
	if g.wide {
		g.VPMOVSDW(v[0], m)
		return
	}
	t := g.vec()
	g.VPACKSSDW(v[1], v[0], t)
	g.VPERMQ(operand.U8(0xd8), t, t)
	g.VMOVDQU(t, m)
}

// pairRows rounds two neighbouring rows at a time, and keeps the rows themselves, too, or only their pairs.
func (g *gen) pairRows(keep bool) {
	signature := "func(pairs *int32, row *int16, x, t *float32, channels, n int)"
	name, doc := "pairRows", "row holds q as s16 in x's order, pairs for each pair of rows the two q of each channel."
	if !keep {
		signature = "func(pairs *int32, x, t *float32, channels, n int)"
		name, doc = "pairRowsOnly", "pairs holds for each pair of rows the two q of each channel."
	}
	name += g.suffix()
	g.begin(name, signature,
		name+" computes q = rint(x*t) of n pairs of rows, t for each of channels, a multiple of sixteen:", doc)
	pairs, x, t := g.arg("pairs"), g.arg("x"), g.arg("t")
	channels, n := g.arg("channels"), g.arg("n")
	var row, row1, half reg.GPVirtual
	if keep {
		row = g.arg("row")
	}
	low := g.lowHalves()
	end := g.GP64()
	g.MOVQ(channels, end)
	g.SHLQ(operand.U8(2), end) // bytes of a row of floats; of s16 half of it
	g.Label("pair")
	o, x1 := g.GP64(), g.GP64()
	g.XORQ(o, o)
	g.LEAQ(operand.Mem{Base: x, Index: end, Scale: 1}, x1)
	if keep {
		half, row1 = g.GP64(), g.GP64()
		g.XORQ(half, half)
		g.LEAQ(operand.Mem{Base: row, Index: channels, Scale: 2}, row1)
	}
	g.Label("block")
	var q [2][]reg.VecVirtual
	for h := range g.halves() {
		scale := g.vec()
		at := func(base reg.Register) operand.Mem {
			return operand.Mem{Base: base, Index: o, Scale: 1, Disp: h * g.bytes()}
		}
		g.VMOVUPS(at(t), scale)
		for i, base := range []reg.Register{x, x1} {
			v := g.vec()
			g.VMULPS(at(base), scale, v)
			g.VCVTPS2DQ(v, v)
			q[i] = append(q[i], v)
		}
	}
	if keep {
		for i, base := range []reg.Register{row, row1} {
			g.storeWords(q[i], operand.Mem{Base: base, Index: half, Scale: 1})
		}
		g.ADDQ(operand.I8(32), half)
	}
	for h := range g.halves() {
		g.join(low, q[0][h], q[1][h])
		g.storeInt(q[1][h], operand.Mem{Base: pairs, Index: o, Scale: 1, Disp: h * g.bytes()})
	}
	g.ADDQ(operand.I8(64), o)
	g.CMPQ(o, end)
	g.JNE(operand.LabelRef("block"))
	g.ADDQ(end, pairs)
	if keep {
		g.ADDQ(end, row) // two rows of s16 are as long as one of floats
	}
	g.LEAQ(operand.Mem{Base: x, Index: end, Scale: 2}, x)
	g.DECQ(n)
	g.JNZ(operand.LabelRef("pair"))
	g.end()
}

// roundWords rounds rows.
func (g *gen) roundWords() {
	name := "roundWords" + g.suffix()
	g.begin(name, "func(dst *int32, x, t *float32, channels, n int)",
		name+" computes q = rint(x*t) of n rows as s16, t for each of channels, a multiple of sixteen.")
	dst, x, t, end := g.arg("dst"), g.arg("x"), g.arg("t"), g.arg("channels")
	g.SHLQ(operand.U8(2), end) // bytes of a row of floats
	g.Label("row")
	o := g.GP64()
	g.XORQ(o, o)
	g.Label("block")
	var q []reg.VecVirtual
	for h := range g.halves() {
		at := func(base reg.Register) operand.Mem {
			return operand.Mem{Base: base, Index: o, Scale: 1, Disp: h * g.bytes()}
		}
		v := g.vec()
		g.VMOVUPS(at(t), v)
		g.VMULPS(at(x), v, v)
		g.VCVTPS2DQ(v, v)
		q = append(q, v)
	}
	g.storeWords(q, off(dst, 0))
	g.ADDQ(operand.I8(32), dst)
	g.ADDQ(operand.I8(64), o)
	g.CMPQ(o, end)
	g.JNE(operand.LabelRef("block"))
	g.ADDQ(end, x)
	g.DECQ(g.slot("n"))
	g.JNZ(operand.LabelRef("row"))
	g.end()
}

// pairCodes widens two pixels at a time.
func (g *gen) pairCodes() {
	name := "pairCodes" + g.suffix()
	g.begin(name, "func(pairs *int32, pitch int, x *uint8, next, step int, channels, n int, zero int32)",
		name+" computes n pairs of pixels: x-zero of a pixel and of the one next bytes further, for each of channels, a",
		"multiple of sixteen. Pixels are step bytes apart, their pairs pitch bytes.")
	pairs, pitch, x, next, step := g.arg("pairs"), g.arg("pitch"), g.arg("x"), g.arg("next"), g.arg("step")
	channels, n, zero := g.arg("channels"), g.arg("n"), g.broadcast("zero")
	low := g.lowHalves()
	g.Label("pair")
	x1, o := g.GP64(), g.GP64()
	g.LEAQ(operand.Mem{Base: x, Index: next, Scale: 1}, x1)
	g.XORQ(o, o)
	g.Label("block")
	for h := range g.halves() {
		var q [2]reg.VecVirtual
		for i, base := range []reg.Register{x, x1} {
			q[i] = g.vec()
			g.VPMOVZXBD(operand.Mem{Base: base, Index: o, Scale: 1, Disp: h * g.bytes() / 4}, q[i])
			g.VPSUBD(zero, q[i], q[i])
		}
		g.join(low, q[0], q[1])
		g.storeInt(q[1], operand.Mem{Base: pairs, Index: o, Scale: 4, Disp: h * g.bytes()})
	}
	g.ADDQ(operand.I8(16), o)
	g.CMPQ(o, channels)
	g.JNE(operand.LabelRef("block"))
	g.ADDQ(pitch, pairs)
	g.ADDQ(step, x)
	g.DECQ(n)
	g.JNZ(operand.LabelRef("pair"))
	g.end()
}

// storeInt stores a whole register of integers.
func (g *gen) storeInt(v reg.VecVirtual, m operand.Mem) {
	if g.wide {
		g.VMOVDQU32(v, m)
	} else {
		g.VMOVDQU(v, m)
	}
}

// widenWords turns bytes into s16 less the zero point.
func (g *gen) widenWords(kind string) {
	name := "widen" + kind + g.suffix()
	source, load := "int8", g.VPMOVSXBW
	if kind == "U8" {
		source, load = "uint8", g.VPMOVZXBW
	}
	g.begin(name, "func(dst *int16, x *"+source+", n int, zero int32)",
		name+" computes dst = x - zero, n a multiple of thirty-two; zero fits sixteen bits and is given twice, in both halves.")
	dst, x, n, zero := g.arg("dst"), g.arg("x"), g.arg("n"), g.broadcast("zero")
	g.Label("loop")
	for h := range g.halves() {
		v := g.vec()
		load(off(x, h*g.bytes()/2), v)
		g.VPSUBW(zero, v, v)
		g.storeInt(v, off(dst, h*g.bytes()))
	}
	g.ADDQ(operand.I8(64), dst)
	g.ADDQ(operand.I8(32), x)
	g.SUBQ(operand.I8(32), n)
	g.JNZ(operand.LabelRef("loop"))
	g.end()
}
