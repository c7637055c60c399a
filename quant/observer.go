package quant

import (
	"fmt"
	"math"
)

// The defaults of an [Observer].
const (
	// EMAWeight is the weight c of the newest batch in the moving average (D7; PyTorch's averaging_constant).
	EMAWeight = 0.01
	// EnvelopeDecay is the part of its range that an envelope loses per step. Ranges of activations creep while a network
	// trains; with 0.001 a range that has become twice too wide is right again after some 700 steps, the length of an
	// epoch, while between two batches that reach the limit, tens of steps apart, it gives up a few percent at most and
	// next to nothing is clipped.
	EnvelopeDecay = 0.001
)

// Observer follows the range of a tensor from batch to batch by the method of its Spec:
//
//	MinMax     the smallest and largest value ever seen
//	EMA        the first batch sets the range; then min += c*(batch min - min), max likewise     (D7)
//	Envelope   min = least(batch min, min*(1-decay)), max likewise: grows at once, shrinks slowly towards 0
//
// NaN is an error ([NaNError]) and so is an infinity: either means that training or the data broke, and a range made of
// it would hide that. After an error the range is what it was before.
type Observer struct {
	Weight float32 // c of EMA
	Decay  float32 // of Envelope

	spec     Spec
	min, max []float32 // one per channel, or one
	bmin     []float32 // of the batch at hand
	bmax     []float32
	seen     bool
}

// NewObserver is an observer that has seen nothing. channels is the extent of the tensor's last axis; it counts only if
// spec is per channel.
func NewObserver(spec Spec, channels int) (*Observer, error) {
	if err := spec.Validate(); err != nil {
		return nil, fmt.Errorf("observer: %w", err)
	}
	switch {
	case !spec.Format.IsInteger():
		return nil, fmt.Errorf("observer: %s has no range", spec.Format)
	case !spec.Range.Observed():
		return nil, fmt.Errorf("observer: range method %s does not follow batches (allowed: minmax, ema, envelope)", spec.Range)
	}
	if spec.Per == PerGroup {
		return nil, fmt.Errorf("observer: granularity group is for weights, which are not observed")
	}
	if spec.Per == PerTensor {
		channels = 1
	}
	if channels < 1 {
		return nil, fmt.Errorf("observer: %d channels", channels)
	}
	buf := make([]float32, 4*channels)
	return &Observer{
		Weight: EMAWeight, Decay: EnvelopeDecay, spec: spec,
		min: buf[:channels], max: buf[channels : 2*channels], bmin: buf[2*channels : 3*channels], bmax: buf[3*channels:],
	}, nil
}

// Observe takes in one batch. Channels are the last axis of x. An empty x changes nothing.
func (o *Observer) Observe(x []float32) error {
	n := len(o.min)
	if len(x)%n != 0 {
		return fmt.Errorf("observe: %d values are not rows of %d channels", len(x), n)
	}
	if len(x) == 0 {
		return nil
	}
	for i, v := range x {
		c := i % n
		switch {
		case v != v:
			return &NaNError{Index: i}
		case math.IsInf(float64(v), 0):
			return fmt.Errorf("value[%d] is %v: the range would be infinite", i, v)
		case i < n:
			o.bmin[c], o.bmax[c] = v, v
		case v < o.bmin[c]:
			o.bmin[c] = v
		case v > o.bmax[c]:
			o.bmax[c] = v
		}
	}
	o.update()
	return nil
}

// ObserveRange takes in one batch of a per-tensor observer by its smallest and largest value.
func (o *Observer) ObserveRange(min, max float32) error {
	switch {
	case len(o.min) != 1:
		return fmt.Errorf("observe: one range for %d channels", len(o.min))
	case min != min || max != max || math.IsInf(float64(min), 0) || math.IsInf(float64(max), 0) || min > max:
		return fmt.Errorf("observe: [%v, %v] is not a finite range", min, max)
	}
	o.bmin[0], o.bmax[0] = min, max
	o.update()
	return nil
}

func (o *Observer) update() {
	for c := range o.min {
		lo, hi := o.bmin[c], o.bmax[c]
		switch {
		case !o.seen:
			o.min[c], o.max[c] = lo, hi
		case o.spec.Range == EMA:
			o.min[c] += float32(o.Weight * (lo - o.min[c]))
			o.max[c] += float32(o.Weight * (hi - o.max[c]))
		case o.spec.Range == Envelope:
			keep := 1 - o.Decay
			o.min[c] = least(lo, shrink(o.min[c], keep, lo))
			o.max[c] = -least(-hi, shrink(-o.max[c], keep, -hi))
		default:
			o.min[c] = least(lo, o.min[c])
			o.max[c] = -least(-hi, -o.max[c])
		}
	}
	o.seen = true
}

// shrink moves the lower end m of a range towards 0. An end on the far side of 0 has nothing to give: it moves to the
// batch's, since the range is widened to contain 0 anyway.
func shrink(m, keep, batch float32) float32 {
	if m >= 0 {
		return batch
	}
	return Mul32(m, keep)
}

func least(a, b float32) float32 {
	if b < a {
		return b
	}
	return a
}

// Seen reports whether the observer has a range.
func (o *Observer) Seen() bool { return o.seen }

// Range is the range of channel c.
func (o *Observer) Range(c int) (min, max float32) { return o.min[c], o.max[c] }

// Params turns the ranges into scales and zero points by [Spec.Choose].
func (o *Observer) Params() (*Params, error) {
	if !o.seen {
		return nil, fmt.Errorf("observer has seen no batch")
	}
	p := &Params{Spec: o.spec, Scale: make([]float32, len(o.min)), Zero: make([]int32, len(o.min))}
	for c := range o.min {
		p.Scale[c], p.Zero[c] = o.spec.Choose(o.min[c], o.max[c])
	}
	return p, nil
}

// State is the observer's memory for a checkpoint: nothing before the first batch, then all minima and all maxima.
func (o *Observer) State() []float32 {
	if !o.seen {
		return []float32{}
	}
	return append(append([]float32(nil), o.min...), o.max...)
}

// Restore takes back what State gave.
func (o *Observer) Restore(state []float32) error {
	n := len(o.min)
	switch len(state) {
	case 0:
		o.seen = false
		return nil
	case 2 * n:
	default:
		return fmt.Errorf("observer state has %d values, needs %d", len(state), 2*n)
	}
	for c := range n {
		if lo, hi := state[c], state[n+c]; !(lo <= hi) || math.IsInf(float64(lo), 0) || math.IsInf(float64(hi), 0) {
			return fmt.Errorf("observer state: [%v, %v] of channel %d is not a finite range", lo, hi, c)
		}
	}
	copy(o.min, state[:n])
	copy(o.max, state[n:])
	o.seen = true
	return nil
}

// Adopt sets the ranges to what calibrated scales and zero points cover: s*(lo-z) to s*(hi-z).
func (o *Observer) Adopt(p *Params) error {
	if len(p.Scale) != len(o.min) || len(p.Zero) != len(o.min) {
		return fmt.Errorf("observer: %d scales for %d channels", len(p.Scale), len(o.min))
	}
	lo, hi := p.Spec.Grid()
	for c, s := range p.Scale {
		o.min[c], o.max[c] = Mul32(s, float32(lo-p.Zero[c])), Mul32(s, float32(hi-p.Zero[c]))
	}
	o.seen = true
	return nil
}
