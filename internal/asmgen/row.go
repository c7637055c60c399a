package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// A row routine computes one block of channels of a run of output pixels whose
// windows have the same number of rows and columns: depthwise convolutions and
// maxima. All distances are in bytes:
//
//	the windows of two pixels are xStep apart, their results yStep
//	cells of a window are pitch apart in a row, rows are rowStep apart
//	weights of cells are wStep apart in a row, rows are wRow apart
//
// Four pixels are computed at a time, so that a weight is loaded once for them
// and their sums do not wait for each other; the rest one by one.

// together is the number of pixels computed at a time.
const together = 4

func rows(g *gen) {
	g.eachWidth(func() {
		g.depthwiseF32()
		g.depthwiseU8(false)
		g.depthwiseU8(true)
		g.maxRowF32()
	})
	g.wide = false
	g.maxRowU8(16)
	g.maxRowU8(32)
}

// rowBody is what a row routine does with pixels 0..count-1 of a group: clear
// before the first cell, cell once per cell, store at the end.
type rowBody struct {
	weights bool
	clear   func(count int, at func(pixel int) operand.Mem)
	cell    func(count int, at func(pixel int) operand.Mem, w reg.Register)
	store   func(count int, at func(pixel int) operand.Mem)
}

// pixelRow emits the loops. Addresses are those of the block's first channel.
func (g *gen) pixelRow(b rowBody) {
	y, x, xStep := g.arg("y"), g.arg("x"), g.arg("xStep")
	group := func(count int) {
		suffix := map[int]string{1: "1", together: "4"}[count]
		g.Label("pixels" + suffix)
		next := operand.LabelRef("pixels1")
		if count == 1 {
			next = operand.LabelRef("done")
		}
		g.CMPQ(g.slot("pixels"), operand.I8(int8(count)))
		g.JLT(next)
		row, rowsLeft, wRow := g.GP64(), g.arg("rows"), reg.GPVirtual(nil)
		g.MOVQ(x, row)
		if b.weights {
			wRow = g.arg("w")
		}
		// pixels 0 and 2 from one base, 1 and 3 from the other
		base := []reg.GPVirtual{g.GP64(), g.GP64()}
		at := func(pixel int) operand.Mem {
			m := operand.Mem{Base: base[pixel%2]}
			if pixel >= 2 {
				m.Index, m.Scale = xStep, 2
			}
			return m
		}
		start := func() {
			g.MOVQ(row, base[0])
			if count > 1 {
				g.LEAQ(operand.Mem{Base: row, Index: xStep, Scale: 1}, base[1])
			}
		}
		start()
		b.clear(count, at)
		g.Label("row" + suffix)
		start()
		cols := g.arg("cols")
		w := reg.GPVirtual(nil)
		if b.weights {
			w = g.GP64()
			g.MOVQ(wRow, w)
		}
		g.Label("cell" + suffix)
		b.cell(count, at, w)
		for i := range min(count, 2) {
			g.ADDQ(g.slot("pitch"), base[i])
		}
		if b.weights {
			g.ADDQ(g.slot("wStep"), w)
		}
		g.DECQ(cols)
		g.JNZ(operand.LabelRef("cell" + suffix))
		g.ADDQ(g.slot("rowStep"), row)
		if b.weights {
			g.ADDQ(g.slot("wRow"), wRow)
		}
		g.DECQ(rowsLeft)
		g.JNZ(operand.LabelRef("row" + suffix))
		yStep := g.arg("yStep")
		if count > 1 {
			g.LEAQ(operand.Mem{Base: y, Index: yStep, Scale: 1}, base[1])
		}
		b.store(count, func(pixel int) operand.Mem {
			m := operand.Mem{Base: y}
			if pixel%2 == 1 {
				m.Base = base[1]
			}
			if pixel >= 2 {
				m.Index, m.Scale = yStep, 2
			}
			return m
		})
		g.LEAQ(operand.Mem{Base: x, Index: xStep, Scale: uint8(count)}, x)
		g.LEAQ(operand.Mem{Base: y, Index: yStep, Scale: uint8(count)}, y)
		g.SUBQ(operand.I8(int8(count)), g.slot("pixels"))
		g.JMP(operand.LabelRef("pixels" + suffix))
	}
	group(together)
	group(1)
	g.Label("done")
	g.end()
}

// shifted is m, n bytes further.
func shifted(m operand.Mem, n int) operand.Mem {
	m.Disp += n
	return m
}

func (g *gen) depthwiseF32() {
	name := "depthwiseF32" + g.suffix()
	g.begin(name, "func(y, x, w *float32, pixels, rows, cols, xStep, rowStep, pitch, yStep, wStep, wRow int)",
		name+" computes a run of pixels of a depthwise convolution, 16 channels: y = sum x*w,",
		"product and sum rounded apart, cells in order; see row.go.")
	n := g.halves()
	acc, wv, t := g.vecs(together*n), g.vecs(n), g.vec()
	g.pixelRow(rowBody{
		weights: true,
		clear: func(count int, _ func(int) operand.Mem) {
			for _, v := range acc[:count*n] {
				g.zero(v)
			}
		},
		cell: func(count int, at func(int) operand.Mem, w reg.Register) {
			for h := range n {
				g.VMOVUPS(off(w, h*g.bytes()), wv[h])
			}
			for p := range count {
				for h := range n {
					g.VMULPS(shifted(at(p), h*g.bytes()), wv[h], t)
					g.VADDPS(t, acc[p*n+h], acc[p*n+h])
				}
			}
		},
		store: func(count int, at func(int) operand.Mem) {
			for p := range count {
				for h := range n {
					g.VMOVUPS(acc[p*n+h], shifted(at(p), h*g.bytes()))
				}
			}
		},
	})
}

// depthwiseU8 emits the integer form, which stores sums or requantizes them.
func (g *gen) depthwiseU8(requant bool) {
	const common = ", w *int8, pixels, rows, cols, xStep, rowStep, pitch, yStep, wStep, wRow int"
	name, signature := "depthwiseU8"+g.suffix(), "func(y *int32, x *uint8"+common+")"
	doc := name + " computes a run of pixels of an integer depthwise convolution, 16 channels: y = sum x*w; see row.go."
	if requant {
		name = "depthwiseRequant" + g.suffix()
		signature = "func(y, x *uint8" + common + ", bias *int32, m *float32, lo, hi float32, zero int32)"
		doc = name + " is depthwiseU8 followed by requant."
	}
	g.begin(name, signature, doc)
	n := g.halves()
	acc, wv, t := g.vecs(together*n), g.vecs(n), g.vec()
	var lo, hi, zero reg.VecVirtual
	if requant {
		lo, hi, zero = g.broadcast("lo"), g.broadcast("hi"), g.broadcast("zero")
	}
	g.pixelRow(rowBody{
		weights: true,
		clear: func(count int, _ func(int) operand.Mem) {
			for _, v := range acc[:count*n] {
				g.zero(v)
			}
		},
		cell: func(count int, at func(int) operand.Mem, w reg.Register) {
			for h := range n {
				g.widen(true, w, h, wv[h])
			}
			for p := range count {
				for h := range n {
					v := acc[p*n+h]
					g.VPMOVZXBD(shifted(at(p), h*g.bytes()/4), t)
					if g.wide { // the upper s16 of every lane of t is 0
						g.VPDPWSSD(wv[h], t, v)
						continue
					}
					g.VPMADDWD(wv[h], t, t)
					g.VPADDD(t, v, v)
				}
			}
		},
		store: func(count int, at func(int) operand.Mem) {
			if !requant {
				for p := range count {
					for h := range n {
						m := shifted(at(p), h*g.bytes())
						if g.wide {
							g.VMOVDQU32(acc[p*n+h], m)
						} else {
							g.VMOVDQU(acc[p*n+h], m)
						}
					}
				}
				return
			}
			bias, m := g.arg("bias"), g.arg("m")
			for p := range count {
				for h := range n {
					v := acc[p*n+h]
					g.VPADDD(off(bias, h*g.bytes()), v, v)
					g.VCVTDQ2PS(v, v)
					g.VMULPS(off(m, h*g.bytes()), v, v)
					g.VMAXPS(lo, v, v)
					g.VMINPS(hi, v, v)
					g.VCVTPS2DQ(v, v)
					g.VPADDD(zero, v, v)
				}
				g.storeBytes(acc[p*n:(p+1)*n], false, at(p))
			}
		},
	})
}

func (g *gen) maxRowF32() {
	name := "maxRowF32" + g.suffix()
	g.begin(name, "func(y, x *float32, pixels, rows, cols, xStep, rowStep, pitch, yStep int)",
		name+" computes a run of pixels of a max-pool, 16 channels; see row.go and maxCells.")
	n := g.halves()
	best := g.vecs(together * n)
	g.pixelRow(rowBody{
		clear: func(count int, at func(int) operand.Mem) {
			for p := range count {
				for h := range n {
					g.VMOVUPS(shifted(at(p), h*g.bytes()), best[p*n+h])
				}
			}
		},
		cell: func(count int, at func(int) operand.Mem, _ reg.Register) {
			for p := range count {
				for h := range n {
					v, b := g.vec(), best[p*n+h]
					g.VMOVUPS(shifted(at(p), h*g.bytes()), v)
					g.keepGreater(v, b)
				}
			}
		},
		store: func(count int, at func(int) operand.Mem) {
			for p := range count {
				for h := range n {
					g.VMOVUPS(best[p*n+h], shifted(at(p), h*g.bytes()))
				}
			}
		},
	})
}

// keepGreater puts v into best where it is greater, or NaN where best is a
// number.
func (g *gen) keepGreater(v, best reg.VecVirtual) {
	if g.wide {
		k := g.K()
		g.VCMPPS(cmpOrdered, best, best, k)
		g.VCMPPS(cmpNotLessEqual, best, v, k, k)
		g.VMOVAPS(v, k, best)
		return
	}
	c, ordered := g.vec(), g.vec()
	g.VCMPPS(cmpOrdered, best, best, ordered)
	g.VCMPPS(cmpNotLessEqual, best, v, c)
	g.VANDPS(ordered, c, c)
	g.VBLENDVPS(c, v, best, best)
}

func (g *gen) maxRowU8(channels int) {
	name := map[int]string{16: "maxRowU8X", 32: "maxRowU8Y"}[channels]
	g.begin(name, "func(y, x *uint8, pixels, rows, cols, xStep, rowStep, pitch, yStep int)",
		name+" computes a run of pixels of a max-pool of codes; see row.go. It needs AVX2.")
	best := make([]reg.VecVirtual, together)
	for i := range best {
		best[i] = g.YMM()
		if channels == 16 {
			best[i] = g.XMM()
		}
	}
	g.pixelRow(rowBody{
		clear: func(count int, at func(int) operand.Mem) {
			for p := range count {
				g.VMOVDQU(at(p), best[p])
			}
		},
		cell: func(count int, at func(int) operand.Mem, _ reg.Register) {
			for p := range count {
				g.VPMAXUB(at(p), best[p], best[p])
			}
		},
		store: func(count int, at func(int) operand.Mem) {
			for p := range count {
				g.VMOVDQU(best[p], at(p))
			}
		},
	})
}
