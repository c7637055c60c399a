package onnxpb_test

import (
	"fmt"

	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

// A model of one node, written and read back.
func Example() {
	weights, err := onnxpb.IntTensor("w", onnxpb.Int8, []int64{2, 2}, []int8{1, -2, 3, -4})
	if err != nil {
		fmt.Println(err)
		return
	}
	file := onnxpb.Marshal(&onnxpb.Model{
		IRVersion: 8,
		Opsets:    []onnxpb.Opset{{Version: 17}},
		Graph: &onnxpb.Graph{
			Name:         "tiny",
			Nodes:        []*onnxpb.Node{{Op: "MatMulInteger", Inputs: []string{"x", "w"}, Outputs: []string{"y"}}},
			Initializers: []*onnxpb.Tensor{weights},
			Inputs: []*onnxpb.ValueInfo{{Name: "x", Type: onnxpb.TensorType(onnxpb.Uint8, &onnxpb.Shape{
				Dims: []onnxpb.Dim{onnxpb.SymbolicDim("N"), onnxpb.FixedDim(2)}})}},
		},
	})
	m, err := onnxpb.Unmarshal(file)
	if err != nil {
		fmt.Println(err)
		return
	}
	w, err := m.Graph.Initializers[0].Ints()
	fmt.Println(m.Graph.Nodes[0].Op, m.Graph.Inputs[0].Type.Shape.Dims[0].Param, w, err)
	// Output: MatMulInteger N [1 -2 3 -4] <nil>
}
