package qat

import (
	"fmt"
	"strings"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/quant"
)

// QuantizeInput adds the quantizer of a network's input to bytes, a leaf holding [Codes]. It has nothing to compute: a
// byte p stands for s*(p-z), so the bytes are the codes.
func QuantizeInput(name string, bytes *G.Node, p *quant.Params) (*G.Node, error) {
	codes, ok := bytes.Value().(*Codes)
	if !ok || codes.U8 == nil {
		return nil, fmt.Errorf("input %q: needs a leaf of u8 codes, has %T", name, bytes.Value())
	}
	return gx.Apply(inputCodes{}, label("input", name, p.Spec), codes, bytes)
}

type inputCodes struct{}

func (inputCodes) Run(in []G.Value) (G.Value, error) { return in[0], nil }

// DequantizeInput adds the real values of a network's input bytes, for networks that compute in float32.
func DequantizeInput(st *Step, name string, bytes *G.Node) (*G.Node, error) {
	shape := bytes.Shape()
	k := &inputValues{st: st, out: gx.NewTensor(shape...), row: shape.TotalSize() / shape[0]}
	k.dst = k.out.Data().([]float32)
	k.each = k.shard
	return gx.Apply(k, "values("+name+")", k.out, bytes)
}

type inputValues struct {
	st   *Step
	out  *tensor.Dense
	dst  []float32
	row  int
	in   *Codes
	each func(shard, lo, hi int)
}

func (k *inputValues) Run(in []G.Value) (G.Value, error) {
	k.in = in[0].(*Codes)
	return k.out, k.st.EachRow(k.each)
}

// shard computes s*(p-z) with one rounding: the difference is exact.
func (k *inputValues) shard(_, lo, hi int) {
	s, z := k.in.Params.At(0)
	kernel.DequantizeU8(k.dst[lo*k.row:hi*k.row], k.in.U8[lo*k.row:hi*k.row], []float32{s}, z)
}

// prefix begins the names of quantizing nodes.
const prefix = "fakequant "

// label is the name of a quantizing node, in errors and drawings.
func label(what, name string, spec quant.Spec) string {
	return fmt.Sprintf("%s%s %s [%s]", prefix, what, name, spec)
}

// IsQuantizer reports whether a node was made by this package to quantize: what drawings of the graph highlight.
func IsQuantizer(n *G.Node) bool {
	return n.Op() != nil && strings.HasPrefix(gx.Name(n), prefix)
}
