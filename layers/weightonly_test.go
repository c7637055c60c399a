package layers_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// weightOnly is the float model with integer weights and fp16 activations.
func weightOnly(t testing.TB, m *model.Model, name string, change func(*model.QuantConfig)) *model.Model {
	t.Helper()
	config := model.DefaultQuant(precision(t, name))
	if change != nil {
		change(&config)
	}
	q, err := model.Place(m, config)
	if err == nil {
		q, err = model.Share(q)
	}
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// weightSettings are the ways to choose the scales of weights.
func weightSettings() map[string]func(*model.QuantConfig) {
	group := func(r quant.Range, rows int) func(*model.QuantConfig) {
		return func(q *model.QuantConfig) {
			q.Weight.Per, q.Weight.Group, q.Weight.Range = quant.PerGroup, rows, r
		}
	}
	return map[string]func(*model.QuantConfig){
		"channel": nil, "tensor": func(q *model.QuantConfig) { q.Weight.Per = quant.PerTensor },
		"dorefa": dorefa(false),
		"group":  group(quant.MinMax, 32), "lsq": func(q *model.QuantConfig) { q.Weight.Range = quant.LSQ },
		"lsq tensor": func(q *model.QuantConfig) { q.Weight.Range, q.Weight.Per = quant.LSQ, quant.PerTensor },
		"lsq group":  group(quant.LSQ, 32), "group of 128": group(quant.MinMax, 128),
	}
}

// Weight-only networks train to the same bits in both forms of the graph, and the evaluation graph gives the engine's.
func TestWeightOnlyGraphs(t *testing.T) {
	x, _ := blobs(40, 96, 77)
	for _, float := range []*model.Model{tiledNet(t), denseNet(t), resNet(t)} {
		for _, name := range []string{"w8a16", "w3a16"} {
			for setting, change := range weightSettings() {
				if testing.Short() && name == "w8a16" && setting != "lsq group" {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%s", float.Name, name, setting), func(t *testing.T) {
					q := weightOnly(t, float.Clone(), name, change)
					want := track(t, q.Clone(), false, 1, layers.BackwardFloat)
					for workers := 1; workers <= 2; workers++ {
						if got := track(t, q.Clone(), true, workers, layers.BackwardFloat); !slices.Equal(got, want) {
							t.Fatalf("%d workers: the fused graph leaves other bits", workers)
						}
					}
					adam(t, build(t, q, layers.Options{Batch: 20, Train: true, Fuse: true}), 20, 3, 96, 0.01)
					eval := build(t, q, layers.Options{Batch: 40})
					run(t, eval, x, nil, 40)
					e, err := infer.Compile(q, infer.Options{Workers: 1, MaxBatch: 40})
					if err != nil {
						t.Fatal(err)
					}
					err = e.Trace(x, 40, func(tensor infer.Tensor) error {
						_, values, ok := eval.Tensor(tensor.Name)
						if !ok || !slices.Equal(values, tensor.Values) {
							t.Errorf("%s differs between graph and engine", tensor.Name)
						}
						return nil
					})
					if err != nil {
						t.Fatal(err)
					}
				})
			}
		}
	}
}

func TestWeightOnlyLearns(t *testing.T) {
	x, labels := blobs(100, 96, 999)
	for _, setting := range []string{"channel", "lsq group"} {
		q := weightOnly(t, convNet(t), "w2a16", weightSettings()[setting])
		adam(t, build(t, q, layers.Options{Batch: 32, Train: true}), 32, 80, 96, 0.01)
		if r := run(t, build(t, q, layers.Options{Batch: 100}), x, labels, 100); r.Correct < 95 {
			t.Errorf("%s: %d of 100 right", setting, r.Correct)
		}
	}
}

// Where nothing is clamped the gradient of a group's scale is g * sum dw*(rint(t)-t) over its rows, g = 1/sqrt(n*hi) with n
// the rows of that group (D5).
func TestWeightOnlyGroupGradient(t *testing.T) {
	q := weightOnly(t, denseNet(t), "w8a16", weightSettings()["lsq group"])
	net := build(t, q, layers.Options{Batch: 20, Train: true})
	x, labels := blobs(20, 96, 5)
	for i := range q.Nodes { // scales at which no weight is clamped
		if n := &q.Nodes[i]; n.Op.HasWeight() {
			p := q.Quant[n.Param(model.Weight)]
			for k := range p.Scale {
				p.Scale[k] = 0.031 + float32(k)/1024
			}
		}
	}
	run(t, net, x, labels, 20)
	grads := map[string][]float32{}
	for _, p := range net.Trainables() {
		grads[p.Name] = p.Grad
	}
	for i := range q.Nodes {
		n := &q.Nodes[i]
		if !n.Op.HasWeight() {
			continue
		}
		name := n.Param(model.Weight)
		p, w, dw := q.Quant[name], q.Params[name].Data, grads[name]
		want, rows := make([]float64, len(p.Scale)), make([]float64, len(p.Scale))
		for k, v := range w {
			c := k/n.Attr.Units/32*n.Attr.Units + k%n.Attr.Units
			r := float64(v / p.Scale[c])
			if math.Abs(r) > 127 {
				t.Fatalf("%s[%d] is clamped; the test needs wider scales", name, k)
			}
			want[c] += float64(dw[k]) * (math.RoundToEven(r) - r)
			rows[c]++
		}
		for c, g := range grads[name+".scale"] {
			if want := want[c] / math.Sqrt(rows[c]*127); math.Abs(float64(g)-want) > 1e-5*(1e-3+math.Abs(want)) {
				t.Errorf("%s.scale[%d]: gradient %v, want %v", name, c, g, want)
			}
		}
	}
}
