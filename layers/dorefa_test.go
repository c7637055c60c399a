package layers_test

import (
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

func dorefa(even bool) func(*model.QuantConfig) {
	return func(c *model.QuantConfig) {
		c.Weight.Range, c.Weight.Per, c.Weight.Even = quant.DoReFa, quant.PerTensor, even
	}
}

// The gradient of a dorefa weight is that of the network whose masters are tanh(w)/max|tanh w| on a constant range of [-1, 1],
// through model.SquashGrad: the codes, and so everything else in the graph, are the same.
func TestDoReFaGradient(t *testing.T) {
	const n = 16
	x, labels := blobs(n, 96, 5)
	for _, fuse := range []bool{false, true} {
		for _, even := range []bool{false, true} {
			m := signNet(t)
			plain := m.Clone()
			tops := map[string]float32{}
			for i := range m.Nodes {
				if node := &m.Nodes[i]; node.Op.HasWeight() {
					name := node.Param(model.Weight)
					w := m.Params[name].Data
					for _, v := range w {
						tops[name] = max(tops[name], v, -v)
					}
					model.Squash(plain.Params[name].Data, w, tops[name])
				}
			}
			q := signs(t, m, "w4a8", dorefa(even))
			held := signs(t, plain, "w4a8", func(c *model.QuantConfig) {
				c.Weight.Range, c.Weight.Per, c.Weight.Even, c.Weight.Max = quant.Constant, quant.PerTensor, even, 1
			})
			for name, p := range q.Quant { // both calibrated on their own float network
				if p.Spec.Range != quant.DoReFa {
					held.Quant[name] = p.Clone()
				}
			}
			var err error
			if held, err = model.Share(held); err != nil {
				t.Fatal(err)
			}
			grads := func(m *model.Model) map[string][]float32 {
				net := build(t, m, layers.Options{Batch: n, Train: true, Fuse: fuse})
				net.SetPhase(layers.Phase{FreezeRanges: true, NoDropout: true})
				run(t, net, x, labels, n)
				out := map[string][]float32{}
				for _, tr := range net.Trainables() {
					out[tr.Name] = tr.Grad
				}
				return out
			}
			got, want := grads(q), grads(held)
			moved := false
			for name, g := range want {
				if most, ok := tops[name]; ok {
					model.SquashGrad(g, g, plain.Params[name].Data, most)
					moved = moved || slices.ContainsFunc(g, func(v float32) bool { return v != 0 })
				}
				if !slices.Equal(got[name], g) {
					t.Errorf("fuse %t, even %t: gradient of %s differs", fuse, even, name)
				}
			}
			if !moved {
				t.Error("all gradients are 0")
			}
		}
	}
}
