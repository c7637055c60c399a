package train

import (
	"github.com/narrow-ml/narrow/internal/elementary"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/quant"
)

// learnedEps is Adam's eps for logarithms. The gradient of ln s is that of s times s, and LSQ's factor makes it smaller
// still: beside it the usual 1e-8 is large and would hold the scale where it is.
const learnedEps = 1e-15

// mostMove is how far u moves in one step at most: a gradient that plain SGD takes at its size must not throw a scale to
// infinity.
const mostMove = 0.5

// learn updates what a quantizer learns. With scale_step log each number v is a function of a u that has the same size
// everywhere, in which the optimizer takes its step du for the gradient dv * dv/du:
//
//	scale       v = e^u
//	offset      v = u*span     a share of the grid
//	threshold   v = u          it is a logarithm already
func (o *optimizer) learn(t layers.Trainable) {
	n := len(t.Value)
	if o.scaleStep != quant.StepLog {
		o.update(t.Value, t.Grad, 0, n, o.solver.Eps)
		return
	}
	for len(o.grad) < n {
		o.grad, o.move = append(o.grad, 0), append(o.move, 0)
	}
	grad, move := o.grad[:n], o.move[:n]
	for i, v := range t.Value {
		slope := float32(1)
		switch t.Learned {
		case quant.LearnedScale:
			slope = v
		case quant.LearnedOffset:
			slope = t.Span
		}
		grad[i], move[i] = float32(t.Grad[i]*slope), 0
	}
	o.update(move, grad, 0, n, learnedEps)
	for i, v := range t.Value {
		du := max(-mostMove, min(mostMove, move[i]))
		switch t.Learned {
		case quant.LearnedScale:
			t.Value[i] = float32(float64(v) * elementary.Exp(float64(du)))
		case quant.LearnedOffset:
			t.Value[i] = v + float32(du*t.Span)
		default:
			t.Value[i] = v + du
		}
	}
}
