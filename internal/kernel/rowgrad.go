package kernel

// Gradients of depthwise convolutions, on the runs of row.go. Products and
// sums are rounded apart and added in the row-major order of output pixels.

// depthwiseBackwardInput computes dx as depthwise convolutions of dy, one for
// each phase, or tap by tap where there are none.
func (t *isa) depthwiseBackwardInput(dx, dy, w []float32, n int, g ConvGeom) {
	if g.StrideH > 1 && g.dilH() > 1 || g.StrideW > 1 && g.dilW() > 1 {
		depthwiseScatter(dx, dy, w, n, g)
		return
	}
	c := g.Cin
	for i := range g.phases() {
		y, x := g.phase(i)
		if y.count <= 0 || x.count <= 0 {
			continue
		}
		f := ConvGeom{
			H: g.OutH(), W: g.OutW(), Cin: c, KH: y.taps, KW: x.taps, Cout: c, StrideH: 1, StrideW: 1, Groups: c,
			PadTop: y.before, PadBottom: y.after, PadLeft: x.before, PadRight: x.after, DilationH: g.DilationH, DilationW: g.DilationW,
		}
		to := pixelSteps{at: (y.first*g.W + x.first) * c, image: g.inSize(), row: g.StrideH * g.W * c, pixel: g.StrideW * c}
		from := tapSteps{at: (y.last*g.KW + x.last) * c, row: -g.StrideH * g.KW * c, cell: -g.StrideW * c}
		t.depthwiseRuns(dx, dy, w, n, f, to, from)
	}
}

// depthwiseScatter adds every output pixel's gradient to its window.
func depthwiseScatter(dx, dy, w []float32, n int, g ConvGeom) {
	st, at, c := g.steps(), g.depthTaps(), g.Cout
	clear(dx)
	eachRun(n, g, g.pixels(), func(r pixelRun) {
		for p := range r.pixels {
			up := dy[r.yAt+p*c:][:c]
			for kh := range r.rows {
				for kw := range r.cols {
					cell, tap := dx[r.xAt+p*st.pixel+kh*st.row+kw*st.cell:][:c], w[at.of(r)+kh*at.row+kw*at.cell:][:c]
					for j := range cell {
						cell[j] += float32(up[j] * tap[j])
					}
				}
			}
		}
	})
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
