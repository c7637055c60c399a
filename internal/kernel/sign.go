package kernel

// Gradients of grids with even levels, of which a sign is the smallest.

// SlopeGrad writes dx = dy * slope(x/scale[c]), one scale for all or one per
// channel of the last axis. dx may be dy.
func SlopeGrad(dx, dy, x, scale []float32, slope func(t float32) float32) {
	rows(len(x), len(scale))
	dx, dy = dx[:len(x)], dy[:len(x)]
	c := 0
	for i, v := range x {
		dx[i] = dy[i] * slope(v/scale[c])
		if c++; c == len(scale) {
			c = 0
		}
	}
}

// ApproxSignSlope is 2-2|t| where |t| <= 1 and 0 elsewhere (arXiv:1808.00278).
func ApproxSignSlope(t float32) float32 {
	if t < 0 {
		t = -t
	}
	if !(t <= 1) {
		return 0
	}
	return 2 - 2*t
}

// SwishSignSlope is b*(2 - b*t*tanh(b*t/2)) / (1 + cosh(b*t)) with b = 5
// (arXiv:1812.11800).
func SwishSignSlope(t float32) float32 {
	const b = 5
	u := float64(b * float64(t))
	if u < 0 {
		u = -u // the slope is even
	}
	e := Exp(-u) // tanh(u/2) = (1-e)/(1+e), 1+cosh(u) = (1+e)^2/(2e)
	inner := 2 - float64(u*((1-e)/(1+e)))
	return float32(b * inner * 2 * e / float64((1+e)*(1+e)))
}

// ScaleGradEven writes, per channel of the last axis, the gradient of a learned
// scale of even levels before its factor g: sum dy * { -hi below, hi above,
// q-t inside }, where t = x/scale, q is the odd integer nearest to it, and
// inside is where the straight-through estimator passes: where q is a level or,
// of a sign, |t| <= 1.
func ScaleGradEven(dst []float64, dy, x, scale []float32, hi int32) {
	rows(len(x), len(scale))
	dst, dy = dst[:len(scale)], dy[:len(x)]
	clear(dst)
	top, edge := float32(hi), float32(hi)+1
	if hi == 1 {
		edge = 1
	}
	c := 0
	for i, v := range x {
		dst[c] += float64(dy[i] * evenSlope(v/scale[c], top, edge))
		if c++; c == len(scale) {
			c = 0
		}
	}
}

// evenSlope is the derivative of s*code(x/s) by s at t = x/s.
func evenSlope(t, top, edge float32) float32 {
	switch {
	case t >= edge:
		return top
	case t < -edge:
		return -top
	}
	q := int32(t) // towards zero, at most a byte
	if float32(q) > t {
		q--
	}
	return float32(q>>1<<1+1) - t
}
