package train

import (
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/quant"
)

// learnedEps is Adam's eps for logarithms. The gradient of ln s is that of s times s, and LSQ's factor makes it smaller
// still: beside it the usual 1e-8 is large and would hold the scale where it is.
const learnedEps = 1e-15

// mostLog is how far the logarithm of a learned number moves in one step at most: a gradient that plain SGD takes at its
// size must not throw the scale to infinity.
const mostLog = 0.5

// learn updates a learned scale. In the logarithm, u = ln s:
//
//	du = step of the optimizer for the gradient ds*s        s = s * e^du
func (o *optimizer) learn(t layers.Trainable) {
	if o.scaleStep != quant.StepLog {
		o.span(0, 0, len(t.Value))
		return
	}
	n := len(t.Value)
	for len(o.logGrad) < n {
		o.logGrad, o.logStep = append(o.logGrad, 0), append(o.logStep, 0)
	}
	grad, step := o.logGrad[:n], o.logStep[:n]
	for i, s := range t.Value {
		grad[i], step[i] = float32(t.Grad[i]*s), 0
	}
	o.update(step, grad, 0, n, learnedEps)
	for i, s := range t.Value {
		du := max(-mostLog, min(mostLog, float64(step[i])))
		t.Value[i] = float32(float64(s) * kernel.Exp(du))
	}
}
