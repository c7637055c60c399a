package kernel

// Gradients of depthwise convolutions, on the runs of row.go. Products and
// sums are rounded apart and added in the row-major order of output pixels.

// backward is the convolution of dy along one axis that gives the gradient of
// the inputs first, first+stride, ...: its kernel is the taps last,
// last-stride, ..., its padding before may be negative, as may that after.
type backward struct{ first, count, last, taps, before, after int }

// backwardAxis is the convolution for the inputs whose place, with the padding,
// leaves remainder r when divided by the stride. It takes no dilation, or
// stride 1.
func backwardAxis(r, size, k, stride, dil, pad, out int) backward {
	b := backward{first: r - pad, taps: (k - r + stride - 1) / stride}
	for b.first < 0 {
		b.first += stride
	}
	b.count = (size - b.first + stride - 1) / stride
	b.last = r + (b.taps-1)*stride
	b.before = dil*(b.taps-1) - (b.first+pad)/stride
	b.after = b.count - out - b.before + dil*(b.taps-1)
	return b
}

// depthwiseBackwardInput computes dx as depthwise convolutions of dy, one for
// each pair of remainders, or reports false where there are none.
func (t *isa) depthwiseBackwardInput(dx, dy, w []float32, n int, g ConvGeom) bool {
	if g.StrideH > 1 && g.dilH() > 1 || g.StrideW > 1 && g.dilW() > 1 {
		return false
	}
	c, outH, outW := g.Cin, g.OutH(), g.OutW()
	for i := range g.StrideH * g.StrideW {
		y := backwardAxis(i/g.StrideW, g.H, g.KH, g.StrideH, g.dilH(), g.PadTop, outH)
		x := backwardAxis(i%g.StrideW, g.W, g.KW, g.StrideW, g.dilW(), g.PadLeft, outW)
		if y.count <= 0 || x.count <= 0 {
			continue
		}
		f := ConvGeom{
			H: outH, W: outW, Cin: c, KH: y.taps, KW: x.taps, Cout: c, StrideH: 1, StrideW: 1, Groups: c,
			PadTop: y.before, PadBottom: y.after, PadLeft: x.before, PadRight: x.after, DilationH: g.DilationH, DilationW: g.DilationW,
		}
		to := pixelSteps{at: (y.first*g.W + x.first) * c, image: g.inSize(), row: g.StrideH * g.W * c, pixel: g.StrideW * c}
		from := tapSteps{at: (y.last*g.KW + x.last) * c, row: -g.StrideH * g.KW * c, cell: -g.StrideW * c}
		t.depthwiseRuns(dx, dy, w, n, f, to, from)
	}
	return true
}

// depthwiseBackwardWeight adds to dw.
func (t *isa) depthwiseBackwardWeight(dw, x, dy []float32, n int, g ConvGeom) {
	st, at, c := g.steps(), g.depthTaps(), g.Cout
	eachRun(n, g, g.pixels(), func(r pixelRun) {
		if r.rows == 0 || r.cols == 0 {
			return
		}
		done := t.depthwiseWeightVec(dw, x, dy, r, st, g)
		for p := 0; done < c && p < r.pixels; p++ {
			up := dy[r.yAt+p*c:][:c]
			for kh := range r.rows {
				for kw := range r.cols {
					cell, tap := x[r.xAt+p*st.pixel+kh*st.row+kw*st.cell:][:c], dw[at.of(r)+kh*at.row+kw*at.cell:][:c]
					for j := done; j < c; j++ {
						tap[j] += float32(cell[j] * up[j])
					}
				}
			}
		}
	})
}
