package kernel

import (
	"fmt"
	"math"

	"github.com/narrow-ml/narrow/internal/elementary"
)

// The losses below reduce over all elements; grad may be nil and may be x.
// Sums run over 16 float64 lanes.

// elementLoss reduces f, which returns loss and derivative of one element.
func elementLoss(name string, grad, x, target []float32, red Reduction, f func(x, t float64) (loss, d float64)) (float64, error) {
	if len(target) != len(x) || grad != nil && len(grad) != len(x) {
		return 0, fmt.Errorf("%s: %d predictions, %d targets, gradient of %d", name, len(x), len(target), len(grad))
	}
	scale := 1.0
	if red == Mean && len(x) > 0 {
		scale = 1 / float64(len(x))
	}
	var lane [16]float64
	for i, v := range x {
		l, d := f(float64(v), float64(target[i]))
		lane[i%16] += l
		if grad != nil {
			grad[i] = float32(d * scale)
		}
	}
	return tree16(&lane) * scale, nil
}

// MSELoss returns the mean (or sum) of (x-t)^2 and writes its gradient.
func MSELoss(grad, x, target []float32, red Reduction) (float64, error) {
	return elementLoss("mean squared error", grad, x, target, red, func(x, t float64) (float64, float64) {
		d := x - t
		return float64(d * d), 2 * d
	})
}

// SmoothL1Loss is d^2/(2*beta) for |d| < beta, else |d| - beta/2, d = x-t
// (Huber's loss divided by beta).
func SmoothL1Loss(grad, x, target []float32, beta float64, red Reduction) (float64, error) {
	if !(beta >= 0) {
		return 0, fmt.Errorf("smooth L1: beta %v must not be negative", beta)
	}
	return elementLoss("smooth L1", grad, x, target, red, func(x, t float64) (float64, float64) {
		d := x - t
		a := math.Abs(d)
		switch {
		case a < beta:
			return float64(d*d) / (2 * beta), d / beta
		case d == 0: // beta is zero: the kink of |d|
			return 0, 0
		}
		return a - float64(beta/2), math.Copysign(1, d)
	})
}

// BCEWithLogits is the binary cross-entropy of sigmoid(x) against targets in
// [0,1]: softplus(x) - t*x.
func BCEWithLogits(grad, x, target []float32, red Reduction) (float64, error) {
	return elementLoss("binary cross-entropy", grad, x, target, red, func(x, t float64) (float64, float64) {
		return elementary.Softplus(x) - float64(t*x), elementary.Sigmoid(x) - t
	})
}

// SquaredHinge is max(0, 1-s*x)^2 with s = 2t-1, for targets t of 0 and 1.
func SquaredHinge(grad, x, target []float32, red Reduction) (float64, error) {
	return elementLoss("squared hinge", grad, x, target, red, func(x, t float64) (float64, float64) {
		s := 2*t - 1
		gap := 1 - float64(s*x)
		if gap <= 0 {
			return 0, 0
		}
		return float64(gap * gap), -2 * float64(s*gap)
	})
}

// DistillationKL is temperature^2 * KL(softmax(teacher/T) || softmax(student/T)),
// averaged over rows (arXiv:1503.02531), with the gradient of the student's
// logits.
func DistillationKL(grad, student, teacher []float32, classes int, temperature float64) (float64, error) {
	if classes <= 0 || len(student)%classes != 0 || len(teacher) != len(student) || grad != nil && len(grad) != len(student) {
		return 0, fmt.Errorf("distillation: %d student and %d teacher logits of %d classes, gradient of %d",
			len(student), len(teacher), classes, len(grad))
	}
	if !(temperature > 0) {
		return 0, fmt.Errorf("distillation: temperature %v must be positive", temperature)
	}
	n := len(student) / classes
	if n == 0 {
		return 0, nil
	}
	f := 1 / temperature
	total := 0.0
	for r := range n {
		s, t := student[r*classes:][:classes], teacher[r*classes:][:classes]
		sTop, sLog := logSumExp(s, f)
		tTop, tLog := logSumExp(t, f)
		var lane [16]float64
		for c := range classes {
			logS := float64(float64(s[c])*f) - sTop - sLog
			logT := float64(float64(t[c])*f) - tTop - tLog
			pT := elementary.Exp(logT)
			lane[c%16] += float64(pT * (logT - logS))
			if grad != nil {
				grad[r*classes+c] = float32((elementary.Exp(logS) - pT) * temperature / float64(n))
			}
		}
		total += tree16(&lane)
	}
	return total * temperature * temperature / float64(n), nil
}
