package qat

import (
	"fmt"
	"unsafe"

	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// Sum is the sum of two tensors of codes on an edge of the graph. It is added up by the quantizer behind it, in units of
// that quantizer's scale (model.NewAddRequant), so the value itself holds no sums. To Gorgonia it is a float32 tensor.
type Sum struct {
	A, B *Codes
	Limit
}

// terms are the elements [from, to) of both sides, in units of the output's scale.
func (s *Sum) terms(r *quant.Requant, from, to int) (a, b kernel.Term) {
	term := func(c *Codes, m float32) kernel.Term {
		_, z := c.Params.At(0)
		return kernel.Term{Q: c.U8[from:to], Zero: z, M: m}
	}
	return term(s.A, r.M[0]), term(s.B, r.M[1])
}

// Shape is the shape of the value, batch first.
func (s *Sum) Shape() tensor.Shape { return s.A.shape }

// Size is the number of elements.
func (s *Sum) Size() int { return s.A.Size() }

// Data is the codes of the first side.
func (s *Sum) Data() any { return s.A.Data() }

// Dtype is the type of the gradients, float32.
func (s *Sum) Dtype() tensor.Dtype { return tensor.Float32 }

// Uintptr is the address of the value.
func (s *Sum) Uintptr() uintptr { return uintptr(unsafe.Pointer(s)) }

// MemSize is the size of the codes of both sides in bytes.
func (s *Sum) MemSize() uintptr { return s.A.MemSize() + s.B.MemSize() }

// Format prints the kind and shape of the value.
func (s *Sum) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "sum of codes %v", s.A.shape) }

// pending is what waits for its quantizer: [*Acc] or [*Sum].
type pending interface {
	limit() Limit
	// requant is how the value comes onto the grid of out.
	requant(out *quant.Params) *quant.Requant
	// round writes the codes of the elements [from, to), whole rows of channels; train also keeps the straight-through
	// mask and says what it saw before clamping, in units of the output's scale.
	round(dst []uint8, r *quant.Requant, from, to int)
	train(dst, mask []uint8, r *quant.Requant, from, to int) kernel.RequantStats
	// scaled writes the values from element from on in units of the output's scale, before any limit.
	scaled(dst []float32, r *quant.Requant, from int)
	// wide reports that codes of 16 bits are involved: only scaled is for these.
	wide() bool
}

func (l Limit) limit() Limit { return l }

func (s *Sum) requant(out *quant.Params) *quant.Requant {
	return model.NewAddRequant(s.attr(), s.A.Params, s.B.Params, out)
}

func (s *Sum) round(dst []uint8, r *quant.Requant, from, to int) {
	a, b := s.terms(r, from, to)
	kernel.AddRequant(dst, a, b, r.Zero, r.Lo, r.Hi)
}

func (s *Sum) train(dst, mask []uint8, r *quant.Requant, from, to int) kernel.RequantStats {
	a, b := s.terms(r, from, to)
	return kernel.AddRequantTrain(dst, mask, a, b, r.Zero, r.Lo, r.Hi, s.Relu)
}

func (s *Sum) scaled(dst []float32, r *quant.Requant, from int) {
	a, b := s.terms(r, from, from+len(dst))
	kernel.AddScaled(dst, a, b)
}

func (a *Acc) requant(out *quant.Params) *quant.Requant {
	if a.Cells == 0 {
		return model.NewRequant(a.attr(), a.InScale, a.Scale, out)
	}
	r := model.NewMeanRequant(a.attr(), a.Cells, &quant.Params{Scale: []float32{a.InScale}, Zero: []int32{0}}, out)
	m := r.M[0]
	r.M = make([]float32, a.Channels())
	for c := range r.M {
		r.M[c] = m
	}
	return r
}

func (a *Acc) round(dst []uint8, r *quant.Requant, from, to int) {
	if r.Sign {
		kernel.RequantSign(dst, a.Raw[from:to], a.Offset, a.Channels())
		return
	}
	kernel.RequantRows(dst, a.Raw[from:to], a.Offset, r.M, r.Zero, r.Lo, r.Hi, a.Channels())
}

func (a *Acc) train(dst, mask []uint8, r *quant.Requant, from, to int) kernel.RequantStats {
	if r.Sign {
		return kernel.RequantSignTrain(dst, mask, a.Raw[from:to], a.Offset, r.M)
	}
	return kernel.RequantTrain(dst, mask, a.Raw[from:to], a.Offset, r.M, r.Zero, r.Lo, r.Hi, a.Relu, a.Channels())
}

func (a *Acc) scaled(dst []float32, r *quant.Requant, from int) {
	if a.Wide != nil {
		a.wideValues(dst, from, r.M)
		return
	}
	kernel.ScaleRows(dst, a.Raw[from:from+len(dst)], a.Offset, r.M, a.Channels())
}
