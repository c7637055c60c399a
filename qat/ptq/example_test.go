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

// The first layer's channels have ranges 8 and 2, what reads them 2 and 8. Both become 4; the function stays.
func ExampleEqualize() {
	m := model.New("tiny", model.Input{Name: "x", Shape: model.Shape{1}, Scale: 1})
	m.Append(model.Node{Name: "fc1/dense", Layer: "fc1", Op: model.Dense, Attr: model.Attr{Units: 2}})
	m.Append(model.Node{Name: "fc1", Layer: "fc1", Op: model.ReLU})
	m.Append(model.Node{Name: "fc2", Layer: "fc2", Op: model.Dense, Attr: model.Attr{Units: 1}})
	m, err := model.Shapes(m)
	if err != nil {
		fmt.Println(err)
		return
	}
	m.Params["fc1.weight"].Data = []float32{8, -2}
	m.Params["fc2.weight"].Data = []float32{2, 8}
	equal, pairs, err := ptq.Equalize(m)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(equal.Params["fc1.weight"].Data, equal.Params["fc2.weight"].Data)
	fmt.Printf("%s to %s: %v-fold, then %v-fold\n", pairs[0].From, pairs[0].To, pairs[0].Before, pairs[0].After)
	// Output:
	// [4 -4] [4 4]
	// fc1 to fc2: 4-fold, then 1-fold
}

// Two inputs are always equal, so only the sum of their weights counts: in steps of about 1/3, 0.45 + 0.45 is better served
// by 1/3 + 2/3 than by rounding each to 1/3.
func ExampleQuantize() {
	m := model.New("tiny", model.Input{Name: "x", Shape: model.Shape{3}, Scale: 0.01})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: 1, Bias: true}})
	m, err := model.Shapes(m)
	if err != nil {
		fmt.Println(err)
		return
	}
	m.Params["fc.weight"].Data = []float32{0.45, 0.45, 1}
	set := &datasets.Set{Shape: []int{3}, Labels: make([]int32, 32)}
	for i := range set.Labels {
		set.X = append(set.X, uint8(8*i), uint8(8*i), uint8(100+i%7))
	}
	q := model.DefaultQuant(quant.Precision{Weight: quant.Int3, Act: quant.Int8})
	for _, r := range []ptq.Rounding{ptq.Nearest, ptq.GPTQ} {
		out, err := ptq.Quantize(context.Background(), m, q, set, nil, ptq.Options{Method: ptq.MSE, Rounding: r, BiasCorrection: r == ptq.GPTQ})
		if err != nil {
			fmt.Println(err)
			return
		}
		frozen, err := model.Freeze(out.Model)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("codes %v, passes %q\n", frozen.Params["fc.weight"].Codes, out.Passes())
	}
	// Output:
	// codes [1 1 3], passes ""
	// codes [1 2 3], passes "gptq, bias correction"
}
