package layers_test

import (
	"math"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// 16-bit networks train to the same bits for any number of workers and with either setting of fuse, and the evaluation
// graph gives the engine's codes.
func TestWideGraphs(t *testing.T) {
	x, _ := blobs(40, 96, 77)
	for _, float := range []*model.Model{tiledNet(t), resNet(t)} {
		for name, change := range map[string]func(*model.QuantConfig){"minmax": nil, "lsq": learned} {
			q := quantized(t, float.Clone(), precision(t, "int16"), change)
			want := track(t, q.Clone(), false, 1, layers.BackwardFloat)
			for _, backward := range []string{layers.BackwardFloat, layers.BackwardInt16} { // 16-bit layers stay on float32
				if got := track(t, q.Clone(), true, 2, backward); !slices.Equal(got, want) {
					t.Errorf("%s, %s: two workers leave other bits", float.Name, name)
				}
			}
			if change != nil {
				continue // this package's plain Adam steps over scales of 1e-5; package train steps in their logarithm
			}
			adam(t, build(t, q, layers.Options{Batch: 20, Train: true}), 20, 3, 96, 0.01)
			eval := build(t, q, layers.Options{Batch: 40})
			run(t, eval, x, nil, 40)
			e, err := infer.Compile(q, infer.Options{Workers: 1, MaxBatch: 40})
			if err != nil {
				t.Fatal(err)
			}
			err = e.Trace(x, 40, func(tensor infer.Tensor) error {
				if codes := eval.WideCodes(tensor.Name); !slices.Equal(codes, tensor.Wide) {
					t.Errorf("%s, %s: %s differs between graph and engine", float.Name, name, tensor.Name)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// With 65,536 levels the gradients are nearly those of the float network. The learning rate leaves no ReLU's input so near to
// zero that 16 bits move it to the other side, which alone would be several per cent of a gradient.
func TestWideGradients(t *testing.T) {
	x, labels := blobs(20, 96, 5)
	for _, float := range []*model.Model{convNet(t), denseNet(t), resNet(t)} {
		adam(t, build(t, float, layers.Options{Batch: 20, Train: true}), 20, 5, 96, 0.0099)
		q := quantized(t, float.Clone(), precision(t, "int16"), nil)
		for name, p := range q.Quant { // room for values that the calibration has not seen
			if n := q.Node(name); n != nil && n.Op.HasQuantizer() && p.Spec.Format == quant.Int16 {
				p.Scale[0] *= 2
			}
		}
		grads := map[string][]float32{}
		for _, m := range []*model.Model{float, q} {
			net := build(t, m, layers.Options{Batch: 20, Train: true})
			net.SetPhase(layers.Phase{FreezeNorm: true}) // what the ranges were calibrated with
			run(t, net, x, labels, 20)
			for _, p := range net.Trainables() {
				if m == float {
					grads[p.Name] = slices.Clone(p.Grad)
					continue
				}
				diff, norm := 0.0, 0.0
				for i, g := range p.Grad {
					diff += math.Pow(float64(g-grads[p.Name][i]), 2)
					norm += math.Pow(float64(g), 2)
				}
				if diff > 1e-4*norm+1e-14 {
					t.Errorf("%s: gradient of %s is off by %.2g of its length", float.Name, p.Name, math.Sqrt(diff/norm))
				}
			}
		}
	}
}
