package qat_test

import (
	"fmt"
	"log"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/qat"
	"github.com/narrow-ml/narrow/quant"
)

// A line y = w*x is fitted by Gorgonia's own ops and solver, with the weight on a grid of 15 points: the solver moves the
// master, the network only ever sees the grid.
func ExampleFakeQuant() {
	g := G.NewGraph()
	x := G.NewMatrix(g, tensor.Float32, G.WithName("x"), G.WithShape(4, 2), G.WithValue(
		tensor.New(tensor.WithShape(4, 2), tensor.WithBacking([]float32{1, 0, 0, 1, 1, 1, 2, -1}))))
	want := G.NewMatrix(g, tensor.Float32, G.WithName("want"), G.WithShape(4, 1), G.WithValue(
		tensor.New(tensor.WithShape(4, 1), tensor.WithBacking([]float32{0.7, -0.3, 0.4, 1.7}))))
	w := G.NewMatrix(g, tensor.Float32, G.WithName("w"), G.WithShape(2, 1), G.WithValue(
		tensor.New(tensor.WithShape(2, 1), tensor.WithBacking([]float32{0.1, 0.1}))))

	wq, quantizer, err := qat.FakeQuant(w, qat.Config{Spec: quant.WeightSpec(quant.Int4), Axis: 1, Weight: true})
	if err != nil {
		log.Fatal(err)
	}
	cost := G.Must(G.Mean(G.Must(G.Square(G.Must(G.Sub(G.Must(G.Mul(x, wq)), want))))))
	if _, err := G.Grad(cost, w); err != nil {
		log.Fatal(err)
	}
	vm := G.NewTapeMachine(g, G.BindDualValues(w))
	defer vm.Close()
	solver := G.NewVanillaSolver(G.WithLearnRate(0.125))
	for range 60 {
		if err := vm.RunAll(); err != nil {
			log.Fatal(err)
		}
		if err := solver.Step(G.NodesToValueGrads(G.Nodes{w})); err != nil {
			log.Fatal(err)
		}
		vm.Reset()
	}
	master := w.Value().Data().([]float32)
	codes := make([]int8, len(master))
	p := quantizer.Params()
	if err := quant.Quantize(codes, master, p); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("codes %d, scale %.1f\n", codes, p.Scale[0])
	// Output: codes [7 -3], scale 0.1
}
