package train

import (
	"fmt"
	"math"
)

// Schedule is the learning rate as a function of the step: a linear warm-up over Warmup steps, times one of
//
//	constant  1
//	step      Gamma^floor(t/Every)                      (PyTorch StepLR, counted in steps)
//	cosine    from 1 to Min/Base over the phase         (PyTorch CosineAnnealingLR, arXiv:1608.03983)
type Schedule struct {
	Kind   string // constant, step or cosine
	Base   float64
	Min    float64 // cosine: the last rate
	Warmup int     // steps
	Every  int     // step: steps between drops
	Gamma  float64 // step: the factor of a drop
	Total  int     // steps of the phase
}

// At is the learning rate of step t, counted from 0.
func (s Schedule) At(t int) (float64, error) {
	rate := s.Base
	switch s.Kind {
	case "constant":
	case "step":
		if s.Every < 1 {
			return 0, fmt.Errorf("schedule step: the number of steps between drops is %d; it must be at least 1", s.Every)
		}
		for range t / s.Every {
			rate *= s.Gamma
		}
	case "cosine":
		total := max(s.Total, 1)
		half := float64((s.Base - s.Min) / 2)
		rate = s.Min + float64(half*(1+cosine(float64(t)/float64(total))))
	default:
		return 0, fmt.Errorf("unknown schedule %q (allowed: constant, step, cosine)", s.Kind)
	}
	if t < s.Warmup {
		rate *= float64(t+1) / float64(s.Warmup)
	}
	return rate, nil
}

// cosine is cos(pi*x) for x >= 0, by Taylor's series on [0, pi/2]. math.Cos gives other bits on CPUs where Go fuses
// multiply and add; the learning rate must not. The error is below 1e-15.
func cosine(x float64) float64 {
	x -= 2 * math.Floor(x/2) // the period is 2
	if x > 1 {
		x = 2 - x
	}
	if x > 0.5 {
		return -cosine(1 - x)
	}
	a := float64(math.Pi * x)
	square := float64(a * a)
	sum, term := 1.0, 1.0
	for k := 1.0; k <= 12; k++ {
		term = -float64(term*square) / float64((2*k-1)*(2*k))
		sum += term
	}
	return sum
}
