package ptq

import (
	"fmt"
	"math"
	"slices"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// shrinks is the number of candidates of the mse grid search: ranges shrunk by 0 %, 1 %, ..., 94 % (D8).
const shrinks = 95

// shrunk is candidate i of a bound of the range.
func shrunk(bound float32, i int) float32 { return bound * (float32(100-i) / 100) }

// choose is the scale and zero point of an activation tensor.
func (h *histogram) choose(spec quant.Spec, m Method, p float64) (scale float32, zero int32, err error) {
	switch m {
	case MinMax:
		scale, zero = spec.Choose(h.min, h.max)
	case Percentile:
		scale, zero = spec.Choose(h.clipped(p))
	case MSE:
		scale, zero = h.leastSquares(spec)
	case KL:
		scale, zero = spec.Choose(h.leastDivergence(spec))
	case Histogram:
		scale, zero = spec.Choose(h.searched(spec))
	default:
		return 0, 0, fmt.Errorf("calibration method %s chooses no range", m)
	}
	return scale, zero, nil
}

// leastSquares tries every shrunk range and keeps the scale with the smallest squared error over the histogram. Of equal
// errors the widest range wins.
func (h *histogram) leastSquares(spec quant.Spec) (scale float32, zero int32) {
	best := math.Inf(1)
	for i := range shrinks {
		s, z := spec.Choose(shrunk(h.min, i), shrunk(h.max, i))
		cost := 0.0
		h.bins(func(x float32, count int64) {
			cost += float64(float64(count) * squaredError(spec, x, s, z))
		})
		if cost < best {
			best, scale, zero = cost, s, z
		}
	}
	return scale, zero
}

// squaredError is (x - s*(q-z))^2 with q the code of x. The conversion keeps the caller's sum free of fused
// multiply-adds.
func squaredError(spec quant.Spec, x, s float32, z int32) float64 {
	q := spec.Code(x, s, z)
	d := float64(x) - float64(float64(s)*float64(q-z))
	return float64(d * d)
}

// fillWeight sets the scales of one weight quantizer where the method needs stored ones; absmax scales follow from the
// masters whenever they are coded and are not stored.
func fillWeight(q *quant.Params, w *model.Param, m Method, p float64) error {
	spec := q.Spec
	if !spec.Format.IsInteger() {
		return nil
	}
	kind := spec.Range
	if kind == quant.MinMax && m == MSE {
		kind = quant.MSE
		q.Spec.Range = quant.MSE
	}
	if kind.Derived() {
		return nil
	}
	groups := spec.Scales(len(w.Data), w.Shape.Channels())
	for i, v := range w.Data {
		if v != v || math.IsInf(float64(v), 0) {
			return &valueError{i, v}
		}
	}
	q.Scale, q.Zero = make([]float32, groups), make([]int32, groups)
	members := make([][]float32, groups)
	for i, v := range w.Data {
		g := q.Index(i)
		members[g] = append(members[g], v)
	}
	for g, values := range members {
		switch {
		case kind == quant.Percentile:
			q.Scale[g], _ = spec.Choose(0, clippedMagnitude(values, p))
		case kind.Learns() && m != MSE && !spec.Even: // absmax, as the method would give a weight that is not learned
			q.Scale[g], _ = spec.Choose(0, clippedMagnitude(values, 100))
		default:
			q.Scale[g] = leastSquaresWeights(values, spec)
		}
	}
	return nil
}

// clippedMagnitude is the largest |w| once at most a share 1-p/100 of the weights is clipped. It reorders values.
func clippedMagnitude(values []float32, p float64) float32 {
	for i, v := range values {
		values[i] = max(v, -v)
	}
	slices.Sort(values)
	tail := int(float64(100-p) / 100 * float64(len(values)))
	return values[len(values)-1-min(tail, len(values)-1)]
}

// leastSquaresWeights is the mse grid search on the weights themselves.
func leastSquaresWeights(values []float32, spec quant.Spec) (scale float32) {
	var amax float32
	for _, v := range values {
		amax = max(amax, v, -v)
	}
	best := math.Inf(1)
	for i := range shrinks {
		s, _ := spec.Choose(0, shrunk(amax, i))
		cost := 0.0
		for _, v := range values {
			cost += squaredError(spec, v, s, 0)
		}
		if cost < best {
			best, scale = cost, s
		}
	}
	return scale
}
