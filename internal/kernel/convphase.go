package kernel

// The gradient of a convolution's inputs is convolutions of dy: with stride 1
// one, else one for each phase, which is the inputs whose places, with the
// padding, leave the same remainders when divided by the strides. Each reads
// the taps that meet such inputs, last ones first.

// backward is such a convolution along one axis: it makes count inputs first,
// first+stride, ..., and its kernel is the taps last, last-stride, .... Its
// padding before may be negative, as may that after.
type backward struct{ first, count, last, taps, before, after int }

// phases is how many there are.
func (g ConvGeom) phases() int { return g.StrideH * g.StrideW }

// phase is the convolution of phase i along both axes. An axis has no dilation,
// or stride 1.
func (g ConvGeom) phase(i int) (y, x backward) {
	y = backwardAxis(i/g.StrideW, g.H, g.KH, g.StrideH, g.dilH(), g.PadTop, g.OutH())
	x = backwardAxis(i%g.StrideW, g.W, g.KW, g.StrideW, g.dilW(), g.PadLeft, g.OutW())
	return y, x
}

// backwardAxis is the convolution for remainder r.
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
