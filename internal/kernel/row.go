package kernel

// Windows along a row of output pixels. Inside the image all windows hold the
// same cells, so that one routine walks them; at the borders each pixel has a
// window of its own.

// span returns, for output o of a row of outs, the taps [lo, hi) inside the
// input of length size and how many outputs from o on have the same ones.
func span(o, outs, stride, pad, dil, k, size int) (lo, hi, count int) {
	first := (pad + stride - 1) / stride          // whose window begins inside
	last := (size - 1 - dil*(k-1) + pad) / stride // whose window ends inside
	if o >= first && size-1-dil*(k-1)+pad >= 0 && o <= last {
		return 0, k, min(outs, last+1) - o
	}
	lo, hi = taps(o*stride-pad, dil, k, size)
	return lo, hi, 1
}

// pixelRun is a run of output pixels of one row: rows x cols cells each, xAt
// and yAt the elements where the first window and the first result begin,
// tapRow and tapCol the place of the window's first cell in the kernel.
type pixelRun struct{ xAt, yAt, tapRow, tapCol, pixels, rows, cols int }

// cellSteps are distances in elements of the input: from a pixel's window to
// the next one's, from a row of cells to the next, from a cell to the next.
type cellSteps struct{ pixel, row, cell int }

// pixelSteps say where output pixels are: at is the element of the first,
// the others are distances to the next image, row and pixel.
type pixelSteps struct{ at, image, row, pixel int }

// tapSteps say where the weights of a kernel's cells are: at is the element of
// the first, the others are distances to the next row and to the next cell.
type tapSteps struct{ at, row, cell int }

// eachRun calls f for all runs of n images in g, whose results lie at out.
// Windows without cells come with rows or cols 0.
func eachRun(n int, g ConvGeom, out pixelSteps, f func(r pixelRun)) {
	outH, outW, dh, dw := g.OutH(), g.OutW(), g.dilH(), g.dilW()
	for i := range n {
		for oy := range outH {
			y0 := oy*g.StrideH - g.PadTop
			yLo, yHi := taps(y0, dh, g.KH, g.H)
			for ox := 0; ox < outW; {
				lo, hi, count := span(ox, outW, g.StrideW, g.PadLeft, dw, g.KW, g.W)
				f(pixelRun{
					xAt: ((i*g.H+y0+yLo*dh)*g.W + ox*g.StrideW - g.PadLeft + lo*dw) * g.Cin,
					yAt: out.at + i*out.image + oy*out.row + ox*out.pixel, tapRow: yLo, tapCol: lo,
					pixels: count, rows: yHi - yLo, cols: hi - lo,
				})
				ox += count
			}
		}
	}
}

func (g ConvGeom) steps() cellSteps {
	return cellSteps{pixel: g.StrideW * g.Cin, row: g.dilH() * g.W * g.Cin, cell: g.dilW() * g.Cin}
}

// pixels is an output of its own, without gaps.
func (g ConvGeom) pixels() pixelSteps {
	return pixelSteps{image: g.outSize(), row: g.OutW() * g.Cout, pixel: g.Cout}
}

// depthTaps are the weights of a depthwise convolution.
func (g ConvGeom) depthTaps() tapSteps { return tapSteps{row: g.KW * g.Cout, cell: g.Cout} }

// of is the weight's element of a run's first cell.
func (s tapSteps) of(r pixelRun) int { return s.at + r.tapRow*s.row + r.tapCol*s.cell }

func (g ConvGeom) depthwise() bool { return g.Groups == g.Cin && g.Cout == g.Cin && g.Groups > 1 }

// depthwiseForward computes n images of a depthwise convolution in float32:
// cells in row-major order, product and sum rounded apart.
func (t *isa) depthwiseForward(y, x, w []float32, n int, g ConvGeom) {
	t.depthwiseRuns(y, x, w, n, g, g.pixels(), g.depthTaps())
}

// depthwiseRuns is depthwiseForward with results and weights anywhere.
func (t *isa) depthwiseRuns(y, x, w []float32, n int, g ConvGeom, out pixelSteps, at tapSteps) {
	st, c := g.steps(), g.Cout
	eachRun(n, g, out, func(r pixelRun) {
		done := 0
		if r.rows > 0 && r.cols > 0 {
			done = t.depthwiseVec(y, x, w, r, st, out.pixel, at, g)
		}
		for p := 0; done < c && p < r.pixels; p++ {
			row := y[r.yAt+p*out.pixel:][:c]
			clear(row[done:])
			for kh := range r.rows {
				for kw := range r.cols {
					cell, tap := x[r.xAt+p*st.pixel+kh*st.row+kw*st.cell:][:c], w[at.of(r)+kh*at.row+kw*at.cell:][:c]
					for j := done; j < c; j++ {
						row[j] += float32(cell[j] * tap[j])
					}
				}
			}
		}
	})
}

// depthwiseU8 is a depthwise convolution of codes: on the image with its
// padding written out every window is whole, so that a row is one run. Each
// run of sums goes to sums, or where that is nil requantized to rq.dst.
func (t *isa) depthwiseU8(sums []int32, rq *rowRequant, x []uint8, zero uint8, w []int8, n int, g ConvGeom, s *Scratch) {
	in, out, c := g.inSize(), g.outSize(), g.Cout
	inside := g
	inside.H, inside.W = g.H+g.PadTop+g.PadBottom, g.W+g.PadLeft+g.PadRight
	inside.PadTop, inside.PadLeft, inside.PadBottom, inside.PadRight = 0, 0, 0, 0
	st := inside.steps()
	var lanes [vecLanes]int32
	for i := range n {
		img := padImage(&s.bytes, x[i*in:][:in], c, zero, g)
		eachRun(1, inside, inside.pixels(), func(r pixelRun) {
			r.yAt += i * out
			done := t.depthwiseU8Vec(sums, rq, img, w, r, st, inside)
			for p := range r.pixels {
				for j := done; j < c; j += vecLanes {
					row := lanes[:min(vecLanes, c-j)]
					if sums != nil {
						row = sums[r.yAt+p*c+j:][:len(row)]
					}
					clear(row)
					for tap := range r.rows * r.cols {
						cell := img[r.xAt+p*st.pixel+tap/r.cols*st.row+tap%r.cols*st.cell+j:][:len(row)]
						for l, v := range w[tap*c+j:][:len(row)] {
							row[l] += int32(cell[l]) * int32(v)
						}
					}
					if sums == nil {
						requantGeneric(rq.dst[r.yAt+p*c+j:], row, rq.bias[j:], rq.m[j:], rq.zero, rq.lo, rq.hi, 0)
					}
				}
			}
		})
	}
}

// rowRequant is where requantized sums go, and how.
type rowRequant struct {
	dst          []uint8
	bias         []int32
	m            []float32
	zero, lo, hi int32
	values       []float32 // the results in place of dst: float32(acc+bias)*m
	first        int       // the channel that a product's first column is
}

// asConv is a pooling's windows as those of a depthwise convolution.
func (g PoolGeom) asConv() ConvGeom {
	return ConvGeom{
		H: g.H, W: g.W, Cin: g.C, KH: g.KH, KW: g.KW, Cout: g.C, StrideH: g.StrideH, StrideW: g.StrideW, Groups: g.C,
		PadTop: g.PadTop, PadLeft: g.PadLeft, PadBottom: g.PadBottom, PadRight: g.PadRight,
	}
}
