package ptq_test

import (
	"context"
	"fmt"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat/ptq"
	"github.com/narrow-ml/narrow/quant"
)

// A float model with one hidden layer becomes an int8 model; its activation scale comes from the examples.
func ExampleCalibrate() {
	m := model.New("tiny", model.Input{Name: "x", Shape: model.Shape{2}, Scale: 1})
	m.Append(model.Node{Name: "fc1/dense", Layer: "fc1", Op: model.Dense, Attr: model.Attr{Units: 2, Bias: true}})
	m.Append(model.Node{Name: "fc1", Layer: "fc1", Op: model.ReLU})
	m.Append(model.Node{Name: "fc2", Layer: "fc2", Op: model.Dense, Attr: model.Attr{Units: 2}})
	m, err := model.Shapes(m)
	if err != nil {
		fmt.Println(err)
		return
	}
	if m, err = model.Fuse(m); err != nil {
		fmt.Println(err)
		return
	}
	m.Params["fc1.weight"].Data = []float32{1, -1, 0.5, 1}
	m.Params["fc2.weight"].Data = []float32{1, -1, -1, 1}

	// Three examples. fc1 gives (20, 10), (0, 0) and (102, 0) after its ReLU.
	set := &datasets.Set{Shape: []int{2}, X: []uint8{10, 20, 0, 0, 102, 0}, Labels: []int32{0, 1, 0}}
	q, err := ptq.Calibrate(context.Background(), m, model.DefaultQuant(quant.Precision{Weight: quant.Int8, Act: quant.Int8}), set, ptq.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fc1 := q.Quant["fc1"]
	fmt.Println(q.Stage, fc1.Spec.Format, fc1.Scale, fc1.Zero)
	// Output:
	// quantized int8 [0.4] [0]
}
