package layers_test

import (
	"math"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// signNet is a network without ReLU, whose hidden outputs may be signs: conv+norm whose pooling tiles, conv without norm,
// flatten, dense+norm, dense with norm over the whole tensor. Inputs of the dense layers drop out.
func signNet(t testing.TB) *model.Model {
	t.Helper()
	m := model.New("signnet", model.Input{Name: "x", Shape: model.Shape{8, 6, 2}, Scale: 1.0 / 64, Zero: 64})
	norm := model.Attr{Eps: 1e-5, Momentum: 0.1}
	m.Append(model.Node{Name: "c1/conv", Layer: "c1", Op: model.Conv, Attr: model.Attr{Units: 16, Kernel: [2]int{3, 3}, Stride: [2]int{1, 1}, Pad: [4]int{1, 1, 1, 1}, Groups: 1}})
	m.Append(model.Node{Name: "c1", Layer: "c1", Op: model.BatchNorm, Attr: norm})
	m.Append(model.Node{Name: "p1", Layer: "p1", Op: model.MaxPool, Attr: model.Attr{Kernel: [2]int{2, 2}, Stride: [2]int{2, 2}}})
	m.Append(model.Node{Name: "c2", Layer: "c2", Op: model.Conv, Attr: model.Attr{Units: 6, Kernel: [2]int{3, 2}, Stride: [2]int{1, 1}, Pad: [4]int{1, 0, 0, 1}, Groups: 2, Bias: true}})
	m.Append(model.Node{Name: "f1", Layer: "f1", Op: model.Flatten})
	m.Append(model.Node{Name: "fc1/dense", Layer: "fc1", Op: model.Dense, Attr: model.Attr{Units: 24, Dropout: 0.2}})
	m.Append(model.Node{Name: "fc1", Layer: "fc1", Op: model.BatchNorm, Attr: norm})
	m.Append(model.Node{Name: "fc2/dense", Layer: "fc2", Op: model.Dense, Attr: model.Attr{Units: classes, Dropout: 0.2}})
	m.Append(model.Node{Name: "fc2", Layer: "fc2", Op: model.BatchNorm, Attr: model.Attr{Eps: 1e-4, Momentum: 0.1, Whole: true}})
	return fused(t, m)
}

// constant is Brevitas' way: constant scales, symmetric activations without the lowest code, the input on their grid.
func constant(c *model.QuantConfig) {
	c.Weight.Per, c.Weight.Range, c.Weight.Max = quant.PerTensor, quant.Constant, 1
	c.Act.Range, c.Act.Scheme, c.Act.Max = quant.Constant, quant.Symmetric, 1
	c.Act.Narrow = !c.Act.Even
	c.InputAct = true
}

// signConfigs are the ways of quantizing signNet that these tests go through.
func signConfigs() map[string]func(*model.QuantConfig) {
	return map[string]func(*model.QuantConfig){
		"w1a1": nil, "w1a8": nil, "w4a1": nil, "w2a2": constant, "w1a2": constant, "w1a1 ": constant,
		"w2a8":  func(c *model.QuantConfig) { c.Weight.Even = true },
		"w3a1":  func(c *model.QuantConfig) { c.Weight.Even, c.Weight.Range = true, quant.LSQ },
		"w4a8 ": dorefa(true), "w2a4": dorefa(true), "w8a8": dorefa(false),
		"w1a4": func(c *model.QuantConfig) { c.Weight.Range = quant.LSQ },
		"w1a1  ": func(c *model.QuantConfig) {
			c.Weight.Estimator, c.Act.Estimator = quant.SwishSign, quant.ApproxSign
		},
	}
}

// signs is signNet quantized; configuration names may end in spaces.
func signs(t testing.TB, m *model.Model, name string, change func(*model.QuantConfig)) *model.Model {
	t.Helper()
	for name[len(name)-1] == ' ' {
		name = name[:len(name)-1]
	}
	q := quantized(t, m, precision(t, name), change)
	if err := model.Check(q); err != nil {
		t.Fatal(err)
	}
	return q
}

// The evaluation graph, the training graph with batch norm frozen and without dropout, and the frozen model agree to the bit,
// whatever signs batch norm has.
func TestSignGraphsEqualFrozen(t *testing.T) {
	const n = 9
	x, labels := blobs(n, 96, 3)
	for name, change := range signConfigs() {
		for kind, m := range map[string]*model.Model{"norm": signNet(t), "odd norm": odd(signNet(t))} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				if kind == "odd norm" {
					m.Params["fc2.gamma"].Data[0] = -1.25
				}
				q := signs(t, m, name, change)
				for _, train := range []bool{false, true} {
					net := build(t, q, layers.Options{Batch: n, Train: train})
					net.SetPhase(layers.Phase{FreezeNorm: true, FreezeRanges: true, NoDropout: true})
					run(t, net, x, labels, n)
					sameAsFrozen(t, net, q, x, n)
				}
			})
		}
	}
}

// Both forms of a training graph leave the same bits after every step, for any number of workers, dropout included.
func TestSignFusedEqualsSeparate(t *testing.T) {
	for name, change := range signConfigs() {
		t.Run(name, func(t *testing.T) {
			q := signs(t, signNet(t), name, change)
			want := track(t, q.Clone(), false, 1, layers.BackwardFloat)
			for workers := 1; workers <= 3; workers++ {
				if got := track(t, q.Clone(), true, workers, layers.BackwardFloat); !slices.Equal(got, want) {
					t.Fatalf("%d workers: other bits than separate nodes", workers)
				}
			}
		})
	}
}

func TestSignTrainingLearns(t *testing.T) {
	for name, change := range signConfigs() {
		t.Run(name, func(t *testing.T) {
			m := signNet(t)
			if name == "w2a2" { // weights below 1/2 are 0 at scale 1
				if err := layers.InitRange(m, 11, 1); err != nil {
					t.Fatal(err)
				}
			}
			q := signs(t, m, name, change)
			net := build(t, q, layers.Options{Batch: 32, Train: true, Fuse: true, Loss: layers.Loss{Kind: layers.SquaredHinge}})
			first, last := adam(t, net, 32, 120, 96, 0.01)
			if !(last.Loss < first.Loss/2) || last.Correct < 26 {
				t.Errorf("loss %v -> %v, %d of %d right", first.Loss, last.Loss, last.Correct, last.N)
			}
		})
	}
}

// Dropout drops its share, gives the rest back in the mean, depends on seed, layer and step alone, and evaluation knows
// nothing of it.
func TestDropout(t *testing.T) {
	m := denseNet(t)
	for i := range m.Nodes {
		m.Nodes[i].Attr.Dropout = 0.25
	}
	const n = 64
	x, labels := blobs(n, 96, 9)
	logits := func(seed, step uint64, off bool, pool *par.Pool) []float32 {
		net := build(t, m.Clone(), layers.Options{Batch: n, Train: true, Seed: seed, Pool: pool})
		net.SetPhase(layers.Phase{Step: step, NoDropout: off})
		run(t, net, x, labels, n)
		return slices.Clone(net.Logits())
	}
	pool := par.New(3)
	defer pool.Close()
	base := logits(1, 0, false, nil)
	if !slices.Equal(base, logits(1, 0, false, pool)) {
		t.Error("the number of workers changes what is dropped")
	}
	for what, other := range map[string][]float32{"seed": logits(2, 0, false, nil), "step": logits(1, 1, false, nil), "switch": logits(1, 0, true, nil)} {
		if slices.Equal(base, other) {
			t.Errorf("another %s drops the same", what)
		}
	}
	eval := build(t, m, layers.Options{Batch: n})
	run(t, eval, x, labels, n)
	if !slices.Equal(eval.Logits(), logits(1, 0, true, nil)) {
		t.Error("without dropout the training graph is not the evaluation graph")
	}
	q := quantized(t, m, precision(t, "int8"), nil)
	net := build(t, q, layers.Options{Batch: n, Train: true, Seed: 4})
	run(t, net, x, labels, n)
	frozen, err := model.Freeze(q)
	if err != nil || frozen.Nodes[0].Attr.Dropout != 0 {
		t.Errorf("dropout %v is left in a frozen model: %v", frozen.Nodes[0].Attr.Dropout, err)
	}
}

// dropNet is one dense layer of ones with dropout, so that the logits count what stays.
func dropNet(t testing.TB, in int, p float32) *model.Model {
	m := model.New("drop", model.Input{Name: "x", Shape: model.Shape{in}, Scale: 1, Zero: 0})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: 2, Dropout: p}})
	m = fused(t, m)
	for i := range m.Params["fc.weight"].Data {
		m.Params["fc.weight"].Data[i] = 1
	}
	return m
}

// TestDropoutShare: the share of what stays is 1-p to within five standard deviations, in rows that end within a byte and
// in long ones, and what stays counts 1/(1-p) times.
func TestDropoutShare(t *testing.T) {
	for _, in := range []int{3, 8, 61, 130} {
		for _, p := range []float32{0.2, 0.5, 1.0 / 3, 0.9} {
			const n = 500
			net := build(t, dropNet(t, in, p), layers.Options{Batch: n, Train: true, Seed: 1})
			x := slices.Repeat([]uint8{1}, n*in)
			run(t, net, x, make([]int32, n), n)
			kept, keep := 0.0, 1-float64(p)
			for _, v := range net.Logits() {
				kept += float64(v) * keep / 2 // two equal logits
			}
			total := float64(n * in)
			if d := math.Abs(kept - keep*total); d > 5*math.Sqrt(total*keep*(1-keep)) {
				t.Errorf("%d inputs, p = %v: %v of %v stay", in, p, kept, total)
			}
		}
	}
}

// TestWholeNormGradient: the gradients of dropout and of norm over the whole tensor are those of finite differences.
func TestWholeNormGradient(t *testing.T) {
	m := model.New("whole", model.Input{Name: "x", Shape: model.Shape{96}, Scale: 1.0 / 64})
	m.Append(model.Node{Name: "fc1/dense", Layer: "fc1", Op: model.Dense, Attr: model.Attr{Units: 16, Bias: true}})
	m.Append(model.Node{Name: "fc1", Layer: "fc1", Op: model.ReLU})
	m.Append(model.Node{Name: "fc2/dense", Layer: "fc2", Op: model.Dense, Attr: model.Attr{Units: classes, Dropout: 0.2}})
	m.Append(model.Node{Name: "fc2", Layer: "fc2", Op: model.BatchNorm, Attr: model.Attr{Eps: 1e-4, Momentum: 0.1, Whole: true}})
	m = fused(t, m)
	m.Params["fc2.gamma"].Data[0], m.Params["fc2.beta"].Data[0] = 1.5, -0.25
	const n = 12
	x, labels := blobs(n, 96, 5)
	for _, frozen := range []bool{false, true} {
		net := build(t, m, layers.Options{Batch: n, Train: true, Seed: 3, Loss: layers.Loss{Kind: layers.MSE}})
		net.SetPhase(layers.Phase{FreezeNorm: frozen, Step: 7})
		loss := func() float64 {
			mean, variance := m.Params["fc2.mean"].Data[0], m.Params["fc2.var"].Data[0]
			r := run(t, net, x, labels, n)
			m.Params["fc2.mean"].Data[0], m.Params["fc2.var"].Data[0] = mean, variance
			return r.Loss
		}
		loss()
		for _, p := range net.Trainables() {
			grad := slices.Clone(p.Grad)
			for i := 0; i < len(p.Value); i += 1 + len(p.Value)/7 {
				const h = 1.0 / 512
				was := p.Value[i]
				p.Value[i] = was + h
				up := loss()
				p.Value[i] = was - h
				down := loss()
				p.Value[i] = was
				if d := (up - down) / (2 * h); math.Abs(d-float64(grad[i])) > 1e-2*(0.05+math.Abs(d)) {
					t.Errorf("frozen %t: %s[%d]: gradient %v, differences %v", frozen, p.Name, i, grad[i], d)
				}
			}
		}
	}
}
