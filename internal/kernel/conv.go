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

func (t *isa) convForward(y, x, w, bias []float32, n int, g ConvGeom, s *Scratch) {
	in, out, k := g.inSize(), g.outSize(), g.Depth()
	pixels := g.OutH() * g.OutW()
	y, x, w = y[:n*out], x[:n*in], w[:g.weightSize()]
	switch {
	case g.Groups > 1:
		t.groupForward(y, x, w, n, g)
	case g.pointwise():
		t.gemm(y, g.Cout, x, k, false, w, g.Cout, false, n*pixels, g.Cout, k, false, s)
	case t.f32 != nil && g.direct():
		for i := range n {
			t.f32.forward(y[i*out:][:out], padImage(&s.cols, x[i*in:][:in], 0, g), w, g)
		}
	default:
		cols := grow(&s.cols, pixels*k)
		for i := range n {
			im2col(cols, k, x[i*in:][:in], 0, g)
			t.gemm(y[i*out:], g.Cout, cols, k, false, w, g.Cout, false, pixels, g.Cout, k, false, s)
		}
	}
	if bias != nil {
		AddBias(y, y, bias, g.Cout)
	}
}

func (t *isa) convBackwardInput(dx, dy, w []float32, n int, g ConvGeom, s *Scratch) {
	w = w[:g.weightSize()]
	if g.pointwise() && g.Groups == 1 {
		k := g.Depth()
		pixels := g.OutH() * g.OutW()
		t.gemm(dx[:n*g.inSize()], k, dy[:n*g.outSize()], g.Cout, false, w, g.Cout, true, n*pixels, k, g.Cout, false, s)
		return
	}
	flipped := grow(&s.flip, len(w))
	t.flipWeights(flipped, w, g)
	t.convBackwardInputFlipped(dx, dy, flipped, n, g, s)
}

// flipWeights swaps the channel axes of every tap: phase by phase with the taps
// reversed for geometries whose gradient is convolutions, in order where it is
// a product and col2im. Grouped convolutions read w as it is.
func (t *isa) flipWeights(dst, w []float32, g ConvGeom) {
	w, dst = w[:g.weightSize()], dst[:g.weightSize()]
	if g.Groups > 1 {
		copy(dst, w)
		return
	}
	if _, ok := t.inputGeom(g); !ok {
		t.transpose(dst, g.Depth(), w, g.Cout, g.Depth(), g.Cout)
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
				t.transpose(dst[:size], g.Cin, w[(kh*g.KW+kw)*size:][:size], g.Cout, g.Cin, g.Cout)
				dst = dst[size:]
			}
		}
	}
}

func (t *isa) convBackwardInputFlipped(dx, dy, flipped []float32, n int, g ConvGeom, s *Scratch) {
	in, out, k := g.inSize(), g.outSize(), g.Depth()
	pixels := g.OutH() * g.OutW()
	dx, dy, flipped = dx[:n*in], dy[:n*out], flipped[:g.weightSize()]
	if g.pointwise() && g.Groups == 1 {
		t.gemm(dx, k, dy, g.Cout, false, flipped, k, false, n*pixels, k, g.Cout, false, s)
		return
	}
	if f, ok := t.inputGeom(g); ok {
		for i := range n {
			t.f32.backwardInput(dx[i*in:][:in], padImage(&s.cols, dy[i*out:][:out], 0, f), flipped, g, f)
		}
		return
	}
	if g.Groups > 1 {
		t.groupBackwardInput(dx, dy, flipped, n, g)
		return
	}
	clear(dx)
	cols := grow(&s.cols, pixels*k)
	for i := range n {
		t.gemm(cols, k, dy[i*out:], g.Cout, false, flipped, k, false, pixels, k, g.Cout, false, s)
		col2im(dx[i*in:][:in], cols, k, g)
	}
}

func (t *isa) convBackwardWeight(dw, x, dy []float32, n int, g ConvGeom, accumulate bool, s *Scratch) {
	in, out, k := g.inSize(), g.outSize(), g.Depth()
	pixels := g.OutH() * g.OutW()
	dw, x, dy = dw[:g.weightSize()], x[:n*in], dy[:n*out]
	if !accumulate {
		clear(dw)
	}
	if g.Groups > 1 {
		t.groupBackwardWeight(dw, x, dy, n, g)
		return
	}
	if t.f32 != nil && g.direct() && !g.pointwise() {
		for i := range n {
			t.f32.backwardWeight(dw, padImage(&s.cols, x[i*in:][:in], 0, g), dy[i*out:][:out], g)
		}
		return
	}
	cols := x
	if !g.pointwise() {
		cols = grow(&s.cols, pixels*k)
	}
	for i := range n {
		if g.pointwise() {
			cols = x[i*in:]
		} else {
			im2col(cols, k, x[i*in:][:in], 0, g)
		}
		t.gemm(dw, g.Cout, cols, k, true, dy[i*out:], g.Cout, false, k, g.Cout, pixels, true, s)
	}
}
