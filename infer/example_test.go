package infer_test

import (
	"fmt"
	"log"

	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// threshold is a two-pixel classifier: class 1 where the second pixel is brighter than the first.
func threshold() *model.Model {
	m := model.New("threshold", model.Input{Name: "pixels", Shape: model.Shape{2}, Scale: 1.0 / 255, Labels: []string{"first", "second"}})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: 2}})
	m, err := model.Shapes(m)
	if err != nil {
		log.Fatal(err)
	}
	copy(m.Params["fc.weight"].Data, []float32{1, -1, -1, 1})
	return m
}

// A float model is compiled as it is, a quantized one is frozen first; both take the same bytes.
func Example() {
	m := threshold()
	float, err := infer.Compile(m, infer.Options{})
	if err != nil {
		log.Fatal(err)
	}
	q, err := model.Place(m, model.DefaultQuant(quant.Precision{Weight: quant.Int8, Act: quant.Int8}))
	if err != nil {
		log.Fatal(err)
	}
	integer, err := infer.Compile(q, infer.Options{})
	if err != nil {
		log.Fatal(err)
	}
	pixels := []uint8{
		200, 10,
		0, 255,
		7, 7,
	}
	logits := make([]float32, 3*float.Classes())
	for _, e := range []*infer.Engine{float, integer} {
		if err := e.Run(logits, pixels, 3); err != nil {
			log.Fatal(err)
		}
		labels := e.Model().Inputs[0].Labels
		for i := range 3 {
			row := logits[2*i:][:2]
			fmt.Printf("%.3f %s\n", row, labels[infer.ArgMax(row)])
		}
	}
	// Output:
	// [0.745 -0.745] first
	// [-1.000 1.000] second
	// [0.000 0.000] first
	// [0.745 -0.745] first
	// [-1.000 1.000] second
	// [0.000 0.000] first
}

// Trace shows every tensor: here the codes of the input and the accumulators of the one layer.
func ExampleEngine_Trace() {
	q, err := model.Place(threshold(), model.DefaultQuant(quant.Precision{Weight: quant.Int4, Act: quant.Int8}))
	if err != nil {
		log.Fatal(err)
	}
	e, err := infer.Compile(q, infer.Options{})
	if err != nil {
		log.Fatal(err)
	}
	err = e.Trace([]uint8{200, 10}, 1, func(t infer.Tensor) error {
		fmt.Printf("%s %v codes %v acc %v\n", t.Name, t.Shape, t.Codes, t.Acc)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// pixels [2] codes [200 10] acc []
	// fc [2] codes [] acc [1330 -1330]
}
