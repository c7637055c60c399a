package kernel

// ConvWide convolves n images of 16-bit integers with 16-bit weights [KH,KW,Cin/Groups,Cout] into 64-bit sums, exactly.
// Cells outside the image are 0. A dense layer is the case of one pixel.
func ConvWide(acc []int64, x, w []int16, n int, g ConvGeom) {
	outH, outW := g.OutH(), g.OutW()
	clear(acc[:n*outH*outW*g.Cout])
	for i := range n {
		img := x[i*g.H*g.W*g.Cin:][:g.H*g.W*g.Cin]
		for oy := range outH {
			for ox := range outW {
				at := ((i*outH+oy)*outW + ox) * g.Cout
				wideCell(acc[at:at+g.Cout], img, w, oy*g.StrideH-g.PadTop, ox*g.StrideW-g.PadLeft, &g)
			}
		}
	}
}

// wideCell adds the products of one output position, whose window begins at row top and column left.
func wideCell(acc []int64, img, w []int16, top, left int, g *ConvGeom) {
	in, out := g.Cin/g.Groups, g.Cout/g.Groups
	for ky := range g.KH {
		iy := top + ky*g.dilH()
		if iy < 0 || iy >= g.H {
			continue
		}
		for kx := range g.KW {
			ix := left + kx*g.dilW()
			if ix < 0 || ix >= g.W {
				continue
			}
			cell, tap := img[(iy*g.W+ix)*g.Cin:][:g.Cin], w[(ky*g.KW+kx)*in*g.Cout:]
			for c, v := range cell {
				if v == 0 {
					continue
				}
				group := c / in
				row := tap[c%in*g.Cout+group*out:][:out]
				sums := acc[group*out:][:out]
				for o, weight := range row {
					sums[o] += int64(int32(v) * int32(weight))
				}
			}
		}
	}
}
