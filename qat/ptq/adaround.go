package ptq

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/narrow-ml/narrow/internal/elementary"
	"github.com/narrow-ml/narrow/internal/kernel"
)

// The settings of AdaRound (arXiv:2004.10568). Stretch and the annealed exponent are those of the paper and of AIMET
// (D20). The weight of the regularizer is relative to an error scaled to the size of the layer, see adaRound; it and the
// learning rate were chosen on the validation split of the digits presets.
const (
	stretchHigh = 1.1  // zeta
	stretchLow  = -0.1 // gamma
	betaStart   = 20
	betaEnd     = 2
	warmUp      = 0.2 // part of the iterations without regularizer
	regularize  = 3
	roundRate   = 0.05
	roundRows   = 64 // rows of one step

	defaultIterations = 1500
)

// adaRound learns for every weight whether it goes up or down. With the soft code
//
//	q~ = clamp(floor(w/s) + h(V), lo, hi)      h(V) = clamp(1.2*sigmoid(V) - 0.1, 0, 1)
//
// it minimises, by Adam over V from h(V) = w/s - floor(w/s), on consecutive runs of the shuffled rows,
//
//	sum_c K/E_c * mean(act(q~) - y)^2 + lambda * sum(1 - |2h-1|^beta)
//
// y is the float model's output and E_c the error of channel c rounded to nearest. Channels do not compete, each has its
// own weights; in units of E_c/K, with K weights in a channel, what one weight contributes to the error is about 1
// everywhere, so that one lambda serves all layers. beta falls from 20 to 2 and drives h to 0 or 1; the codes are those
// with h at least 1/2.
func adaRound(ctx context.Context, g *grid, f *fit, o Options) ([]int8, error) {
	n, lo, hi := len(g.w), float32(g.lo), float32(g.hi)
	soft := make([]float32, n)
	g.values(soft, g.codes)
	each, err := f.errors(soft)
	if err != nil {
		return nil, err
	}
	batch, units := min(roundRows, f.n), g.units
	weight := make([]float32, units)
	for c, e := range each {
		if math.IsNaN(e) || math.IsInf(e, 0) {
			return nil, fmt.Errorf("the error of output channel %d is %v: the float model diverged or its weights are damaged", c, e)
		}
		if e > 0 { // else there is nothing to gain
			weight[c] = float32(min(2*float64(f.depth)/(e*float64(batch)), math.MaxFloat32))
		}
	}
	codes := slices.Clone(g.codes)
	floor, v := make([]float32, n), make([]float32, n)
	for i, w := range g.w {
		t := float64(w / g.at(i))
		down := math.Floor(t)
		p := (t - down - stretchLow) / (stretchHigh - stretchLow)
		floor[i], v[i] = float32(down), float32(elementary.Log(p/(1-p)))
	}
	dw, slope, mean, square := make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
	out, dv := make([]float32, batch*f.units), make([]float32, batch*f.units)
	adam := kernel.AdamConfig{LR: roundRate, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}
	warm := int(warmUp * float64(o.Iterations))
	for step := range o.Iterations {
		if step%16 == 0 {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
		}
		err := f.pool.Run(n, func(_, from, to int) {
			for i := from; i < to; i++ {
				h, d := rectified(v[i])
				q := floor[i] + h
				if q < lo || q > hi {
					q, d = min(max(q, lo), hi), 0
				}
				s := g.at(i)
				soft[i], slope[i] = s*q, s*d
			}
		})
		if err != nil {
			return nil, err
		}
		at := step * batch % (f.n - batch + 1)
		if err := f.forward(out, soft, at, batch); err != nil {
			return nil, err
		}
		f.residual(out, dv, at, batch)
		if err := f.backward(dw, dv, at, batch); err != nil {
			return nil, err
		}
		beta := 0
		if step >= warm {
			beta = betaStart - (step-warm)*(betaStart-betaEnd+1)/(o.Iterations-warm)
		}
		err = f.pool.Run(n, func(_, from, to int) {
			for i := from; i < to; i++ {
				d := float32(float32(weight[i%units]*dw[i]) * slope[i])
				if beta > 0 {
					d -= regularizerSlope(v[i], beta)
				}
				dw[i] = d
			}
			kernel.Adam(v[from:to], dw[from:to], mean[from:to], square[from:to], nil, step+1, adam)
		})
		if err != nil {
			return nil, err
		}
	}
	for i := range codes {
		q := floor[i]
		if h, _ := rectified(v[i]); h >= 0.5 {
			q++
		}
		codes[i] = int8(min(max(q, lo), hi))
	}
	return codes, nil
}

// rectified is h(V) and its derivative.
func rectified(v float32) (h, slope float32) {
	p := elementary.Sigmoid(float64(v))
	t := float64((stretchHigh-stretchLow)*p) + stretchLow
	if t <= 0 {
		return 0, 0
	}
	if t >= 1 {
		return 1, 0
	}
	return float32(t), float32((stretchHigh - stretchLow) * p * (1 - p))
}

// regularizerSlope is lambda times the derivative of |2h-1|^beta with respect to V.
func regularizerSlope(v float32, beta int) float32 {
	h, slope := rectified(v)
	u := 2*float64(h) - 1
	p := 1.0
	for range beta - 1 {
		p *= math.Abs(u)
	}
	if u < 0 {
		p = -p
	}
	return float32(regularize * 2 * float64(beta) * p * float64(slope))
}
