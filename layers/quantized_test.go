package layers_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// calibrate gives each activation of q the range that the float model m shows on some examples.
func calibrate(t testing.TB, m, q *model.Model) {
	t.Helper()
	const n = 64
	x, labels := blobs(n, 96, 77)
	net := build(t, m, layers.Options{Batch: n})
	run(t, net, x, labels, n)
	for i := range q.Nodes {
		name := q.Nodes[i].Name
		p := q.Quant[name]
		if p == nil || p.Ready() {
			continue
		}
		_, values, ok := net.Tensor(name)
		if !ok {
			t.Fatalf("float graph has no tensor %q", name)
		}
		s, z := p.Spec.Choose(slices.Min(values), slices.Max(values))
		if p.Spec.Range == quant.Constant {
			s, z = p.Spec.ConstantScale()
		}
		p.Scale, p.Zero = []float32{s}, []int32{z}
	}
}

// odd makes a model's batch norm as nasty as it may become: negative, zero and vanishing gammas, and large statistics.
func odd(m *model.Model) *model.Model {
	s := rng.New(5, rng.Test)
	for _, name := range m.ParamNames() {
		data := m.Params[name].Data
		switch name[len(name)-4:] {
		case "amma":
			for i := range data {
				data[i] = float32(s.Norm())
			}
			if len(data) > 1 { // one of a whole tensor is all there is
				data[0], data[1] = 0, -1e-9
			}
		case "beta", "mean":
			for i := range data {
				data[i] = float32(s.Norm())
			}
		case ".var":
			for i := range data {
				data[i] = 0.1 + s.Float32()
			}
		}
	}
	return m
}

var precisions = []string{"int8", "w4a8", "w4a4", "w2a4"}

func precision(t testing.TB, name string) quant.Precision {
	t.Helper()
	p, err := quant.ParsePrecision(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sameAsFrozen compares every tensor of the last run with the frozen model's, to the bit.
func sameAsFrozen(t testing.TB, net *layers.Net, m *model.Model, x []uint8, n int) {
	t.Helper()
	frozen, err := model.Freeze(m)
	if err != nil {
		t.Fatal(err)
	}
	row := frozen.Inputs[0].Shape.Size()
	for i := range n {
		codes, logits := reference(t, frozen, x[i*row:(i+1)*row])
		for k := range frozen.Nodes {
			name := frozen.Nodes[k].Name
			got, values, ok := net.Tensor(name)
			if !ok {
				t.Fatalf("graph has no tensor %q", name)
			}
			if want, isCodes := codes[name]; isCodes {
				got = got[i*len(want) : (i+1)*len(want)]
				for j, w := range want {
					if int64(got[j]) != w {
						t.Fatalf("example %d, %s[%d]: code %d in the graph, %d frozen", i, name, j, got[j], w)
					}
				}
				continue
			}
			values = values[i*len(logits) : (i+1)*len(logits)]
			for j, w := range logits {
				if math.Float32bits(values[j]) != math.Float32bits(w) {
					t.Fatalf("example %d, logit %d: %v in the graph, %v frozen", i, j, values[j], w)
				}
			}
		}
	}
}

// What the design promises: the evaluation graph, the training graph with batch norm frozen, and the frozen model agree.
func TestGraphsEqualFrozen(t *testing.T) {
	const n = 9
	x, labels := blobs(n, 96, 3)
	for _, name := range precisions {
		for kind, m := range map[string]*model.Model{"norm": convNet(t), "odd norm": odd(convNet(t)), "no norm": denseNet(t), "relu after pool": poolNet(t),
			"resnet": resNet(t), "odd resnet": odd(resNet(t)), "mobilenet": mobileNet(t), "odd mobilenet": odd(mobileNet(t)), "input": inputNet(t)} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				q := quantized(t, m, precision(t, name), nil)
				eval := build(t, q, layers.Options{Batch: n})
				run(t, eval, x, labels, n)
				sameAsFrozen(t, eval, q, x, n)

				train := build(t, q, layers.Options{Batch: n, Train: true})
				train.SetPhase(layers.Phase{FreezeNorm: true, FreezeRanges: true})
				run(t, train, x, labels, n)
				sameAsFrozen(t, train, q, x, n)
			})
		}
	}
}

// poolNet has what convNet has not: a ReLU of its own, on codes, and an affine activation before it.
func poolNet(t testing.TB) *model.Model {
	t.Helper()
	m := model.New("poolnet", model.Input{Name: "x", Shape: model.Shape{8, 6, 2}, Scale: 1.0 / 64, Zero: 3})
	m.Append(model.Node{Name: "c1", Layer: "c1", Op: model.Conv, Attr: model.Attr{Units: 5, Kernel: [2]int{3, 3}, Stride: [2]int{1, 1}, Pad: [4]int{0, 1, 1, 0}, Groups: 1, Bias: true}})
	m.Append(model.Node{Name: "p1", Layer: "p1", Op: model.MaxPool, Attr: model.Attr{Kernel: [2]int{3, 3}, Stride: [2]int{2, 2}, Pad: [4]int{1, 1, 1, 1}}})
	m.Append(model.Node{Name: "r1", Layer: "r1", Op: model.ReLU})
	m.Append(model.Node{Name: "f1", Layer: "f1", Op: model.Flatten})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: classes, Bias: true}})
	return fused(t, m)
}

func learned(c *model.QuantConfig) { c.Weight.Range, c.Act.Range = quant.LSQ, quant.LSQ }

func perTensor(c *model.QuantConfig) { c.Weight.Per, c.Act.Range = quant.PerTensor, quant.EMA }

// Quantization-aware training from a trained float model, and the model it leaves is the one that is frozen.
func TestQuantizedTrainingLearns(t *testing.T) {
	x, labels := blobs(100, 96, 999)
	for _, float := range []*model.Model{convNet(t), denseNet(t), poolNet(t), resNet(t)} {
		adam(t, build(t, float, layers.Options{Batch: 32, Train: true}), 32, 60, 96, 0.01)
		methods := learnedRanges(float)
		methods["default"], methods["per tensor, ema"] = nil, perTensor
		for _, name := range precisions {
			for method, change := range methods {
				if (method == "lsq+" || method == "pact" || method == "tqt") && name != "w4a4" {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%s", float.Name, name, method), func(t *testing.T) {
					q := quantized(t, float.Clone(), precision(t, name), change)
					before := run(t, build(t, q, layers.Options{Batch: 100}), x, labels, 100)
					net := build(t, q, layers.Options{Batch: 32, Train: true})
					adam(t, net, 32, 40, 96, 0.003)
					net.SetPhase(layers.Phase{FreezeNorm: true, FreezeRanges: true})
					adam(t, net, 32, 20, 96, 0.001)
					eval := build(t, q, layers.Options{Batch: 100})
					after := run(t, eval, x, labels, 100)
					t.Logf("%s: loss %.4f -> %.4f, %d -> %d of 100", t.Name(), before.Loss, after.Loss, before.Correct, after.Correct)
					if after.Correct < 95 {
						t.Errorf("%d of 100 right after training, %d before", after.Correct, before.Correct)
					}
					sameAsFrozen(t, eval, q, x, 3)
				})
			}
		}
	}
}

func TestQuantizedWorkersDoNotChangeBits(t *testing.T) {
	for _, change := range []func(*model.QuantConfig){nil, learned} {
		var want []uint32
		for _, workers := range []int{1, 2, 3} {
			m := quantized(t, convNet(t), precision(t, "w4a8"), change)
			pool := par.New(workers)
			defer pool.Close()
			net := build(t, m, layers.Options{Batch: 20, Train: true, Pool: pool})
			adam(t, net, 20, 4, 96, 0.01)
			got := fingerprint(m, net)
			if want == nil {
				want = got
			} else if !slices.Equal(got, want) {
				t.Errorf("%d workers give other bits than 1", workers)
			}
		}
	}
}

// Value rounding learns too, its evaluation graph gives rounded values, and an overflow names the layer.
func TestHalfPrecision(t *testing.T) {
	x, labels := blobs(100, 96, 999)
	for _, name := range []string{"fp16", "bf16"} {
		t.Run(name, func(t *testing.T) {
			float := convNet(t)
			p := precision(t, name)
			q, err := model.Place(float, model.DefaultQuant(p))
			if err == nil {
				q, err = model.Share(q)
			}
			if err != nil {
				t.Fatal(err)
			}
			adam(t, build(t, q, layers.Options{Batch: 32, Train: true}), 32, 60, 96, 0.01)
			eval := build(t, q, layers.Options{Batch: 100})
			if r := run(t, eval, x, labels, 100); r.Correct < 95 {
				t.Errorf("%d of 100 right", r.Correct)
			}
			for _, tensor := range []string{"x", "c1", "p1", "c2", "fc1"} {
				_, values, ok := eval.Tensor(tensor)
				rounded := make([]float32, len(values))
				if err := quant.Round16(rounded, values, p.Act); err != nil || !ok || !slices.Equal(rounded, values) {
					t.Errorf("%s is not rounded to %s (%v)", tensor, name, err)
				}
			}
		})
	}
}
