package kernel

// ReLU writes y = max(x, 0). A NaN stays NaN, -0 becomes 0. y may be x.
func ReLU(y, x []float32) { active.relu(y, x) }

// ReLUGrad writes dx = dy where y > 0, else 0; y is the output of ReLU. dx may
// be dy.
func ReLUGrad(dx, dy, y []float32) { active.reluGrad(dx, dy, y) }

// AddBias writes y = x + bias[c] along the last axis. y may be x.
func AddBias(y, x, bias []float32, channels int) { active.addBias(y, x, bias, channels) }

// AddBiasReLU writes y = ReLU(x + bias[c]). y may be x.
func AddBiasReLU(y, x, bias []float32, channels int) {
	active.addBias(y, x, bias, channels)
	active.relu(y[:len(x)], y[:len(x)])
}

// Add writes dst = a + b. dst may be a or b.
func Add(dst, a, b []float32) { active.add(dst, a, b) }

func (t *isa) add(dst, a, b []float32) {
	dst, b = dst[:len(a)], b[:len(a)]
	for i := t.addVec(dst, a, b); i < len(a); i++ {
		dst[i] = a[i] + b[i]
	}
}

// AddReLU writes y = ReLU(a + b), and sets the mask bits of what is positive:
// where the gradient passes. y may be a or b.
func AddReLU(y []float32, mask []uint8, a, b []float32) { active.addReLU(y, mask, a, b) }

func (t *isa) addReLU(y []float32, mask []uint8, a, b []float32) {
	y, b, mask = y[:len(a)], b[:len(a)], mask[:MaskLen(len(a))]
	m := maskBits{mask: mask}
	for i := t.addReLUVec(y, mask, a, b); i < len(a); i++ {
		v := a[i] + b[i]
		if v <= 0 {
			v = 0
		}
		y[i] = v
		m.put(i, v > 0)
	}
	if len(a)&7 != 0 {
		m.flush(len(a))
	}
}

// Scale writes dst = f*x. dst may be x.
func Scale(dst, x []float32, f float32) { active.scale(dst, x, f) }

func (t *isa) scale(dst, x []float32, f float32) {
	dst = dst[:len(x)]
	for i := t.scaleVec(dst, x, f); i < len(x); i++ {
		dst[i] = f * x[i]
	}
}

// Axpy adds f*x to dst, product and sum rounded one after the other.
func Axpy(dst, x []float32, f float32) {
	dst = dst[:len(x)]
	for i, v := range x {
		dst[i] += float32(f * v)
	}
}

func (t *isa) relu(y, x []float32) {
	y = y[:len(x)]
	for i := t.reluVec(y, x); i < len(x); i++ {
		v := x[i]
		if v <= 0 {
			v = 0
		}
		y[i] = v
	}
}

func (t *isa) reluGrad(dx, dy, y []float32) {
	dx, dy = dx[:len(y)], dy[:len(y)]
	for i := t.reluGradVec(dx, dy, y); i < len(y); i++ {
		if y[i] > 0 {
			dx[i] = dy[i]
		} else {
			dx[i] = 0
		}
	}
}

func (t *isa) addBias(y, x, bias []float32, channels int) {
	rows(len(x), channels)
	y, bias = y[:len(x)], bias[:channels]
	done := t.addBiasVec(y, x, bias)
	for i, c := done, done%channels; i < len(x); i++ {
		y[i] = x[i] + bias[c]
		if c++; c == channels {
			c = 0
		}
	}
}
