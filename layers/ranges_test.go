package layers_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// learnedRanges are the methods that learn a range, as far as m can have them: pact needs a ReLU behind every layer, and
// power-of-two weights no batch norm.
func learnedRanges(m *model.Model) map[string]func(*model.QuantConfig) {
	out := map[string]func(*model.QuantConfig){
		"lsq": learned,
		"lsq+": func(c *model.QuantConfig) {
			c.Weight.Range, c.Act.Range = quant.LSQ, quant.LSQPlus
		},
	}
	relu, norm := true, false
	for i := range m.Nodes {
		n := &m.Nodes[i]
		norm = norm || n.Attr.Norm
		relu = relu && (!n.Op.HasQuantizer() || m.IsOutput(n.Name) || n.Attr.Relu)
	}
	if relu {
		out["pact"] = func(c *model.QuantConfig) { c.Weight.Range, c.Act.Range = quant.LSQ, quant.PACT }
	}
	out["tqt"] = func(c *model.QuantConfig) {
		c.Act.Scheme, c.Act.Range = quant.PowerOfTwo, quant.TQT
		if !norm {
			c.Weight.Scheme, c.Weight.Range, c.Weight.Per = quant.PowerOfTwo, quant.TQT, quant.PerTensor
		}
	}
	return out
}

// What a method learns moves scales and zero points, of weights and activations, in the memory that every reader shares.
func TestSettle(t *testing.T) {
	for method, want := range map[string]struct {
		act    map[string]float32 // learned number -> what it is set to
		scale  float32
		zero   int32
		lowest bool // whether the zero point starts at the lowest code
	}{
		"lsq":  {map[string]float32{"scale": 0.25}, 0.25, 0, true},
		"lsq+": {map[string]float32{"scale": 0.25, "offset": 2.5}, 0.25, 2, true},
		"pact": {map[string]float32{"scale": 0.25}, 0.25, 0, true},
		"tqt":  {map[string]float32{"threshold": 1.25}, 1.0 / 4, 0, true}, // 2^ceil(1.25) = 4 over 16 codes
	} {
		m := denseNet(t)
		m = quantized(t, m, precision(t, "w4a4"), learnedRanges(m)[method])
		net := build(t, m, layers.Options{Batch: 4, Train: true})
		found := 0
		for _, p := range net.Trainables() {
			kind, ok := strings.CutPrefix(p.Name, "fc1.")
			if v, learned := want.act[kind]; ok && learned && p.Learned.String() == kind {
				p.Value[0] = v
				found++
			}
		}
		if found != len(want.act) {
			t.Errorf("%s: %d of its learned numbers are trainable, want %d", method, found, len(want.act))
		}
		if z := m.Quant["fc1"].Zero[0]; z != 0 {
			t.Errorf("%s starts with zero point %d behind a ReLU", method, z)
		}
		if err := net.Settle(); err != nil {
			t.Fatal(err)
		}
		if q := m.Quant["fc1"]; q.Scale[0] != want.scale || q.Zero[0] != want.zero {
			t.Errorf("%s: scale %v and zero point %d, want %v and %d", method, q.Scale[0], q.Zero[0], want.scale, want.zero)
		}
	}
}

// The decay of pact pulls its limit towards 0: decay * alpha on top of the gradient, in units of the scale.
func TestPACTDecay(t *testing.T) {
	grad := func(decay float64) (g, s float32) {
		m := denseNet(t)
		m = quantized(t, m, precision(t, "w4a4"), learnedRanges(m)["pact"])
		net := build(t, m, layers.Options{Batch: 8, Train: true, PACTDecay: decay})
		x, labels := blobs(8, 96, 3)
		run(t, net, x, labels, 8)
		for _, p := range net.Trainables() {
			if p.Name == "fc1.scale" {
				return p.Grad[0], p.Value[0]
			}
		}
		t.Fatal("no learned limit")
		return 0, 0
	}
	plain, s := grad(0)
	decayed, _ := grad(0.5)
	want := float64(plain) + 15*0.5*15*float64(s)
	if d := float64(decayed) - want; d > 1e-4*want || d < -1e-4*want {
		t.Errorf("gradient %v without decay, %v with 0.5, want %v", plain, decayed, want)
	}
}

// Stochastic rounding belongs to seed, step and weight: the same for any number of workers and in a graph built anew, another at
// another step or seed. Evaluation and a step without a number round to nearest.
func TestStochasticWeights(t *testing.T) {
	stochastic := func(c *model.QuantConfig) { c.Weight.Range, c.Weight.Rounding = quant.LSQ, quant.Stochastic }
	codes := func(o layers.Options, step uint64, workers int) []float32 {
		m := quantized(t, denseNet(t), precision(t, "w4a4"), stochastic)
		pool := par.New(workers)
		defer pool.Close()
		o.Batch, o.Pool = 6, pool
		net := build(t, m, o)
		net.SetPhase(layers.Phase{Step: step})
		x, labels := blobs(6, 96, 1)
		run(t, net, x, labels, 6)
		return slices.Clone(net.Logits())
	}
	train := layers.Options{Train: true, Seed: 7}
	want := codes(train, 3, 1)
	if got := codes(train, 3, 3); !slices.Equal(got, want) {
		t.Error("three workers give other codes")
	}
	fused := train
	fused.Fuse = true
	if got := codes(fused, 3, 2); !slices.Equal(got, want) {
		t.Error("the fused graph gives other codes")
	}
	if got := codes(train, 4, 1); slices.Equal(got, want) {
		t.Error("another step gives the same codes")
	}
	if got := codes(layers.Options{Train: true, Seed: 8}, 3, 1); slices.Equal(got, want) {
		t.Error("another seed gives the same codes")
	}
	nearest := codes(layers.Options{}, 0, 1)
	if got := codes(train, 0, 1); !slices.Equal(got, nearest) {
		t.Error("a training step without a number does not round to nearest")
	}
	if slices.Equal(nearest, want) {
		t.Error("stochastic rounding changes nothing")
	}
}

// The gradient of a learned scale looks at the codes that the rule gave: sum dy * (q - w/s) inside, dy * lo or hi outside.
func TestScaleGradientByRounding(t *testing.T) {
	for _, mode := range quant.Roundings() {
		m := quantized(t, denseNet(t), precision(t, "w4a4"), func(c *model.QuantConfig) {
			c.Weight.Range, c.Weight.Rounding, c.Weight.Per = quant.LSQ, mode, quant.PerTensor
		})
		q := m.Quant["fc1.weight"]
		net := build(t, m, layers.Options{Batch: 8, Train: true, Seed: 1, ScaleFactor: quant.FactorNone})
		net.SetPhase(layers.Phase{Step: 1})
		x, labels := blobs(8, 96, 3)
		run(t, net, x, labels, 8)
		var dw, ds []float32
		for _, p := range net.Trainables() {
			switch p.Name {
			case "fc1.weight":
				dw = p.Grad
			case "fc1.weight.scale":
				ds = p.Grad
			}
		}
		if mode == quant.Stochastic { // its codes are those of one draw, which TestStochasticWeights looks at
			continue
		}
		sum, clamped := 0.0, 0
		for i, v := range m.Params["fc1.weight"].Data {
			tv := v / q.Scale[0]
			r := mode.Round(float64(tv))
			if r < -7 || r > 7 {
				clamped++
				if dw[i] != 0 {
					t.Fatalf("%s: clamped weight %v has gradient %v", mode, v, dw[i])
				}
				continue // its upstream gradient is not known here
			}
			sum += float64(dw[i]) * (r - float64(tv))
		}
		if clamped != 0 {
			continue
		}
		if d := float64(ds[0]) - sum; math.Abs(d) > 1e-3*math.Max(1e-3, math.Abs(sum)) {
			t.Errorf("%s: gradient of the scale %v, want %v", mode, ds[0], sum)
		}
	}
}

// An optimizer that makes a learned number NaN is stopped with the tensor's name, before anything is computed with it.
func TestLearnedRangeIsNaN(t *testing.T) {
	for method, change := range learnedRanges(denseNet(t)) {
		m := quantized(t, denseNet(t), precision(t, "w4a4"), change)
		net := build(t, m, layers.Options{Batch: 4, Train: true})
		for _, p := range net.Trainables() {
			if p.Learned != 0 && strings.HasPrefix(p.Name, "fc1.") && !strings.HasPrefix(p.Name, "fc1.weight") {
				p.Value[0] = float32(math.NaN())
			}
		}
		x, labels := blobs(4, 96, 1)
		if _, err := net.Run(x, labels, 4); err == nil || !strings.Contains(err.Error(), `the learned range of "fc1" is NaN`) {
			t.Errorf("%s: %v", method, err)
		}
	}
}
