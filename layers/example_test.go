package layers_test

import (
	"fmt"
	"log"

	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
)

// A network of one dense layer learns which of two pixels is brighter, by plain gradient descent. The parameters are the
// model's own: an evaluation graph of the same model sees them at once.
func ExampleBuild() {
	m := model.New("brighter", model.Input{Name: "pixels", Shape: model.Shape{2}, Scale: 1.0 / 255})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: 2, Bias: true}})
	m, err := model.Shapes(m)
	if err != nil {
		log.Fatal(err)
	}
	if err := layers.Init(m, 1); err != nil {
		log.Fatal(err)
	}
	train, err := layers.Build(m, layers.Options{Batch: 4, Train: true})
	if err != nil {
		log.Fatal(err)
	}
	defer train.Close()
	pixels, labels := []uint8{200, 10, 90, 30, 0, 60, 100, 255}, []int32{0, 0, 1, 1}
	for range 100 {
		if _, err := train.Run(pixels, labels, 4); err != nil {
			log.Fatal(err)
		}
		for _, p := range train.Trainables() {
			for i, g := range p.Grad {
				p.Value[i] -= g
			}
		}
	}
	for _, p := range train.Trainables() {
		fmt.Println(p.Name, p.Role, len(p.Value))
	}

	eval, err := layers.Build(m, layers.Options{Batch: 2})
	if err != nil {
		log.Fatal(err)
	}
	defer eval.Close()
	r, err := eval.Run([]uint8{20, 80, 140, 60}, []int32{1, 0}, 2)
	fmt.Println(r.Correct, "of", r.N, err)
	// Output:
	// fc.bias bias 2
	// fc.weight weight 4
	// 2 of 2 <nil>
}
