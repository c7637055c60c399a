package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The integer tiles of AVX2. VPMADDUBSW multiplies bytes, but saturates where
// two products pass 16 bits, so tileWords multiplies s16 pairs with VPMADDWD,
// which is exact. A is u8 codes widened to s16 beforehand: a broadcast of a
// pair is then one load, where bytes would need a shuffle each. Weights of six
// bits and fewer cannot saturate: tileBytes.

// tileWords emits strips of rows x 16 columns, four steps of k at a time; rows
// of A are whole groups of four, so tail is not looked at.
func (g *gen) tileWords(rows int, result tileResult) {
	const width = 2
	g.beginInteger(rows, width, result)
	acc, bv, x, product := g.vecs(rows*width), g.vecs(width), g.vec(), g.vec()
	step := func(o operands) {
		for pair := range 2 {
			for w := range width {
				g.VMOVDQU(o.b(pair*64+w*32), bv[w])
			}
			for i := range rows {
				g.VPBROADCASTD(o.at(i, 4*pair), x)
				for w := range width {
					g.VPMADDWD(bv[w], x, product)
					g.VPADDD(product, acc[i*width+w], acc[i*width+w])
				}
			}
		}
	}
	clear := func(func(i, disp int) operand.Mem, []reg.GPVirtual, reg.Register) {
		for _, v := range acc {
			g.zero(v)
		}
	}
	store := func(_ func(i, disp int) operand.Mem, _ []reg.GPVirtual, c reg.Register) {
		g.storeYmm(rows, acc, []reg.VecVirtual{bv[0], bv[1], x, product}, result, c)
	}
	g.tileLoop(rows, false, step, clear, store)
}

// storeYmm stores a ymm tile's sums, or what becomes of them; free are four
// registers.
func (g *gen) storeYmm(rows int, acc, free []reg.VecVirtual, result tileResult, c reg.Register) {
	mask := g.arg("mask")
	if result != sums {
		g.scaleWords(rows, acc, free, mask)
	}
	if result == codes {
		g.storeWordCodes(rows, acc, free, mask, c)
		return
	}
	g.storeDwords(rows, acc, free, mask, c)
}

// scaleWords turns the sums of a ymm tile into float32(sum+bias)*m. Of bias and
// m it reads the columns that the mask names, all when it is nil.
func (g *gen) scaleWords(rows int, acc, free []reg.VecVirtual, mask reg.Register) {
	const width = 2
	bias, m := g.arg("bias"), g.arg("m")
	each := func(w int, f func(v reg.VecVirtual)) {
		for i := range rows {
			f(acc[i*width+w])
		}
	}
	scale := func(load func(m operand.Mem, v reg.VecVirtual, w int)) {
		for w := range width {
			b, factor := free[0], free[1]
			load(off(bias, 32*w), b, w)
			load(off(m, 32*w), factor, w)
			each(w, func(v reg.VecVirtual) { g.VPADDD(b, v, v) })
			each(w, func(v reg.VecVirtual) { g.VCVTDQ2PS(v, v) })
			each(w, func(v reg.VecVirtual) { g.VMULPS(factor, v, v) })
		}
	}
	g.TESTQ(mask, mask)
	g.JZ(operand.LabelRef("scale"))
	scale(func(m operand.Mem, v reg.VecVirtual, w int) {
		g.VMOVDQU(off(mask, 32*w), free[2])
		g.VPMASKMOVD(m, free[2], v)
	})
	g.JMP(operand.LabelRef("scaled"))
	g.Label("scale")
	scale(func(m operand.Mem, v reg.VecVirtual, _ int) { g.VMOVDQU(m, v) })
	g.Label("scaled")
}

// storeDwords stores the columns of a ymm tile that the mask names.
func (g *gen) storeDwords(rows int, acc, free []reg.VecVirtual, mask, c reg.Register) {
	const width = 2
	g.TESTQ(mask, mask)
	g.JZ(operand.LabelRef("whole"))
	for w := range width {
		g.VMOVDQU(off(mask, 32*w), free[w])
	}
	g.eachC(rows, width, c, func(i, w int, m operand.Mem) { g.VPMASKMOVD(acc[i*width+w], free[w], m) })
	g.JMP(operand.LabelRef("stored"))
	g.Label("whole")
	g.eachC(rows, width, c, func(i, w int, m operand.Mem) { g.VMOVDQU(acc[i*width+w], m) })
	g.Label("stored")
}

// storeWordCodes rounds the values of a ymm tile to codes and stores the
// columns that the mask names.
func (g *gen) storeWordCodes(rows int, acc, free []reg.VecVirtual, mask, c reg.Register) {
	const width = 2
	n := g.GP32() // bits of the columns in the mask
	g.MOVL(operand.U32(0xffff), n)
	g.TESTQ(mask, mask)
	g.JZ(operand.LabelRef("round"))
	high := g.GP32()
	g.VMOVDQU(off(mask, 0), free[0])
	g.VMOVMSKPS(free[0], n)
	g.VMOVDQU(off(mask, 32), free[0])
	g.VMOVMSKPS(free[0], high)
	g.SHLL(operand.U8(8), high)
	g.ORL(high, n)
	g.Label("round")
	lo, hi, zero, high8 := free[0], free[1], free[2], free[3].AsX()
	g.VBROADCASTSS(g.slot("lo"), lo)
	g.VBROADCASTSS(g.slot("hi"), hi)
	g.VBROADCASTSS(g.slot("zero"), zero)
	for _, v := range acc {
		g.VMAXPS(lo, v, v)
		g.VMINPS(hi, v, v)
		g.VCVTPS2DQ(v, v)
		g.VPADDD(zero, v, v)
	}
	ldc, p := g.arg("ldc"), g.GP64()
	g.MOVQ(c, p)
	for i := range rows {
		v := acc[i*width]
		g.VPACKSSDW(acc[i*width+1], v, v)
		g.VPERMQ(operand.U8(0xd8), v, v)
		g.VEXTRACTI128(operand.U8(1), v, high8)
		g.VPACKUSWB(high8, v.AsX(), v.AsX())
	}
	g.CMPL(n, operand.U32(0xffff))
	g.JNE(operand.LabelRef("part"))
	for i := range rows {
		g.VMOVDQU(acc[i*width].AsX(), off(p, 0))
		if i < rows-1 {
			g.ADDQ(ldc, p)
		}
	}
	g.JMP(operand.LabelRef("stored"))
	g.Label("part") // eight bytes if there are eight, then four, two and one
	g.POPCNTL(n, n)
	for i := range rows {
		v, q, row := acc[i*width].AsX(), g.GP64(), string(rune('0'+i))
		g.MOVQ(p, q)
		for _, s := range []struct {
			bytes int
			store func()
		}{
			{8, func() { g.VMOVQ(v, off(q, 0)) }},
			{4, func() { g.VMOVD(v, off(q, 0)) }},
			{2, func() { g.VPEXTRW(operand.U8(0), v, off(q, 0)) }},
			{1, func() { g.VPEXTRB(operand.U8(0), v, off(q, 0)) }},
		} {
			label := "row" + row + "less" + string(rune('0'+s.bytes))
			g.TESTL(operand.U32(uint32(s.bytes)), n)
			g.JZ(operand.LabelRef(label))
			s.store()
			if s.bytes > 1 {
				g.VPSRLDQ(operand.U8(uint8(s.bytes)), v, v)
				g.ADDQ(operand.I8(int8(s.bytes)), q)
			}
			g.Label(label)
		}
		if i < rows-1 {
			g.ADDQ(ldc, p)
		}
	}
	g.Label("stored")
}

// tileBytes is the tile for codes of A in bytes and of B between -32 and 32: of
// four steps of k the sum of two VPMADDUBSW is at most 4*255*32, so that they
// neither saturate nor overflow together. It takes eight steps at a time; rows
// of A are whole groups of eight.
func (g *gen) tileBytes(rows int, result tileResult) {
	const width = 2
	g.beginResult("Bytes", rows, width, result)
	acc, ones, bv, x := g.vecs(rows*width), g.vec(), g.vec(), g.vec()
	sum := g.vecs(width)
	t := g.vec()
	g.VPCMPEQW(ones, ones, ones)
	g.VPSRLW(operand.U8(15), ones, ones)
	step := func(o operands) {
		g.VMOVDQU(o.b(0), bv)
		for i := range rows {
			g.VPBROADCASTD(o.at(i, 0), x)
			g.VPMADDUBSW(bv, x, sum[0])
			g.VPMADDUBSW(o.b(32), x, sum[1])
			g.VPBROADCASTD(o.at(i, 4), x)
			for w := range width {
				g.VPMADDUBSW(o.b(64+32*w), x, t)
				g.VPADDW(t, sum[w], sum[w])
				g.VPMADDWD(ones, sum[w], sum[w])
				g.VPADDD(sum[w], acc[i*width+w], acc[i*width+w])
			}
		}
	}
	clear := func(func(i, disp int) operand.Mem, []reg.GPVirtual, reg.Register) {
		for _, v := range acc {
			g.zero(v)
		}
	}
	store := func(_ func(i, disp int) operand.Mem, _ []reg.GPVirtual, c reg.Register) {
		g.storeYmm(rows, acc, []reg.VecVirtual{x, sum[0], sum[1], t}, result, c)
	}
	g.tileLoop(rows, false, step, clear, store)
}
