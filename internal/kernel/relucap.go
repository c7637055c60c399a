package kernel

// ReLU6 and its kin: a ReLU with an upper limit.

// ReLUCap writes y = min(max(x, 0), limit). A NaN stays NaN, -0 becomes 0. y may be x.
func ReLUCap(y, x []float32, limit float32) {
	active.scaleShift(y, x, nil, nil, 0, After{ReLU: true, Limit: limit})
}

// ReLUCapGrad writes dx = dy where 0 < y < limit, else 0; y is the output of ReLUCap. dx may be dy.
func ReLUCapGrad(dx, dy, y []float32, limit float32) { active.reluCapGrad(dx, dy, y, limit) }

func (t *isa) reluCapGrad(dx, dy, y []float32, limit float32) {
	dx, dy = dx[:len(y)], dy[:len(y)]
	for i := t.reluCapGradVec(dx, dy, y, limit); i < len(y); i++ {
		if y[i] > 0 && y[i] < limit {
			dx[i] = dy[i]
		} else {
			dx[i] = 0
		}
	}
}

// ClampU8 writes codes limited to [lo, hi]: a ReLU of its own on codes. dst may be q.
func ClampU8(dst, q []uint8, lo, hi uint8) {
	dst = dst[:len(q)]
	for i, v := range q {
		dst[i] = min(max(v, lo), hi)
	}
}

// ClampU8Grad writes dx = dy where lo < q and q <= hi, else 0: the gradient of ClampU8 for codes whose zero is lo.
func ClampU8Grad(dx, dy []float32, q []uint8, lo, hi uint8) {
	dx, dy = dx[:len(q)], dy[:len(q)]
	for i, v := range q {
		g := dy[i]
		if v <= lo || v > hi {
			g = 0
		}
		dx[i] = g
	}
}
