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

// FlipWeights arranges w as the input gradient reads it; dst has FlippedSize
// elements and an order of its own. Callers that cut a batch into shards flip
// once for all of them and call ConvBackwardInputFlipped, with the same bits as
// ConvBackwardInput.
func FlipWeights(dst, w []float32, g ConvGeom, s *Scratch) { active.flipWeights(dst, w, g, s) }

// FlippedSize returns how many elements FlipWeights writes.
func FlippedSize(g ConvGeom) int { return active.flippedSize(g) }

// ConvBackwardInputFlipped is ConvBackwardInput with weights from FlipWeights.
func ConvBackwardInputFlipped(dx, dy, flipped []float32, n int, g ConvGeom, s *Scratch) {
	active.convBackwardInputFlipped(dx, dy, flipped, n, g, s)
}

// ConvBackwardWeight computes a part of the gradient of w from x and the
// gradient of y, images in order; it adds to part when accumulate is set. The
// sum over images makes it a reduction: shard it with one part per shard, of
// FlippedSize elements in an order of its own, and join them by
// JoinWeightParts. The bias gradient is SumColumns of dy.
func ConvBackwardWeight(part, x, dy []float32, n int, g ConvGeom, accumulate bool, s *Scratch) {
	active.convBackwardWeight(part, x, dy, n, g, accumulate, s)
}

// ConvBackwardWeightCodes is ConvBackwardWeight of one image of codes, whose
// values are scale*(x-zero), to the same bits.
func ConvBackwardWeightCodes(part []float32, x []uint8, scale float32, zero int32, dy []float32, g ConvGeom, accumulate bool, s *Scratch) {
	active.convBackwardWeightCodes(part, x, scale, zero, dy, g, accumulate, s)
}

// JoinWeightParts makes the gradient dw of w from parts, added in order: of
// every tap's Cin/Groups*Cout weights those of [lo, hi).
func JoinWeightParts(dw []float32, parts [][]float32, g ConvGeom, lo, hi int, s *Scratch) {
	active.joinWeightParts(dw, parts, g, lo, hi, s)
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
	flipped := grow(&s.flip, t.flippedSize(g))
	t.flipWeights(flipped, w, g, s)
	t.convBackwardInputFlipped(dx, dy, flipped, n, g, s)
}

// flippedSize is also the size of a part of dw.
func (t *isa) flippedSize(g ConvGeom) int {
	if t.winograd(g) {
		return g.winogradSize()
	}
	return g.weightSize()
}

// flipWeights swaps the channel axes of every tap, group by group: phase by
// phase with the taps reversed for geometries whose gradient is convolutions,
// in order where it is a product and col2im. Depthwise convolutions read w as
// it is, and Winograd's are transformed.
func (t *isa) flipWeights(dst, w []float32, g ConvGeom, s *Scratch) {
	w, dst = w[:g.weightSize()], dst[:t.flippedSize(g)]
	switch {
	case g.depthwise():
		copy(dst, w)
		return
	case t.winograd(g):
		t.winogradFlip(dst, w, g, s)
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
	dx, dy, flipped = dx[:n*in], dy[:n*out], flipped[:t.flippedSize(g)]
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
	if t.winograd(g) {
		for image := range n {
			t.winogradInput(dx[image*in:][:in], dy[image*out:][:out], flipped, g, s)
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

func (t *isa) convBackwardWeight(part, x, dy []float32, n int, g ConvGeom, accumulate bool, s *Scratch) {
	in, out, k := g.inSize(), g.outSize(), g.Depth()
	each, pixels := g.group(), g.OutH()*g.OutW()
	part, x, dy = part[:t.flippedSize(g)], x[:n*in], dy[:n*out]
	if t.walksWeight(g) && n > 0 {
		for image := range n {
			t.paddedBackwardWeight(part, padImage(&s.cols, x[image*in:][:in], g.Cin, 0, g), dy[image*out:][:out], accumulate || image > 0, g, s)
		}
		return
	}
	if !accumulate {
		clear(part)
	}
	if g.depthwise() {
		t.depthwiseBackwardWeight(part, x, dy, n, g)
		return
	}
	for image := range n {
		for i := range g.Groups {
			xi, yi, wi := x[image*in:][:in][i*each.Cin:], dy[image*out:][:out][i*each.Cout:], part[i*each.Cout:]
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

// walksWeight reports a convolution of one group whose weight gradient reads a padded image in place.
func (t *isa) walksWeight(g ConvGeom) bool {
	return t.f32 != nil && g.Groups == 1 && !g.depthwise() && !g.pointwise() && (g.direct() || t.winograd(g))
}

// paddedBackwardWeight is convBackwardWeight of such a convolution and one image with its padding.
func (t *isa) paddedBackwardWeight(part, img, dy []float32, add bool, g ConvGeom, s *Scratch) {
	if t.winograd(g) {
		t.winogradWeight(part, img, dy, add, g, s)
		return
	}
	if !add {
		clear(part)
	}
	t.f32.backwardWeight(part, img, dy, g.Cout, g)
}

func (t *isa) convBackwardWeightCodes(part []float32, x []uint8, scale float32, zero int32, dy []float32, g ConvGeom, accumulate bool, s *Scratch) {
	one := [1]float32{scale}
	x = x[:g.inSize()]
	if !t.walksWeight(g) {
		values := grow(&s.values, len(x))
		t.dequantizeU8(values, x, one[:], zero)
		t.convBackwardWeight(part, values, dy, 1, g, accumulate, s)
		return
	}
	x = padImage(&s.bytes, x, g.Cin, uint8(zero), g)
	img := grow(&s.cols, len(x))
	t.dequantizeU8(img, x, one[:], zero)
	t.paddedBackwardWeight(part[:t.flippedSize(g)], img, dy[:g.outSize()], accumulate, g, s)
}

func (t *isa) joinWeightParts(dw []float32, parts [][]float32, g ConvGeom, lo, hi int, s *Scratch) {
	n := g.weightSize() / (g.KH * g.KW)
	dw = dw[:g.weightSize()]
	_ = dw[:n][lo:hi]
	add := func(dst []float32, at int) { // the parts' elements from at on
		copy(dst, parts[0][at:][:len(dst)])
		for _, p := range parts[1:] {
			t.add(dst, dst, p[at:][:len(dst)])
		}
	}
	if !t.winograd(g) {
		for i := range g.KH * g.KW {
			add(dw[i*n:][lo:hi], i*n+lo)
		}
		return
	}
	m := hi - lo
	sums := grow(&s.sum, winogradPlanes*m)
	for i := range winogradPlanes {
		add(sums[i*m:][:m], i*n+lo)
	}
	t.winogradJoin(dw[lo:], n, sums, m)
}
