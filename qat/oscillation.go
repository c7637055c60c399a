package qat

import (
	"fmt"
	"math"

	"github.com/narrow-ml/narrow/quant"
)

// OscillationWeight is m, how much the latest step counts in an [Oscillation]'s averages, and OscillationLimit the frequency
// from which a weight counts as oscillating: both from arXiv:2203.11086.
const (
	OscillationWeight = 0.01
	OscillationLimit  = 0.005
)

// Oscillation follows the integer codes of one weight tensor from step to step (arXiv:2203.11086, section 2.3). A code
// oscillates when it changes and its last change went the other way:
//
//	o = [q != q'] * [sign(q - q') = -sign of the last change]        q' the code of the step before
//	f = m*o + (1-m)*f          a = m*q + (1-m)*a
//
// A frozen weight keeps the code nearest to a at the step that froze it.
type Oscillation struct {
	spec   quant.Spec
	code   []int8 // of the last step
	turn   []int8 // sign of the last change, 0 before the first
	often  []float32
	mean   []float32
	frozen []bool
	seen   bool
}

// NewOscillation follows n weights quantized as spec says.
func NewOscillation(n int, spec quant.Spec) *Oscillation {
	return &Oscillation{spec: spec, code: make([]int8, n), turn: make([]int8, n), often: make([]float32, n), mean: make([]float32, n), frozen: make([]bool, n)}
}

// Observe takes in the codes of a step. With freezeAbove > 0 a weight whose frequency is above it is frozen from now on.
func (o *Oscillation) Observe(codes []int8, freezeAbove float64) error {
	if len(codes) != len(o.code) {
		return fmt.Errorf("oscillation: %d codes for %d weights", len(codes), len(o.code))
	}
	if !o.seen {
		for i, q := range codes {
			o.code[i], o.mean[i] = q, float32(q)
		}
		o.seen = true
		return nil
	}
	for i, q := range codes {
		if o.frozen[i] {
			continue
		}
		o.often[i] *= 1 - OscillationWeight
		if q != o.code[i] {
			turn := int8(1)
			if q < o.code[i] {
				turn = -1
			}
			if turn == -o.turn[i] {
				o.often[i] += OscillationWeight
			}
			o.turn[i], o.code[i] = turn, q
		}
		o.mean[i] += float32(OscillationWeight * (float32(q) - o.mean[i]))
		if freezeAbove > 0 && float64(o.often[i]) > freezeAbove {
			o.frozen[i], o.code[i] = true, int8(o.spec.Code(o.mean[i], 1, 0))
		}
	}
	return nil
}

// Hold puts the masters of frozen weights on their codes, w = scale*q, one scale per channel (the last axis) or one for all.
func (o *Oscillation) Hold(master, scale []float32) {
	for i, frozen := range o.frozen {
		if frozen {
			master[i] = scale[i%len(scale)] * float32(o.code[i])
		}
	}
}

// Count is how many weights oscillate, those that are frozen not included, and how many are frozen.
func (o *Oscillation) Count() (oscillating, frozen int) {
	for i, f := range o.often {
		switch {
		case o.frozen[i]:
			frozen++
		case f > OscillationLimit:
			oscillating++
		}
	}
	return oscillating, frozen
}

// State is the memory of an Oscillation for a checkpoint: code, last change, frequency, average and 1 for a frozen weight, one
// row each; nothing before the first step.
func (o *Oscillation) State() []float32 {
	if !o.seen {
		return []float32{}
	}
	n := len(o.code)
	out := make([]float32, 5*n)
	for i := range n {
		out[i], out[n+i] = float32(o.code[i]), float32(o.turn[i])
		out[2*n+i], out[3*n+i] = o.often[i], o.mean[i]
		if o.frozen[i] {
			out[4*n+i] = 1
		}
	}
	return out
}

// Restore takes back what State gave.
func (o *Oscillation) Restore(state []float32) error {
	n := len(o.code)
	if len(state) == 0 {
		*o = *NewOscillation(n, o.spec)
		return nil
	}
	if len(state) != 5*n {
		return fmt.Errorf("oscillation: state of %d values for %d weights", len(state), n)
	}
	for i := range n {
		q, turn, often := state[i], state[n+i], state[2*n+i]
		if !(math.Abs(float64(q)) <= 127) || !(math.Abs(float64(turn)) <= 1) || !(often >= 0 && often <= 1) || !(math.Abs(float64(state[3*n+i])) <= 127) {
			return fmt.Errorf("oscillation: state of weight %d is out of range", i)
		}
		o.code[i], o.turn[i], o.often[i], o.mean[i] = int8(q), int8(turn), often, state[3*n+i]
		o.frozen[i] = state[4*n+i] != 0
	}
	o.seen = true
	return nil
}

// Damp adds the gradient of the damping loss strength * sum (w - s*q)^2 to grad, where q is w's code with scale s (one per
// channel, or one) and the grid ends at lo and hi; what is outside the grid and codes themselves get none (arXiv:2203.11086,
// section 3.1):
//
//	grad += 2*strength*(w - s*q)        where s*lo <= w <= s*hi
func Damp(grad, master []float32, codes []int8, scale []float32, lo, hi int32, strength float64) {
	c := len(scale)
	for i, w := range master {
		s := scale[i%c]
		if w < s*float32(lo) || w > s*float32(hi) {
			continue
		}
		off := float64(w) - float64(float64(s)*float64(codes[i]))
		grad[i] += float32(float64(2*strength) * off)
	}
}
