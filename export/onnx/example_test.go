package onnx_test

import (
	"bytes"
	"fmt"

	"github.com/narrow-ml/narrow/export/onnx"
	"github.com/narrow-ml/narrow/export/onnx/eval"
	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// A dense layer with two weights becomes an int8 file, which the interpreter reads as integers.
func ExampleWrite() {
	m := model.New("tiny", model.Input{Name: "x", Shape: model.Shape{2}, Scale: 0.5, Zero: 10})
	m.Append(model.Node{Name: "y", Layer: "y", Op: model.Dense, Attr: model.Attr{Units: 1, Bias: true}})
	steps := []func(*model.Model) (*model.Model, error){
		model.Shapes,
		func(m *model.Model) (*model.Model, error) {
			copy(m.Params["y.weight"].Data, []float32{1.27, -0.5})
			m.Params["y.bias"].Data[0] = 2
			return model.Place(m, model.DefaultQuant(quant.Precision{Weight: quant.Int8, Act: quant.Int8}))
		},
		model.Freeze,
	}
	for _, step := range steps {
		var err error
		if m, err = step(m); err != nil {
			fmt.Println(err)
			return
		}
	}
	var file bytes.Buffer
	if err := onnx.Write(&file, m, onnx.Options{}); err != nil {
		fmt.Println(err)
		return
	}
	pb, err := onnxpb.Unmarshal(file.Bytes())
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, n := range pb.Graph.Nodes {
		fmt.Println(n.Op, "->", n.Outputs[0])
	}
	program, err := eval.Load(pb)
	if err != nil {
		fmt.Println(err)
		return
	}
	out, err := program.Run(map[string]eval.Tensor{"x": onnx.InputTensor(m.Inputs[0], []uint8{12, 6}, 1)}, eval.Integer, nil)
	fmt.Printf("%.3f %v\n", out["y"].Float32s()[0], err) // 1*1.27 + 2*0.5 + 2
	// Output:
	// QuantizeLinear -> x_codes
	// DequantizeLinear -> x_dq
	// DequantizeLinear -> y.weight_dq
	// DequantizeLinear -> y.bias_dq
	// Gemm -> y
	// 4.270 <nil>
}
