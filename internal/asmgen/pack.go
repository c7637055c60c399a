package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// packs emits the rearrangements of weights, all for AVX2.
func packs(g *gen) {
	g.wide = false
	g.packQuads()
	g.packPairs()
	g.widenCodes()
	g.packPanel()
	g.packBytes()
	g.absMaxS8()
	g.transpose8()
}

// packQuads interleaves four rows of 32 bytes for each group.
func (g *gen) packQuads() {
	g.begin("packQuadsY", "func(panel, w *int8, groups, stride int)",
		"packQuadsY writes groups of four rows of 32 columns, rows stride bytes apart, as the",
		"four bytes of each column: panel[128*i+4*j+r] = w[(4*i+r)*stride+j].")
	panel, w, groups, stride := g.arg("panel"), g.arg("w"), g.arg("groups"), g.arg("stride")
	stride3 := g.GP64()
	g.LEAQ(operand.Mem{Base: stride, Index: stride, Scale: 2}, stride3)
	g.Label("loop")
	r := g.vecs(4)
	g.VMOVDQU(off(w, 0), r[0])
	g.VMOVDQU(operand.Mem{Base: w, Index: stride, Scale: 1}, r[1])
	g.VMOVDQU(operand.Mem{Base: w, Index: stride, Scale: 2}, r[2])
	g.VMOVDQU(operand.Mem{Base: w, Index: stride3, Scale: 1}, r[3])
	t, q := g.vecs(4), g.vecs(4)
	g.VPUNPCKLBW(r[1], r[0], t[0])
	g.VPUNPCKHBW(r[1], r[0], t[1])
	g.VPUNPCKLBW(r[3], r[2], t[2])
	g.VPUNPCKHBW(r[3], r[2], t[3])
	g.VPUNPCKLWD(t[2], t[0], q[0]) // columns 0-3 and 16-19
	g.VPUNPCKHWD(t[2], t[0], q[1]) // 4-7, 20-23
	g.VPUNPCKLWD(t[3], t[1], q[2]) // 8-11, 24-27
	g.VPUNPCKHWD(t[3], t[1], q[3]) // 12-15, 28-31
	out := g.vec()
	for i, half := range []operand.Op{operand.U8(0x20), operand.U8(0x31)} {
		for j := range 2 {
			g.VPERM2I128(half, q[2*j+1], q[2*j], out)
			g.VMOVDQU(out, off(panel, 64*i+32*j))
		}
	}
	g.SUBQ(operand.I8(-128), panel)
	g.LEAQ(operand.Mem{Base: w, Index: stride, Scale: 4}, w)
	g.DECQ(groups)
	g.JNZ(operand.LabelRef("loop"))
	g.end()
}

// packPairs interleaves two rows of 16 bytes twice for each group, widened.
func (g *gen) packPairs() {
	g.begin("packPairsY", "func(panel, w *int8, groups, stride int)",
		"packPairsY writes groups of four rows of 16 columns, rows stride bytes apart, as s16 pairs of each",
		"column: rows 0 and 1 of all columns, then rows 2 and 3.")
	panel, w, groups, stride := g.arg("panel"), g.arg("w"), g.arg("groups"), g.arg("stride")
	g.Label("loop")
	for pair := range 2 {
		first, second, low := g.XMM(), g.XMM(), g.XMM()
		g.VMOVDQU(off(w, 0), first)
		g.VMOVDQU(operand.Mem{Base: w, Index: stride, Scale: 1}, second)
		g.VPUNPCKLBW(second, first, low)
		g.VPUNPCKHBW(second, first, first)
		for i, bytes := range []reg.VecVirtual{low, first} {
			words := g.vec()
			g.VPMOVSXBW(bytes, words)
			g.VMOVDQU(words, off(panel, 64*pair+32*i))
		}
		g.LEAQ(operand.Mem{Base: w, Index: stride, Scale: 2}, w)
	}
	g.SUBQ(operand.I8(-128), panel)
	g.DECQ(groups)
	g.JNZ(operand.LabelRef("loop"))
	g.end()
}

// widenCodes turns bytes into words: 32 at a time, then 8, then one.
func (g *gen) widenCodes() {
	g.begin("widenCodesY", "func(dst *int16, x *uint8, n int)", "widenCodesY computes dst = x for n >= 0 codes.")
	dst, x, n := g.arg("dst"), g.arg("x"), g.arg("n")
	blocks := func(label string, size int, move func()) {
		g.Label(label)
		g.SUBQ(operand.I8(int8(size)), n)
		g.JLT(operand.LabelRef(label + "done"))
		move()
		g.ADDQ(operand.I8(int8(size)), x)
		g.ADDQ(operand.I8(int8(2*size)), dst)
		g.JMP(operand.LabelRef(label))
		g.Label(label + "done")
		g.ADDQ(operand.I8(int8(size)), n)
	}
	blocks("long", 32, func() {
		for h := range 2 {
			v := g.vec()
			g.VPMOVZXBW(off(x, 16*h), v)
			g.VMOVDQU(v, off(dst, 32*h))
		}
	})
	blocks("short", 8, func() {
		v := g.XMM()
		g.VPMOVZXBW(off(x, 0), v)
		g.VMOVDQU(v, off(dst, 0))
	})
	blocks("one", 1, func() {
		code := g.GP32()
		g.MOVBLZX(off(x, 0), code)
		g.MOVW(code.As16(), off(dst, 0))
	})
	g.end()
}

// packBytes interleaves four rows of 16 bytes for each group.
func (g *gen) packBytes() {
	g.begin("packBytesY", "func(panel, w *int8, groups, stride int)",
		"packBytesY writes groups of four rows of 16 columns, rows stride bytes apart, as the four bytes of each column.")
	panel, w, groups, stride := g.arg("panel"), g.arg("w"), g.arg("groups"), g.arg("stride")
	stride3 := g.GP64()
	g.LEAQ(operand.Mem{Base: stride, Index: stride, Scale: 2}, stride3)
	g.Label("loop")
	r := []reg.VecVirtual{g.XMM(), g.XMM(), g.XMM(), g.XMM()}
	g.VMOVDQU(off(w, 0), r[0])
	g.VMOVDQU(operand.Mem{Base: w, Index: stride, Scale: 1}, r[1])
	g.VMOVDQU(operand.Mem{Base: w, Index: stride, Scale: 2}, r[2])
	g.VMOVDQU(operand.Mem{Base: w, Index: stride3, Scale: 1}, r[3])
	for i, unpack := range []func(ops ...operand.Op){g.VPUNPCKLBW, g.VPUNPCKHBW} {
		first, second, out := g.XMM(), g.XMM(), g.XMM()
		unpack(r[1], r[0], first)
		unpack(r[3], r[2], second)
		g.VPUNPCKLWD(second, first, out)
		g.VMOVDQU(out, off(panel, 32*i))
		g.VPUNPCKHWD(second, first, out)
		g.VMOVDQU(out, off(panel, 32*i+16))
	}
	g.ADDQ(operand.I8(64), panel)
	g.LEAQ(operand.Mem{Base: w, Index: stride, Scale: 4}, w)
	g.DECQ(groups)
	g.JNZ(operand.LabelRef("loop"))
	g.end()
}

// absMaxS8 is the greatest magnitude of codes.
func (g *gen) absMaxS8() {
	g.begin("absMaxS8Y", "func(top *uint8, x *int8, n int)",
		"absMaxS8Y raises the 32 bytes at top to the magnitudes of n codes, a multiple of 32.")
	top, x, n := g.arg("top"), g.arg("x"), g.arg("n")
	best, v := g.vec(), g.vec()
	g.VMOVDQU(off(top, 0), best)
	g.Label("loop")
	g.VPABSB(off(x, 0), v)
	g.VPMAXUB(v, best, best)
	g.ADDQ(operand.I8(32), x)
	g.SUBQ(operand.I8(32), n)
	g.JNZ(operand.LabelRef("loop"))
	g.VMOVDQU(best, off(top, 0))
	g.end()
}

// packPanel copies rows of two registers.
func (g *gen) packPanel() {
	g.begin("packPanelY", "func(dst, src *float32, rows, stride int)", "packPanelY copies rows of 16 columns, stride bytes apart, one behind the other.")
	dst, src, rows, stride := g.arg("dst"), g.arg("src"), g.arg("rows"), g.arg("stride")
	g.Label("loop")
	for h := range 2 {
		v := g.vec()
		g.VMOVUPS(off(src, 32*h), v)
		g.VMOVUPS(v, off(dst, 32*h))
	}
	g.ADDQ(operand.I8(64), dst)
	g.ADDQ(stride, src)
	g.DECQ(rows)
	g.JNZ(operand.LabelRef("loop"))
	g.end()
}

// transpose8 transposes eight rows of float32, eight columns at a time.
func (g *gen) transpose8() {
	g.begin("transpose8", "func(dst, src *float32, dstStride, srcStride, blocks int)",
		"transpose8 writes blocks of eight columns of eight rows of src as rows of dst; strides are in bytes.")
	dst, src, ds, ss, blocks := g.arg("dst"), g.arg("src"), g.arg("dstStride"), g.arg("srcStride"), g.arg("blocks")
	rowsOf := func(base, stride reg.Register) (at func(i, disp int) operand.Mem) {
		stride3, upper := g.GP64(), g.GP64()
		g.LEAQ(operand.Mem{Base: stride, Index: stride, Scale: 2}, stride3)
		g.LEAQ(operand.Mem{Base: base, Index: stride, Scale: 4}, upper)
		return func(i, disp int) operand.Mem {
			b := base
			if i >= 4 {
				b = upper
			}
			switch i % 4 {
			case 1:
				return operand.Mem{Base: b, Index: stride, Scale: 1, Disp: disp}
			case 2:
				return operand.Mem{Base: b, Index: stride, Scale: 2, Disp: disp}
			case 3:
				return operand.Mem{Base: b, Index: stride3, Scale: 1, Disp: disp}
			}
			return operand.Mem{Base: b, Disp: disp}
		}
	}
	g.Label("loop")
	from, to := rowsOf(src, ss), rowsOf(dst, ds)
	// half registers: row i beside row i+4, so that no lane is crossed later
	for half := range 2 {
		r := g.vecs(4)
		for i := range 4 {
			g.VMOVUPS(from(i, 16*half), r[i].AsX())
			g.VINSERTF128(operand.U8(1), from(i+4, 16*half), r[i], r[i])
		}
		t := g.vecs(4)
		g.VUNPCKLPS(r[1], r[0], t[0])
		g.VUNPCKHPS(r[1], r[0], t[1])
		g.VUNPCKLPS(r[3], r[2], t[2])
		g.VUNPCKHPS(r[3], r[2], t[3])
		o := g.vecs(4)
		g.VUNPCKLPD(t[2], t[0], o[0])
		g.VUNPCKHPD(t[2], t[0], o[1])
		g.VUNPCKLPD(t[3], t[1], o[2])
		g.VUNPCKHPD(t[3], t[1], o[3])
		for i, v := range o {
			g.VMOVUPS(v, to(4*half+i, 0))
		}
	}
	g.ADDQ(operand.I8(32), src)
	g.LEAQ(operand.Mem{Base: dst, Index: ds, Scale: 8}, dst)
	g.DECQ(blocks)
	g.JNZ(operand.LabelRef("loop"))
	g.end()
}
