package model

import (
	"errors"
	"iter"

	"github.com/narrow-ml/narrow/quant"
)

// errGroupOfCodes says why an integer layer has no scale per group.
var errGroupOfCodes = errors.New("a scale per group of inputs would need an accumulator for each group, and the integer product has one for each channel: use per: channel, or weights alone in integers (w4a16)")

// Block is a part of a weight whose elements share a scale per channel: a group of rows, or all of it.
type Block struct {
	From, To int // elements
	Scale    int // index of the scale of its first channel
}

// Blocks cuts a weight of n elements. A group's extent is a multiple of 8 rows, so blocks begin at whole bytes of a mask.
func Blocks(n, channels int, s quant.Spec) iter.Seq[Block] {
	size := n
	if s.Per == quant.PerGroup {
		size = s.Group * channels
	}
	return func(yield func(Block) bool) {
		for from, at := 0, 0; from < n; from, at = from+size, at+channels {
			if !yield(Block{from, min(from+size, n), at}) {
				return
			}
		}
	}
}

// code writes the codes of a weight, block by block. A weight that is not finite is an error where l.Quantize codes it; else
// weightScales has refused it.
func (l Loops) code(codes []int8, mask []uint8, w, scale []float32, channels int, s quant.Spec) error {
	lo, hi := s.Grid()
	for b := range Blocks(len(w), channels, s) {
		var bits []uint8
		if mask != nil {
			bits = mask[b.From/8 : (b.To+7)/8]
		}
		part, own := codes[b.From:b.To], scale[b.Scale:b.Scale+channels]
		var noise []float32
		if s.Rounding == quant.Stochastic && l.Noise != nil {
			noise = l.Noise[b.From:b.To]
		}
		switch {
		case l.quantizes(s):
			if odd := l.Quantize(part, bits, w[b.From:b.To], own, lo, hi); odd >= 0 {
				return weightError(w)
			}
		case s.Even:
			quantizeEven(part, bits, w[b.From:b.To], own, hi)
		default:
			quantizeRounded(part, bits, w[b.From:b.To], own, s, noise)
		}
	}
	return nil
}

// quantizes reports whether weights of s are coded by l.Quantize, which refuses those that are not finite.
func (l Loops) quantizes(s quant.Spec) bool {
	return !s.Even && (s.Rounding == quant.HalfEven || s.Rounding == quant.Stochastic && l.Noise == nil)
}

// WeightOnly reports whether the node multiplies floats by the values of integer weight codes.
func (m *Model) WeightOnly(n *Node) bool {
	w, in := m.Quant[n.Param(Weight)], m.Quant[n.In[0]]
	return n.Op.HasWeight() && w != nil && w.Spec.Format.IsInteger() && !(in != nil && in.Spec.Format.IsInteger())
}

// freezeCodes is the weight of a weight-only layer: codes, with the scales as they are, since batch norm stays outside.
func (m *Model) freezeCodes(n *Node, w *Param, q *quant.Params) (*Param, error) {
	scale := make([]float32, max(q.Spec.Scales(len(w.Data), n.Attr.Units), n.Attr.Units))
	codes := make([]int8, len(w.Data))
	if _, err := CodeWeights(codes, scale, w.Data, q, m.Quant[n.In[0]], nil); err != nil {
		return nil, n.errorf("weight: %w", err)
	}
	scale = scale[:q.Spec.Scales(len(w.Data), n.Attr.Units)]
	m.Quant[n.Param(Weight)] = &quant.Params{Spec: q.Spec, Scale: scale, Zero: make([]int32, len(scale)), Channels: q.Channels}
	return &Param{Codes: codes}, nil
}

// weightCodes checks the weight of a weight-only layer.
func (v *validator) weightCodes(n *Node, w *Param, q *quant.Params) error {
	if err := q.Validate(n.Attr.Units); err != nil {
		return n.errorf("weight: %w", err)
	}
	if !q.Spec.Signed || q.Spec.Format.Bits() > 8 || len(q.Scale) != q.Spec.Scales(len(w.Codes), n.Attr.Units) {
		return n.errorf("weight %s with %d scales: weights are signed codes of at most 8 bits with all their scales", q.Spec, len(q.Scale))
	}
	lo, hi := q.Spec.Grid()
	for i, code := range w.Codes {
		if int32(code) < lo || int32(code) > hi {
			return n.errorf("weight code[%d] = %d is outside the grid [%d, %d] of %s", i, code, lo, hi, q.Spec.Format)
		}
	}
	return nil
}
