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
			t.f32.forward(y[i*out:][:out], padImage(&s.cols, x[i*in:][:in], 0, g), w, g.Cout, g)
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
	in, out, k := g.inSize(), g.outSize(), g.Depth()
	pixels := g.OutH() * g.OutW()
	dx, dy, w = dx[:n*in], dy[:n*out], w[:g.weightSize()]
	if g.pointwise() && g.Groups == 1 {
		t.gemm(dx, k, dy, g.Cout, false, w, g.Cout, true, n*pixels, k, g.Cout, false, s)
		return
	}
	if f, ok := g.inputGeom(); ok && t.f32 != nil {
		flip := grow(&s.flip, len(w))
		t.flipWeights(flip, w, g)
		for i := range n {
			t.f32.forward(dx[i*in:][:in], padImage(&s.cols, dy[i*out:][:out], 0, f), flip, g.Cin, f)
		}
		return
	}
	clear(dx)
	if g.Groups > 1 {
		t.groupBackwardInput(dx, dy, w, n, g)
		return
	}
	flip := grow(&s.flip, len(w))
	t.transpose(flip, k, w, g.Cout, k, g.Cout)
	cols := grow(&s.cols, pixels*k)
	for i := range n {
		t.gemm(cols, k, dy[i*out:], g.Cout, false, flip, k, false, pixels, k, g.Cout, false, s)
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
