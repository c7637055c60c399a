package eval_test

import (
	"fmt"

	"github.com/narrow-ml/narrow/export/onnx/eval"
	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

// A file that quantizes its input: codes are seen by the name of the tensor.
func ExampleProgram_Run() {
	scale, err := onnxpb.FloatTensor("s", onnxpb.Float, nil, []float32{0.5})
	if err != nil {
		fmt.Println(err)
		return
	}
	zero, err := onnxpb.IntTensor("z", onnxpb.Uint8, nil, []int64{10})
	if err != nil {
		fmt.Println(err)
		return
	}
	program, err := eval.Load(&onnxpb.Model{
		Opsets: []onnxpb.Opset{{Version: 17}},
		Graph: &onnxpb.Graph{
			Inputs:       []*onnxpb.ValueInfo{{Name: "x"}},
			Initializers: []*onnxpb.Tensor{scale, zero},
			Nodes: []*onnxpb.Node{
				{Op: "QuantizeLinear", Inputs: []string{"x", "s", "z"}, Outputs: []string{"codes"}},
				{Op: "DequantizeLinear", Inputs: []string{"codes", "s", "z"}, Outputs: []string{"y"}},
			},
			Outputs: []*onnxpb.ValueInfo{{Name: "y"}},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	out, err := program.Run(map[string]eval.Tensor{"x": eval.FloatTensor([]int{3}, []float32{0.25, 0.75, -100})}, eval.Integer,
		func(name string, t eval.Tensor) error {
			if !t.IsReal() {
				fmt.Println(name, t.Ints)
			}
			return nil
		})
	fmt.Println(out["y"].Reals, err)
	// Output:
	// codes [10 12 0]
	// [0 1 -5] <nil>
}
