package kernel

// Grouped convolutions are plain loops over taps. Depthwise ones, where each
// input channel has its own filters, run along the channel axis.

// eachTap calls f for every pair of an output pixel and a kernel tap inside
// the image: offsets of the input pixel, of the output pixel and of the tap's
// weights, in row-major order of pixels, then taps.
func eachTap(n int, g ConvGeom, f func(x, y, w int)) {
	outH, outW := g.OutH(), g.OutW()
	dh, dw := g.dilH(), g.dilW()
	tap := g.Cin / g.Groups * g.Cout
	for i := range n {
		for oy := range outH {
			y0 := oy*g.StrideH - g.PadTop
			yLo, yHi := taps(y0, dh, g.KH, g.H)
			for ox := range outW {
				x0 := ox*g.StrideW - g.PadLeft
				xLo, xHi := taps(x0, dw, g.KW, g.W)
				out := ((i*outH+oy)*outW + ox) * g.Cout
				for kh := yLo; kh < yHi; kh++ {
					for kw := xLo; kw < xHi; kw++ {
						f(((i*g.H+y0+kh*dh)*g.W+x0+kw*dw)*g.Cin, out, (kh*g.KW+kw)*tap)
					}
				}
			}
		}
	}
}

func (t *isa) groupForward(y, x, w []float32, n int, g ConvGeom) {
	if g.depthwise() {
		t.depthwiseForward(y, x, w, n, g)
		return
	}
	clear(y)
	gi, per := g.Cin/g.Groups, g.Cout/g.Groups
	eachTap(n, g, func(xo, yo, wo int) {
		xp, yp := x[xo:][:g.Cin], y[yo:][:g.Cout]
		for c := range gi {
			wr := w[wo+c*g.Cout:][:g.Cout]
			for group := range g.Groups {
				xv := xp[group*gi+c]
				for j := group * per; j < (group+1)*per; j++ {
					yp[j] += float32(xv * wr[j])
				}
			}
		}
	})
}

func (t *isa) groupBackwardInput(dx, dy, w []float32, n int, g ConvGeom) {
	if g.depthwise() && t.depthwiseBackwardInput(dx, dy, w, n, g) {
		return
	}
	gi, per := g.Cin/g.Groups, g.Cout/g.Groups
	clear(dx)
	eachTap(n, g, func(xo, yo, wo int) {
		xp, yp := dx[xo:][:g.Cin], dy[yo:][:g.Cout]
		for c := range gi {
			wr := w[wo+c*g.Cout:][:g.Cout]
			for group := range g.Groups {
				var sum float32
				for j := group * per; j < (group+1)*per; j++ {
					sum += float32(yp[j] * wr[j])
				}
				xp[group*gi+c] += sum
			}
		}
	})
}

func (t *isa) groupBackwardWeight(dw, x, dy []float32, n int, g ConvGeom) {
	if g.depthwise() {
		t.depthwiseBackwardWeight(dw, x, dy, n, g)
		return
	}
	gi, per := g.Cin/g.Groups, g.Cout/g.Groups
	eachTap(n, g, func(xo, yo, wo int) {
		xp, yp := x[xo:][:g.Cin], dy[yo:][:g.Cout]
		for c := range gi {
			wr := dw[wo+c*g.Cout:][:g.Cout]
			for group := range g.Groups {
				xv := xp[group*gi+c]
				for j := group * per; j < (group+1)*per; j++ {
					wr[j] += float32(xv * yp[j])
				}
			}
		}
	})
}
