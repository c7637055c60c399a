package qat

import (
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// Codes of 16 bits travel through the graph as the values s*q that they stand for: float tensors, of which pools, flatten and
// ReLU know all they need. An op that computes on codes takes them back, exactly:
//
//	q = rint(f32(s*q) / s)        |q| <= 2^15: the rounding errors of the product and the quotient are far below 1/2
//
// That also holds for q-z of codes of up to 8 bits, so such an op reads any edge as values.

// Centred writes q-z of the codes that values stand for.
func Centred(dst []int16, values []float32, scale float32) {
	for i, v := range values {
		dst[i] = int16(math.RoundToEven(float64(v / scale)))
	}
}

// Values adds the values of codes as a float tensor; the gradient passes through.
func Values(st *Step, name string, codes *G.Node, needDX bool) (*G.Node, error) {
	shape := codes.Shape()
	k := &codeValues{st: st, out: gx.NewTensor(shape...), row: shape.TotalSize() / shape[0], needDX: needDX}
	k.dst = k.out.Data().([]float32)
	k.each = func(_, lo, hi int) {
		s, z := k.in.Params.At(0)
		kernel.DequantizeU8(k.dst[lo*k.row:hi*k.row], k.in.U8[lo*k.row:hi*k.row], []float32{s}, z)
	}
	return gx.Apply(k, "values of "+name, k.out, codes)
}

type codeValues struct {
	st     *Step
	out    *tensor.Dense
	dst    []float32
	row    int
	in     *Codes
	needDX bool
	each   func(shard, lo, hi int)
}

func (k *codeValues) Run(in []G.Value) (G.Value, error) {
	codes, ok := in[0].(*Codes)
	if !ok || codes.U8 == nil {
		return nil, fmt.Errorf("needs codes of an activation, has %T", in[0])
	}
	k.in = codes
	return k.out, k.st.EachRow(k.each)
}

func (k *codeValues) Needs() []bool { return []bool{k.needDX} }

func (k *codeValues) Backward(_ G.Nodes, _, grad *G.Node) (G.Nodes, error) {
	if !k.needDX {
		return G.Nodes{nil}, nil
	}
	return G.Nodes{grad}, nil
}

// WideSum is a [Sum] of values of codes of which some have 16 bits.
type WideSum struct {
	Sum
	Values [2][]float32
}

// NewWideSum makes a sum of tensors with the given quantizers.
func NewWideSum(a, b *quant.Params, shape tensor.Shape) *WideSum {
	return &WideSum{Sum: Sum{A: &Codes{Params: a, shape: shape.Clone()}, B: &Codes{Params: b, shape: shape.Clone()}}}
}

func (s *WideSum) scaled(dst []float32, r *quant.Requant, from int) {
	for side, p := range []*quant.Params{s.A.Params, s.B.Params} {
		for i, v := range s.Values[side][from : from+len(dst)] {
			t := quant.Mul32(float32(math.RoundToEven(float64(v/p.Scale[0]))), r.M[side])
			if side == 0 {
				dst[i] = t
			} else {
				dst[i] += t
			}
		}
	}
}

func (s *WideSum) wide() bool { return true }

func (s *Sum) wide() bool { return false }

func (a *Acc) wide() bool { return a.Wide != nil }

// wideValues writes f32(f32(a)*m[c]) of 64-bit accumulators from element from on.
func (a *Acc) wideValues(dst []float32, from int, m []float32) {
	c := a.Channels()
	for i := range dst {
		sum := a.Wide[from+i] + int64(a.Offset[i%c])
		dst[i] = quant.Mul32(float32(sum), m[i%c])
	}
}

// NewWideAcc is NewAcc with 64-bit accumulators.
func NewWideAcc(shape tensor.Shape) *Acc {
	a := NewAccView(shape)
	a.Wide = make([]int64, shape.TotalSize())
	return a
}

// onWide reports whether the quantizer writes 16-bit codes or reads what 16-bit codes make.
func (a *Act) onWide() bool { return a.ys != nil || a.wait != nil && a.wait.wide() }

// wideExamples quantizes the examples [from, to) of a shard element by element, in training and out of it: t is a value in
// units of the scale, and codes go out as values or as bytes.
func (a *Act) wideExamples(s, from, to int) {
	e := a.row
	t := grow(&a.t[s], e)
	scale, z := a.p.At(0)
	lo, hi := a.p.Spec.Grid()
	relu := false
	if a.wait != nil {
		lo, hi, relu = a.rq.Lo, a.rq.Hi, a.wait.limit().Relu
	}
	bottom, top := float64(lo-z), float64(hi-z)
	for i := from; i < to; i++ {
		if a.wait != nil {
			a.wait.scaled(t, a.rq, i*e)
		} else {
			for k, x := range a.x[i*e : (i+1)*e] {
				if x != x && a.seen[s].nan < 0 {
					a.seen[s].nan = i*e + k
				}
				t[k] = x / scale
			}
		}
		mask := a.mask[i*a.maskRow:][:a.maskRow]
		clear(mask)
		least, most := t[0], t[0]
		for k, v := range t {
			least, most = min(least, v), max(most, v)
			r := math.RoundToEven(float64(v))
			if r >= bottom && r <= top && (!relu || v > 0) {
				mask[k>>3] |= 1 << (k & 7)
			}
			q := int32(min(max(r, bottom), top))
			if a.ys != nil {
				a.ys[i*e+k] = quant.Mul32(scale, float32(q))
			} else {
				a.out.U8[i*e+k] = uint8(q + z)
			}
		}
		if relu {
			least, most = max(least, 0), max(most, 0)
		}
		if a.wait == nil { // not in units of the scale
			least, most, _ = kernel.MinMax(a.x[i*e : (i+1)*e])
		}
		a.see(s, least, most)
	}
}

// wideCodes codes the master for a layer with 64-bit accumulators.
func (w *Weight) wideCodes(affine *model.Affine) error {
	q, c := w.out.Params, w.node.Attr.Units
	var err error
	if w.raised, err = model.CodeWide(w.wide, q.Scale, w.master, w.p, w.in, affine); err != nil {
		return err
	}
	if w.mask == nil {
		return nil
	}
	lo, hi := w.p.Spec.Grid()
	clear(w.mask)
	for i, v := range w.master {
		r := math.RoundToEven(float64(v / q.Scale[i%c]))
		in := r >= float64(lo) && r <= float64(hi)
		if w.p.Spec.Even {
			in = w.p.Spec.EvenPass(v / q.Scale[i%c])
		}
		if in {
			w.mask[i>>3] |= 1 << (i & 7)
		}
	}
	return nil
}

// Wide are the codes of a layer with 64-bit accumulators.
func (w *Weight) Wide() []int16 { return w.wide }
