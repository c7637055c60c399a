package kernel

// ConvU8S8 computes the raw integer sums of a convolution of u8 codes with s8
// weights packed by PackS8(w, g.Depth(), g.Cout):
//
//	acc[i,oy,ox,co] = sum q * w
//
// Groups that are neither one nor depthwise are packed on each call unless
// PackConvS8 packed w.
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
	each, pixels := g.group(), g.OutH()*g.OutW()
	acc, x = acc[:n*out], x[:n*in]
	checkPacked(w, g)
	w = t.groupsOf(w, g, s)
	switch {
	case g.depthwise():
		t.depthwiseU8(acc, nil, x, zero, w.raw, n, g, s)
	case g.wholeRows():
		for i := range g.Groups {
			t.gemmU8S8(acc[i*each.Cout:], g.Cout, x[i*k:], g.Cin, w.group(i, g), n*pixels, 0, each.Cout, s)
		}
	case t.s8 != nil && each.direct() && !g.pointwise():
		t.convDirect(acc, nil, x, zero, w, n, g, s)
	default:
		ld := (k + 3) &^ 3
		cols := grow(&s.bytes, pixels*ld)
		for image := range n {
			for i := range g.Groups {
				im2col(cols, ld, x[image*in:][:in][i*each.Cin:], g.Cin, zero, each)
				t.gemmU8S8(acc[image*out:][:out][i*each.Cout:], g.Cout, cols, ld, w.group(i, g), pixels, 0, each.Cout, s)
			}
		}
	}
}

func (t *isa) convU8S8Requant(dst []uint8, x []uint8, xZero uint8, w *PackedS8, bias []int32, mult []float32, zero, lo, hi int32, n int, g ConvGeom, s *Scratch) {
	in, out := g.inSize(), g.outSize()
	each, pixels := g.group(), out/g.Cout
	dst, x = dst[:n*out], x[:n*in]
	checkPacked(w, g)
	w = t.groupsOf(w, g, s)
	if bias != nil {
		rq := s.requant(rowRequant{dst: dst, bias: bias[:g.Cout], m: mult[:g.Cout], zero: zero, lo: lo, hi: hi})
		switch tiles := t.s8 != nil; {
		case g.depthwise():
			t.depthwiseU8(nil, rq, x, xZero, w.raw, n, g, s)
			return
		case g.pointwise() && g.Groups == 1:
			t.gemmU8S8Requant(dst, x, g.Cin, w, bias, mult, zero, lo, hi, n*pixels, s)
			return
		case g.wholeRows() && tiles:
			for i := range g.Groups {
				rq.first = i * each.Cout
				wi := w.group(i, g)
				wi.tiles.gemm(nil, rq, g.Cout, x[i*each.Cin:], g.Cin, wi, n*pixels, 0, each.Cout, s)
			}
			return
		case tiles && each.direct() && !g.pointwise():
			t.convDirect(nil, rq, x, xZero, w, n, g, s)
			return
		}
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
	w = t.groupsOf(w, g, s)
	if t.s8 != nil && g.group().direct() && !g.pointwise() && !g.depthwise() {
		t.convDirect(nil, s.requant(rowRequant{values: dst, bias: offset, m: m}), x, zero, w, n, g, s)
		return
	}
	acc := grow(&s.acc, out)
	for i := range n {
		t.convU8S8(acc, x[i*in:][:in], zero, w, 1, g, s)
		t.scaleRows(dst[i*out:][:out], acc, offset, m, g.Cout)
	}
}

// wholeRows reports a product whose rows of codes are read where they are: those
// of groups have at least the four codes that tiles read at a time.
func (g ConvGeom) wholeRows() bool {
	return g.pointwise() && (g.Groups == 1 || g.Cin/g.Groups >= 4)
}

// checkPacked stops a caller that packed weights for another geometry before
// a kernel reads them.
func checkPacked(w *PackedS8, g ConvGeom) {
	if w.K != g.Depth() || w.N != g.Cout {
		panic("kernel: packed weights do not have the convolution's shape")
	}
}
