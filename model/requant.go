package model

import (
	"math"

	"github.com/narrow-ml/narrow/quant"
)

// NewRequant is the requantization of an integer layer with input scale sx, accumulator scales sx*s[c] and output
// quantizer out; nil out means float32 logits. A fused ReLU is a limit.
func NewRequant(n *Node, sx float32, s []float32, out *quant.Params) *quant.Requant {
	m := make([]float32, len(s))
	if out == nil {
		for c := range s {
			m[c] = quant.Mul32(sx, s[c])
		}
		return &quant.Requant{M: m, Float: true}
	}
	sy, _ := out.At(0)
	for c := range s {
		m[c] = quant.Multiplier(sx, s[c], sy)
	}
	return limited(n, m, out)
}

// NewAddRequant is the requantization of an addition of codes of a and b: one multiplier for each,
//
//	M = float32(s / s_y)
func NewAddRequant(n *Node, a, b, out *quant.Params) *quant.Requant {
	sa, _ := a.At(0)
	sb, _ := b.At(0)
	sy, _ := out.At(0)
	return limited(n, []float32{sa / sy, sb / sy}, out)
}

// NewMeanRequant is the requantization of sums over a number of cells of codes of in:
//
//	M = float32(s_x / float32(cells*s_y))
func NewMeanRequant(n *Node, cells int, in, out *quant.Params) *quant.Requant {
	sx, _ := in.At(0)
	sy, _ := out.At(0)
	return limited(n, []float32{sx / quant.Mul32(float32(cells), sy)}, out)
}

// maxAddMultiplier keeps both terms of a sum finite, so that they cannot be infinities of opposite sign.
const maxAddMultiplier = math.MaxFloat32 / 1024

// checkPlainRequant checks the requantization of an addition or a global average beyond its form.
func (n *Node) checkPlainRequant() error {
	for i, m := range n.Requant.M {
		if n.Op == Add && m > maxAddMultiplier {
			return n.errorf("multiplier[%d] is %v: the scales of %q and of the sum are out of all proportion", i, m, n.In[i])
		}
	}
	return nil
}

// plainRequant is the requantization of an addition or a global average of m.
func (m *Model) plainRequant(n *Node) *quant.Requant {
	a, out := m.Quant[n.In[0]], m.Quant[n.Name]
	if n.Op == Add {
		return NewAddRequant(n, a, m.Quant[n.In[1]], out)
	}
	in, _ := m.ShapeOf(n.In[0])
	return NewMeanRequant(n, in[0]*in[1], a, out)
}

// WantRequant is the requantization that follows from the scales of a Frozen model, and nil where there is none.
func (m *Model) WantRequant(n *Node) *quant.Requant {
	if n.Requant == nil {
		return nil
	}
	if !n.Op.HasWeight() {
		return m.plainRequant(n)
	}
	sx, _ := m.Quant[n.In[0]].At(0)
	return NewRequant(n, sx, m.Quant[n.Param(Weight)].Scale, m.Quant[n.Name])
}

func limited(n *Node, m []float32, out *quant.Params) *quant.Requant {
	r := &quant.Requant{M: m, Sign: out.Spec.IsSign()}
	r.Zero, r.Lo, r.Hi = n.Limits(out)
	return r
}

// Limits are the zero point of q and the codes that the node's ReLU leaves: at least the zero point, and with a cap at
// most
//
//	min(hi, z + rint(cap / s))
func (n *Node) Limits(q *quant.Params) (zero, lo, hi int32) {
	s, zero := q.At(0)
	lo, hi = q.Spec.Grid()
	if !n.Attr.Relu && n.Op != ReLU {
		return zero, lo, hi
	}
	if n.Attr.Cap > 0 {
		if t := math.RoundToEven(float64(n.Attr.Cap / s)); t < float64(hi-zero) {
			hi = zero + int32(t)
		}
	}
	return zero, zero, hi
}
