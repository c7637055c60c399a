package eval_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/export/onnx/eval"
	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

// signGraph writes GreaterOrEqual with a number and a choice between two codes.
func signGraph(t *testing.T, from float32) *eval.Program {
	t.Helper()
	g := &onnxpb.Graph{Name: "signs", Inputs: []*onnxpb.ValueInfo{{Name: "x", Type: onnxpb.TensorType(onnxpb.Float, &onnxpb.Shape{Dims: []onnxpb.Dim{onnxpb.SymbolicDim("N")}})}}}
	zero, err := onnxpb.FloatTensor("from", onnxpb.Float, nil, []float32{from})
	if err != nil {
		t.Fatal(err)
	}
	g.Initializers = append(g.Initializers, zero)
	for name, code := range map[string]int32{"hi": 2, "lo": 0} {
		c, err := onnxpb.IntTensor(name, onnxpb.Uint8, nil, []int32{code})
		if err != nil {
			t.Fatal(err)
		}
		g.Initializers = append(g.Initializers, c)
	}
	g.Nodes = []*onnxpb.Node{
		{Op: "GreaterOrEqual", Inputs: []string{"x", "from"}, Outputs: []string{"positive"}},
		{Op: "Where", Inputs: []string{"positive", "hi", "lo"}, Outputs: []string{"y"}},
	}
	g.Outputs = []*onnxpb.ValueInfo{{Name: "y"}}
	p, err := eval.Load(&onnxpb.Model{IRVersion: 8, Opsets: []onnxpb.Opset{{Version: 17}}, Graph: g})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestSignsOfReals: both readings give a real from the number on the first code, -0 with 0.
func TestSignsOfReals(t *testing.T) {
	x := eval.Tensor{Type: onnxpb.Float, Shape: []int{5}, Reals: []float64{-1, -1e-45, 0, 0.5, 3}}
	for _, reading := range []eval.Reading{eval.Float, eval.Integer} {
		for from, want := range map[float32][]int64{0: {0, 0, 2, 2, 2}, 0.5: {0, 0, 0, 2, 2}} {
			out, err := signGraph(t, from).Run(map[string]eval.Tensor{"x": x}, reading, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := out["y"].Ints; !slices.Equal(got, want) {
				t.Errorf("reading %d, from %v: %v, want %v", reading, from, got, want)
			}
		}
	}
	x = eval.Tensor{Type: onnxpb.Float, Shape: []int{}, Reals: []float64{1}}
	if _, err := signGraph(t, 0).Run(map[string]eval.Tensor{"x": x}, eval.Float, nil); !errors.Is(err, eval.ErrModel) {
		t.Errorf("a scalar where a row was declared: %v", err)
	}
}
