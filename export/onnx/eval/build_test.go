package eval_test

import (
	"testing"

	"github.com/narrow-ml/narrow/export/onnx/eval"
	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

// builder assembles QDQ models for the tests; it knows nothing of the writer in export/onnx.
type builder struct {
	t testing.TB
	m *onnxpb.Model
}

func newBuilder(t testing.TB) *builder {
	return &builder{t, &onnxpb.Model{IRVersion: 8, Opsets: []onnxpb.Opset{{Version: 17}}, Graph: &onnxpb.Graph{Name: "test"}}}
}

func (b *builder) input(name string, dims ...int64) string {
	shape := &onnxpb.Shape{Dims: []onnxpb.Dim{onnxpb.SymbolicDim("N")}}
	for _, d := range dims {
		shape.Dims = append(shape.Dims, onnxpb.FixedDim(d))
	}
	b.m.Graph.Inputs = append(b.m.Graph.Inputs, &onnxpb.ValueInfo{Name: name, Type: onnxpb.TensorType(onnxpb.Float, shape)})
	return name
}

func (b *builder) output(name string) {
	b.m.Graph.Outputs = append(b.m.Graph.Outputs, &onnxpb.ValueInfo{Name: name})
}

func (b *builder) node(op, out string, in []string, attrs ...*onnxpb.Attribute) string {
	b.m.Graph.Nodes = append(b.m.Graph.Nodes, &onnxpb.Node{Op: op, Inputs: in, Outputs: []string{out}, Attrs: attrs})
	return out
}

func (b *builder) add(t *onnxpb.Tensor, err error) string {
	if err != nil {
		b.t.Helper()
		b.t.Fatal(err)
	}
	b.m.Graph.Initializers = append(b.m.Graph.Initializers, t)
	return t.Name
}

func (b *builder) ints(name string, typ onnxpb.DataType, dims []int64, v ...int64) string {
	return b.add(onnxpb.IntTensor(name, typ, dims, v))
}

func (b *builder) floats(name string, dims []int64, v ...float32) string {
	return b.add(onnxpb.FloatTensor(name, onnxpb.Float, dims, v))
}

// grid adds a scale and a uint8 zero point.
func (b *builder) grid(name string, s float32, z int64) (scale, zero string) {
	return b.floats(name+"_s", nil, s), b.ints(name+"_z", onnxpb.Uint8, nil, z)
}

// quant puts x on a uint8 grid as tensor name, and returns the dequantized tensor.
func (b *builder) quant(name, x string, s float32, z int64) string {
	sc, zp := b.grid(name, s, z)
	b.node("QuantizeLinear", name, []string{x, sc, zp})
	return b.node("DequantizeLinear", name+"_dq", []string{name, sc, zp})
}

// weight adds int8 codes with a scale per index of axis.
func (b *builder) weight(name string, dims []int64, axis int64, codes []int64, scale ...float32) string {
	w := b.ints(name+"_q", onnxpb.Int8, dims, codes...)
	s := b.floats(name+"_s", []int64{int64(len(scale))}, scale...)
	z := b.ints(name+"_z", onnxpb.Int8, []int64{int64(len(scale))}, make([]int64, len(scale))...)
	return b.node("DequantizeLinear", name, []string{w, s, z}, onnxpb.IntAttr("axis", axis))
}

// bias adds int32 codes in units of the accumulator.
func (b *builder) bias(name string, codes []int64, scale ...float32) string {
	n := []int64{int64(len(codes))}
	w := b.ints(name+"_q", onnxpb.Int32, n, codes...)
	s := b.floats(name+"_s", []int64{int64(len(scale))}, scale...)
	return b.node("DequantizeLinear", name, []string{w, s}, onnxpb.IntAttr("axis", 0))
}

// load goes through the bytes, as a reader of a file would.
func (b *builder) load() *eval.Program {
	b.t.Helper()
	m, err := onnxpb.Unmarshal(onnxpb.Marshal(b.m))
	if err != nil {
		b.t.Fatal(err)
	}
	p, err := eval.Load(m)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}
