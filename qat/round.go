package qat

import (
	"errors"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/quant"
)

// Round adds the value rounding of a 16-bit float format: y is x rounded, computed again at every step. The gradient
// passes straight through. A value that overflows the format is an error. A weight has no batch axis: all of it is
// rounded; of an activation the rows in use.
func Round(st *Step, name string, x *G.Node, f quant.Format, weight, needDX bool) (*G.Node, error) {
	shape := x.Shape()
	k := &round{st: st, format: f, out: gx.NewTensor(shape...), row: shape.TotalSize() / shape[0], rows: shape[0], weight: weight, needDX: needDX}
	k.dst = k.out.Data().([]float32)
	k.each = k.shard
	what := "activation"
	if weight {
		what = "weight"
	}
	return gx.Apply(k, label(what, name, quant.Spec{Format: f}), k.out, x)
}

type round struct {
	st        *Step
	format    quant.Format
	out       *tensor.Dense
	row, rows int
	weight    bool
	needDX    bool

	src, dst []float32
	errs     [par.Shards]error
	each     func(shard, lo, hi int)
}

func (k *round) Run(in []G.Value) (G.Value, error) {
	src, err := gx.Floats(in[0])
	if err != nil {
		return nil, err
	}
	k.src = src
	n := k.st.Rows
	if k.weight {
		n = k.rows
	}
	if err := k.st.Each(n, k.each); err != nil {
		return nil, err
	}
	for s := range par.Count(n) {
		if k.errs[s] != nil {
			lo, _ := par.Span(n, s)
			return nil, offset(k.errs[s], lo*k.row)
		}
	}
	return k.out, nil
}

func (k *round) shard(s, lo, hi int) {
	k.errs[s] = quant.Round16(k.dst[lo*k.row:hi*k.row], k.src[lo*k.row:hi*k.row], k.format)
}

// offset makes the index in a shard's error one in the whole tensor.
func offset(err error, by int) error {
	var nan *quant.NaNError
	var over *quant.OverflowError
	switch {
	case errors.As(err, &nan):
		return &quant.NaNError{Index: nan.Index + by}
	case errors.As(err, &over):
		return &quant.OverflowError{Index: over.Index + by, Value: over.Value, Format: over.Format}
	}
	return err
}

func (k *round) Needs() []bool { return []bool{k.needDX} }

func (k *round) Backward(_ G.Nodes, _, grad *G.Node) (G.Nodes, error) {
	if !k.needDX {
		return G.Nodes{nil}, nil
	}
	return G.Nodes{grad}, nil
}
