package kernel

// ConvForward computes n images of a float32 convolution:
//
//	y[i,oy,ox,co] = bias[co] + sum_{kh,kw,ci} x[i, oy*StrideH-PadTop+kh*d, ox*StrideW-PadLeft+kw*d, ci] * w[kh,kw,ci,co]
//
// Cells outside the image are zero. bias may be nil. The bias is added after
// the sum.
func ConvForward(y, x, w, bias []float32, n int, g ConvGeom, s *Scratch) {
	active.convForward(y, x, w, bias, n, g, s)
}

// ConvBackwardInput computes the gradient of x from that of y; dx is
// overwritten.
func ConvBackwardInput(dx, dy, w []float32, n int, g ConvGeom, s *Scratch) {
	active.convBackwardInput(dx, dy, w, n, g, s)
}

// FlipWeights arranges w as the input gradient reads it; dst has w's size and
// an order of its own. Callers that cut a batch into shards flip once for all
// of them and call ConvBackwardInputFlipped, with the same bits as
// ConvBackwardInput.
func FlipWeights(dst, w []float32, g ConvGeom) { active.flipWeights(dst, w, g) }

// ConvBackwardInputFlipped is ConvBackwardInput with weights from FlipWeights.
func ConvBackwardInputFlipped(dx, dy, flipped []float32, n int, g ConvGeom, s *Scratch) {
	active.convBackwardInputFlipped(dx, dy, flipped, n, g, s)
}

// ConvBackwardWeight computes the gradient of w from x and the gradient of y,
// images in order; it adds to dw when accumulate is set. The sum over images
// makes it a reduction: shard it with one dw per shard. The bias gradient is
// SumColumns of dy.
func ConvBackwardWeight(dw, x, dy []float32, n int, g ConvGeom, accumulate bool, s *Scratch) {
	active.convBackwardWeight(dw, x, dy, n, g, accumulate, s)
}

// Dense convolutions are those of one group. A group reads and writes its
// channels in place, between those of the others, and its weights are columns
// of w; only images that the tiles walk are copied, with their padding.

func (t *isa) convForward(y, x, w, bias []float32, n int, g ConvGeom, s *Scratch) {
	in, out, k := g.inSize(), g.outSize(), g.Depth()
	each, pixels := g.group(), g.OutH()*g.OutW()
	y, x, w = y[:n*out], x[:n*in], w[:g.weightSize()]
	switch {
	case g.depthwise():
		t.depthwiseForward(y, x, w, n, g)
	case g.pointwise():
		for i := range g.Groups {
			t.gemm(y[i*each.Cout:], g.Cout, x[i*k:], g.Cin, false, w[i*each.Cout:], g.Cout, false, n*pixels, each.Cout, k, false, s)
		}
	default:
		for image := range n {
			for i := range g.Groups {
				xi, yi, wi := x[image*in:][:in][i*each.Cin:], y[image*out:][:out][i*each.Cout:], w[i*each.Cout:]
				if t.f32 != nil && each.direct() {
					t.f32.forward(yi, padImage(&s.cols, xi, g.Cin, 0, each), wi, g.Cout, each)
					continue
				}
				cols := grow(&s.cols, pixels*k)
				im2col(cols, k, xi, g.Cin, 0, each)
				t.gemm(yi, g.Cout, cols, k, false, wi, g.Cout, false, pixels, each.Cout, k, false, s)
			}
		}
	}
	if bias != nil {
		AddBias(y, y, bias, g.Cout)
	}
}

func (t *isa) convBackwardInput(dx, dy, w []float32, n int, g ConvGeom, s *Scratch) {
	w = w[:g.weightSize()]
	if g.pointwise() && !g.depthwise() {
		dx, dy = dx[:n*g.inSize()], dy[:n*g.outSize()]
		each, pixels := g.group(), g.OutH()*g.OutW()
		for i := range g.Groups {
			t.gemm(dx[i*each.Cin:], g.Cin, dy[i*each.Cout:], g.Cout, false, w[i*each.Cout:], g.Cout, true, n*pixels, each.Cin, each.Cout, false, s)
		}
		return
	}
	flipped := grow(&s.flip, len(w))
	t.flipWeights(flipped, w, g)
	t.convBackwardInputFlipped(dx, dy, flipped, n, g, s)
}

// flipWeights swaps the channel axes of every tap, group by group: phase by
// phase with the taps reversed for geometries whose gradient is convolutions,
// in order where it is a product and col2im. Depthwise convolutions read w as
// it is.
func (t *isa) flipWeights(dst, w []float32, g ConvGeom) {
	w, dst = w[:g.weightSize()], dst[:g.weightSize()]
	if g.depthwise() {
		copy(dst, w)
		return
	}
	each := g.group()
	for i := range g.Groups {
		t.flipGroup(dst[i*each.weightSize():][:each.weightSize()], w[i*each.Cout:], g.Cout, each)
	}
}

// flipGroup is flipWeights of one group, the rows of w being ld apart.
func (t *isa) flipGroup(dst, w []float32, ld int, g ConvGeom) {
	if _, ok := t.inputGeom(g); !ok {
		t.transpose(dst, g.Depth(), w, ld, g.Depth(), g.Cout)
		return
	}
	size := g.Cin * g.Cout
	for i := range g.phases() {
		y, x := g.phase(i)
		if y.count <= 0 || x.count <= 0 {
			continue
		}
		for kh := y.last; kh >= 0; kh -= g.StrideH {
			for kw := x.last; kw >= 0; kw -= g.StrideW {
				t.transpose(dst[:size], g.Cin, w[(kh*g.KW+kw)*g.Cin*ld:], ld, g.Cin, g.Cout)
				dst = dst[size:]
			}
		}
	}
}

func (t *isa) convBackwardInputFlipped(dx, dy, flipped []float32, n int, g ConvGeom, s *Scratch) {
	in, out, k := g.inSize(), g.outSize(), g.Depth()
	each, pixels := g.group(), g.OutH()*g.OutW()
	dx, dy, flipped = dx[:n*in], dy[:n*out], flipped[:g.weightSize()]
	if g.depthwise() {
		t.depthwiseBackwardInput(dx, dy, flipped, n, g)
		return
	}
	if g.pointwise() {
		for i := range g.Groups {
			t.gemm(dx[i*k:], g.Cin, dy[i*each.Cout:], g.Cout, false, flipped[i*each.weightSize():], k, false, n*pixels, k, each.Cout, false, s)
		}
		return
	}
	f, ok := t.inputGeom(each)
	if !ok || g.StrideH > g.KH || g.StrideW > g.KW { // sums, or phases without taps
		clear(dx)
	}
	for image := range n {
		for i := range g.Groups {
			xi, yi, wi := dx[image*in:][:in][i*each.Cin:], dy[image*out:][:out][i*each.Cout:], flipped[i*each.weightSize():]
			if ok {
				t.f32.backwardInput(xi, g.Cin, padImage(&s.cols, yi, g.Cout, 0, f), wi, each, f)
				continue
			}
			cols := grow(&s.cols, pixels*k)
			t.gemm(cols, k, yi, g.Cout, false, wi, k, false, pixels, k, each.Cout, false, s)
			col2im(xi, g.Cin, cols, k, each)
		}
	}
}

func (t *isa) convBackwardWeight(dw, x, dy []float32, n int, g ConvGeom, accumulate bool, s *Scratch) {
	in, out, k := g.inSize(), g.outSize(), g.Depth()
	each, pixels := g.group(), g.OutH()*g.OutW()
	dw, x, dy = dw[:g.weightSize()], x[:n*in], dy[:n*out]
	if !accumulate {
		clear(dw)
	}
	if g.depthwise() {
		t.depthwiseBackwardWeight(dw, x, dy, n, g)
		return
	}
	for image := range n {
		for i := range g.Groups {
			xi, yi, wi := x[image*in:][:in][i*each.Cin:], dy[image*out:][:out][i*each.Cout:], dw[i*each.Cout:]
			if t.f32 != nil && each.direct() && !g.pointwise() {
				t.f32.backwardWeight(wi, padImage(&s.cols, xi, g.Cin, 0, each), yi, g.Cout, each)
				continue
			}
			cols, ld := xi, g.Cin
			if !g.pointwise() {
				cols, ld = grow(&s.cols, pixels*k), k
				im2col(cols, k, xi, g.Cin, 0, each)
			}
			t.gemm(wi, g.Cout, cols, ld, true, yi, g.Cout, false, k, each.Cout, pixels, true, s)
		}
	}
}
