package kernel

import "math"

// Optimizer updates, one pass over parameters and state. Steps count from 1.
// Every operation rounds on its own, so the bits are the same in all tiers.

// SGDConfig holds the settings of SGD, with PyTorch's meaning of each.
type SGDConfig struct {
	LR, Momentum, Dampening, WeightDecay float64
	Nesterov                             bool
}

// SGD updates parameters p from gradients g at the given step:
//
//	g' = g + decay*p;  v = momentum*v + (1-dampening)*g'  (first step: v = g')
//	p -= lr * (v, or with Nesterov g' + momentum*v)
//
// v holds the velocity and may be nil without momentum. g is not changed.
func SGD(p, g, v []float32, step int, c SGDConfig) {
	lr, mu := float32(c.LR), float32(c.Momentum)
	damp, decay := float32(1-c.Dampening), float32(c.WeightDecay)
	g = g[:len(p)]
	if c.Momentum == 0 {
		for i, pi := range p {
			p[i] = pi - float32(lr*(g[i]+float32(decay*pi)))
		}
		return
	}
	v = v[:len(p)]
	for i, pi := range p {
		gi := g[i] + float32(decay*pi)
		vi := gi
		if step > 1 {
			vi = float32(mu*v[i]) + float32(damp*gi)
		}
		v[i] = vi
		if c.Nesterov {
			vi = gi + float32(mu*vi)
		}
		p[i] = pi - float32(lr*vi)
	}
}

// AdamConfig holds the settings of Adam (arXiv:1412.6980) with PyTorch's
// meaning of each. Decoupled is AdamW (arXiv:1711.05101).
type AdamConfig struct {
	LR, Beta1, Beta2, Eps, WeightDecay float64
	Decoupled, AMSGrad                 bool
}

// Adam updates parameters p from gradients g at the given step:
//
//	m = b1*m + (1-b1)*g;  v = b2*v + (1-b2)*g*g
//	p -= lr/(1-b1^step) * m / (sqrt(v)/sqrt(1-b2^step) + eps)
//
// m and v are the moments; vmax, the running maximum of v that AMSGrad divides
// by instead, is nil without it. g is not changed.
func Adam(p, g, m, v, vmax []float32, step int, c AdamConfig) {
	active.adam(p, g, m, v, vmax, step, c)
}

// adamFactors are the constants of one step in float32, in the order in which
// the assembly reads them.
type adamFactors struct {
	b1, b1c, b2, b2c, size, root, eps float32 // size = lr/(1-b1^t), root = sqrt(1-b2^t)
	decay, keep                       float32 // coupled decay; 1 - lr*decay when decoupled
}

func (c AdamConfig) factors(step int) adamFactors {
	f := adamFactors{
		b1: float32(c.Beta1), b1c: float32(1 - c.Beta1),
		b2: float32(c.Beta2), b2c: float32(1 - c.Beta2),
		size: float32(c.LR / (1 - power(c.Beta1, step))),
		root: float32(math.Sqrt(1 - power(c.Beta2, step))),
		eps:  float32(c.Eps),
		keep: 1,
	}
	if c.Decoupled {
		f.keep = float32(1 - float64(c.LR*c.WeightDecay))
	} else {
		f.decay = float32(c.WeightDecay)
	}
	return f
}

// power returns x**n by squaring: products only, so the same bits everywhere,
// which math.Pow does not promise.
func power(x float64, n int) float64 {
	y := 1.0
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			y *= x
		}
		x *= x
	}
	return y
}

func (t *isa) adam(p, g, m, v, vmax []float32, step int, c AdamConfig) {
	g, m, v = g[:len(p)], m[:len(p)], v[:len(p)]
	f := c.factors(step)
	if c.AMSGrad {
		vmax = vmax[:len(p)]
	} else {
		vmax = nil
		done := t.adamVec(p, g, m, v, &f)
		p, g, m, v = p[done:], g[done:], m[done:], v[done:]
	}
	adamGeneric(p, g, m, v, vmax, &f)
}

// adamGeneric is the definition of Adam; a nil vmax means no AMSGrad.
func adamGeneric(p, g, m, v, vmax []float32, f *adamFactors) {
	for i, pi := range p {
		pi = float32(pi * f.keep)
		gi := g[i] + float32(f.decay*pi)
		mi := float32(f.b1*m[i]) + float32(f.b1c*gi)
		vi := float32(f.b2*v[i]) + float32(float32(f.b2c*gi)*gi)
		m[i], v[i] = mi, vi
		if vmax != nil {
			if vmax[i] > vi {
				vi = vmax[i]
			}
			vmax[i] = vi
		}
		den := float32(math.Sqrt(float64(vi)))/f.root + f.eps
		p[i] = pi - float32(f.size*mi)/den
	}
}
