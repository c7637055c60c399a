package kernel

// ConvU8S8 computes the raw integer sums of a convolution of u8 codes with s8
// weights packed by PackS8(w, g.Depth(), g.Cout):
//
//	acc[i,oy,ox,co] = sum q * w
//
// Cells outside the image hold the code zero, the input's zero point, so that
// the sum over (q-zero)*w is acc - zero*w.ColSums[co], exactly.
func ConvU8S8(acc []int32, x []uint8, zero uint8, w *PackedS8, n int, g ConvGeom, s *Scratch) {
	active.convU8S8(acc, x, zero, w, n, g, s)
}

// ConvU8S8Requant is ConvU8S8 followed by RequantRows, image by image.
func ConvU8S8Requant(dst []uint8, x []uint8, xZero uint8, w *PackedS8, bias []int32, mult []float32, zero, lo, hi int32, n int, g ConvGeom, s *Scratch) {
	active.convU8S8Requant(dst, x, xZero, w, bias, mult, zero, lo, hi, n, g, s)
}

func (t *isa) convU8S8(acc []int32, x []uint8, zero uint8, w *PackedS8, n int, g ConvGeom, s *Scratch) {
	in, out, k := g.inSize(), g.outSize(), g.Depth()
	pixels := g.OutH() * g.OutW()
	acc, x = acc[:n*out], x[:n*in]
	checkPacked(w, g)
	switch {
	case g.depthwise():
		t.depthwiseU8(acc, nil, x, zero, w.raw, n, g, s)
	case g.Groups > 1:
		t.groupForwardU8(acc, x, zero, w.raw, n, g)
	case g.pointwise():
		t.gemmU8S8(acc, g.Cout, x, k, w, n*pixels, 0, w.N)
	case t.s8 != nil && g.direct():
		t.convDirect(acc, nil, x, zero, w, n, g, s)
	default:
		ld := (k + 3) &^ 3
		cols := grow(&s.bytes, pixels*ld)
		for i := range n {
			im2col(cols, ld, x[i*in:][:in], zero, g)
			t.gemmU8S8(acc[i*out:][:out], g.Cout, cols, ld, w, pixels, 0, w.N)
		}
	}
}

func (t *isa) convU8S8Requant(dst []uint8, x []uint8, xZero uint8, w *PackedS8, bias []int32, mult []float32, zero, lo, hi int32, n int, g ConvGeom, s *Scratch) {
	in, out := g.inSize(), g.outSize()
	dst, x = dst[:n*out], x[:n*in]
	checkPacked(w, g)
	switch {
	case bias == nil:
	case g.depthwise():
		t.depthwiseU8(nil, s.requant(rowRequant{dst: dst, bias: bias[:g.Cout], m: mult[:g.Cout], zero: zero, lo: lo, hi: hi}), x, xZero, w.raw, n, g, s)
		return
	case g.pointwise() && g.Groups == 1:
		t.gemmU8S8Requant(dst, x, g.Cin, w, bias, mult, zero, lo, hi, out/g.Cout*n, s)
		return
	case t.s8 != nil && t.s8.codes != nil && g.direct():
		t.convDirect(nil, s.requant(rowRequant{dst: dst, bias: bias[:g.Cout], m: mult[:g.Cout], zero: zero, lo: lo, hi: hi}), x, xZero, w, n, g, s)
		return
	}
	acc := grow(&s.acc, out)
	for i := range n {
		t.convU8S8(acc, x[i*in:][:in], xZero, w, 1, g, s)
		t.requantRows(dst[i*out:][:out], acc, bias, mult, zero, lo, hi, g.Cout)
	}
}

// ConvU8S8Values is ConvU8S8 followed by ScaleRows: dst = float32(acc+offset)*m.
func ConvU8S8Values(dst []float32, x []uint8, zero uint8, w *PackedS8, offset []int32, m []float32, n int, g ConvGeom, s *Scratch) {
	active.convU8S8Values(dst, x, zero, w, offset, m, n, g, s)
}

func (t *isa) convU8S8Values(dst []float32, x []uint8, zero uint8, w *PackedS8, offset []int32, m []float32, n int, g ConvGeom, s *Scratch) {
	in, out := g.inSize(), g.outSize()
	dst, x, offset, m = dst[:n*out], x[:n*in], offset[:g.Cout], m[:g.Cout]
	checkPacked(w, g)
	if t.s8 != nil && t.s8.values != nil && g.direct() && !g.pointwise() {
		t.convDirect(nil, s.requant(rowRequant{values: dst, bias: offset, m: m}), x, zero, w, n, g, s)
		return
	}
	acc := grow(&s.acc, out)
	for i := range n {
		t.convU8S8(acc, x[i*in:][:in], zero, w, 1, g, s)
		t.scaleRows(dst[i*out:][:out], acc, offset, m, g.Cout)
	}
}

// checkPacked stops a caller that packed weights for another geometry before
// a kernel reads them.
func checkPacked(w *PackedS8, g ConvGeom) {
	if w.K != g.Depth() || w.N != g.Cout {
		panic("kernel: packed weights do not have the convolution's shape")
	}
}

// groupForwardU8 sums over all taps; those outside the image read the zero
// point.
func (t *isa) groupForwardU8(acc []int32, x []uint8, zero uint8, w []int8, n int, g ConvGeom) {
	outH, outW := g.OutH(), g.OutW()
	gi, per := g.Cin/g.Groups, g.Cout/g.Groups
	for i := range n {
		for oy := range outH {
			for ox := range outW {
				row := acc[((i*outH+oy)*outW+ox)*g.Cout:][:g.Cout]
				clear(row)
				for kh := range g.KH {
					for kw := range g.KW {
						iy := oy*g.StrideH - g.PadTop + kh*g.dilH()
						ix := ox*g.StrideW - g.PadLeft + kw*g.dilW()
						var cell []uint8
						if iy >= 0 && iy < g.H && ix >= 0 && ix < g.W {
							cell = x[((i*g.H+iy)*g.W+ix)*g.Cin:][:g.Cin]
						}
						t.tapU8(row, cell, zero, w[(kh*g.KW+kw)*gi*g.Cout:][:gi*g.Cout], gi, per)
					}
				}
			}
		}
	}
}

// tapU8 adds one tap of a grouped convolution: gi input and per output
// channels in a group. A nil cell lies outside the image.
func (t *isa) tapU8(row []int32, cell []uint8, zero uint8, w []int8, gi, per int) {
	switch {
	case cell == nil:
		z := int32(zero)
		for c := range gi {
			for j, v := range w[c*len(row):][:len(row)] {
				row[j] += z * int32(v)
			}
		}
	default:
		for c := range gi {
			for j, v := range w[c*len(row):][:len(row)] {
				row[j] += int32(cell[j/per*gi+c]) * int32(v)
			}
		}
	}
}
