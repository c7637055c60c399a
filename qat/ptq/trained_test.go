package ptq_test

import (
	"math"
	"sync"
	"testing"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat/ptq"
	"github.com/narrow-ml/narrow/quant"
	"github.com/narrow-ml/narrow/train"
)

// depthwise is a net with the layers that one scale for a tensor serves worst: a depthwise convolution between two others.
const depthwise = `
version: 1
name: digits-depthwise
seed: 7
dataset: {name: digits, batch: 32}
model:
  - conv: {name: c1, filters: 16, kernel: 3, norm: batch, act: relu}
  - conv: {name: dw, filters: 16, kernel: 3, groups: 16, norm: batch, act: relu}
  - conv: {name: pw, filters: 32, kernel: 1, norm: batch, act: relu}
  - maxpool: {name: pool, size: 2}
  - flatten: {}
  - dense: {name: fc, units: 10}
train: {epochs: 1, optimizer: adam, lr: 0.004, schedule: cosine}
`

// shortcut is a net with a residual sum and a global average.
const shortcut = `
version: 1
name: digits-residual
seed: 7
dataset: {name: digits, batch: 32}
model:
  - conv: {name: c1, filters: 16, kernel: 3, norm: batch, act: relu}
  - conv: {name: c2, filters: 24, kernel: 3, norm: batch, act: relu}
  - conv: {name: c3, filters: 16, kernel: 3, norm: batch, act: none}
  - add: {name: sum, from: [c1, c3], act: relu}
  - conv: {name: c4, filters: 32, kernel: 3, stride: 2, norm: batch, act: relu}
  - gap: {}
  - dense: {name: fc, units: 10}
train: {epochs: 1, optimizer: adam, lr: 0.004, schedule: cosine}
`

// digitsNet is a net trained on the digits for a few epochs.
type digitsNet struct {
	model *model.Model
	data  *datasets.Dataset
}

// nets holds each net once for all tests, which do not change it.
var nets sync.Map

// trained is a preset, or the net "depthwise" or "residual".
func trained(t testing.TB, name string) digitsNet {
	t.Helper()
	made, _ := nets.LoadOrStore(name, sync.OnceValues(func() (digitsNet, error) { return fit(t, name) }))
	n, err := made.(func() (digitsNet, error))()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func fit(t testing.TB, name string) (n digitsNet, err error) {
	var c *configs.Config
	switch name {
	case "depthwise":
		c, err = configs.Parse(name, []byte(depthwise), "train.epochs=4")
	case "residual":
		c, err = configs.Parse(name, []byte(shortcut), "train.epochs=4")
	default:
		c, err = configs.Preset(name, "train.epochs=4")
	}
	if err != nil {
		return n, err
	}
	return fitConfig(t, c, datasets.Options{ValFraction: 0.2, Seed: c.Seed})
}

// fitConfig trains the float model of a config.
func fitConfig(t testing.TB, c *configs.Config, o datasets.Options) (n digitsNet, err error) {
	if n.data, err = datasets.Load(t.Context(), c.Dataset.Name, o); err != nil {
		return n, err
	}
	if n.model, err = train.NewModel(c, n.data, c.Seed); err != nil {
		return n, err
	}
	pool := par.New(2)
	defer pool.Close()
	_, err = train.Fit(t.Context(), train.Job{Model: n.model, Data: n.data, Phase: train.FloatPhase(c), Seed: c.Seed, Pool: pool})
	return n, err
}

// quick are settings for the nets of this file.
func quick() ptq.Options {
	return ptq.Options{Method: ptq.MSE, Examples: 512, Seed: 3, Workers: 2, Iterations: 300}
}

// quantized runs Quantize on a net's own data.
func (n digitsNet) quantized(t testing.TB, m *model.Model, q model.QuantConfig, o ptq.Options) *ptq.Result {
	t.Helper()
	r, err := ptq.Quantize(t.Context(), m, q, n.data.Train, n.data.Val, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// meanError is the mean square of the difference of two models' logits.
func meanError(t testing.TB, a, b *model.Model, set *datasets.Set) float64 {
	t.Helper()
	x, y := run(t, a, set), run(t, b, set)
	sum := 0.0
	for i := range x {
		d := float64(x[i]) - float64(y[i])
		sum += d * d
	}
	return sum / float64(len(x))
}

// TestLearnedRoundingBeatsNearest holds both roundings to less error than nearest in every layer, to a far smaller error
// of the logits on the validation split, and to its accuracy.
func TestLearnedRoundingBeatsNearest(t *testing.T) {
	names, precisions := []string{"digits-mlp", "digits-cnn", "depthwise"}, []string{"w4a8", "w3a8", "w2a8"}
	if testing.Short() {
		names, precisions = names[:1], precisions[1:2]
	}
	for _, name := range names {
		n := trained(t, name)
		for _, p := range precisions {
			near := n.quantized(t, n.model, precision(t, p), quick())
			score, before := agreement(t, near.Model, n.data.Val), meanError(t, n.model, near.Model, n.data.Val)
			for _, r := range []ptq.Rounding{ptq.AdaRound, ptq.GPTQ} {
				o := quick()
				o.Rounding = r
				got := n.quantized(t, n.model, precision(t, p), o)
				own, after := agreement(t, got.Model, n.data.Val), meanError(t, n.model, got.Model, n.data.Val)
				t.Logf("%s %s: nearest %.2f %% error %.4f; %s %.2f %% error %.4f", name, p, score, before, r, own, after)
				for _, l := range got.Rounded {
					if l.Error > l.Nearest || l.Moved == 0 {
						t.Errorf("%s %s by %s: layer %s: error %v, nearest %v, %d weights moved", name, p, r, l.Layer, l.Error, l.Nearest, l.Moved)
					}
				}
				if after > 0.7*before {
					t.Errorf("%s %s by %s: error of the logits %v, nearest %v", name, p, r, after, before)
				}
				if own < score-0.7 { // five of the 765 digits
					t.Errorf("%s %s by %s: %.2f %%, nearest %.2f %%", name, p, r, own, score)
				}
			}
		}
	}
}

// oneWide are factors from 1 to 400; the one of 400 takes nearly the whole grid of the tensor from the other channels.
func oneWide(layer, channel int) float32 {
	if channel%16 == 5+layer {
		return 400
	}
	return 1 + float32(channel%4)/4
}

// rescaled multiplies the channels of every ReLU by factors and divides what reads them: the same function.
func rescaled(t testing.TB, m *model.Model, factor func(layer, channel int) float32) *model.Model {
	t.Helper()
	m, err := model.Fuse(m)
	if err != nil {
		t.Fatal(err)
	}
	m = m.Clone()
	last := "" // the layer whose channels were multiplied
	var k []float32
	for i := range m.Nodes {
		n := &m.Nodes[i]
		if !n.Op.HasWeight() {
			continue
		}
		w := m.Params[n.Param(model.Weight)].Data
		if last != "" {
			rows := len(w) / n.Attr.Units
			for j := range w {
				in := j / n.Attr.Units % rows % len(k)
				if n.Attr.Groups > 1 {
					in = j % n.Attr.Units // depthwise
				}
				w[j] /= k[in]
			}
		}
		if last = ""; !n.Attr.Relu {
			continue
		}
		last, k = n.Layer, make([]float32, n.Attr.Units)
		for c := range k {
			k[c] = factor(i, c)
		}
		roles := []string{model.Weight, model.Bias}
		if n.Attr.Norm {
			roles = []string{model.Gamma, model.Beta}
		}
		for _, role := range roles {
			if p := m.Params[n.Param(role)]; p != nil {
				for j := range p.Data {
					p.Data[j] *= k[j%len(k)]
				}
			}
		}
	}
	return m
}

// largest is the largest magnitude of x.
func largest(x []float32) (m float64) {
	for _, v := range x {
		m = max(m, math.Abs(float64(v)))
	}
	return m
}

// TestEqualizationRescues: rescaled channels ruin one scale for each tensor, and equalization brings the accuracy back.
func TestEqualizationRescues(t *testing.T) {
	names := []string{"depthwise", "digits-cnn"}
	if testing.Short() {
		names = names[:1]
	}
	for _, name := range names {
		n := trained(t, name)
		bad := rescaled(t, n.model, oneWide)
		want := run(t, n.model, n.data.Val)
		for i, v := range run(t, bad, n.data.Val) {
			if d := math.Abs(float64(v - want[i])); d > 1e-5*largest(want) {
				t.Fatalf("%s: the rescaled net is another function: logit %d is %v, was %v", name, i, v, want[i])
			}
		}
		q := precision(t, "int8")
		q.Weight.Per = quant.PerTensor
		o := quick()
		o.Method = ptq.MinMax
		float := agreement(t, n.model, n.data.Val)
		plain := agreement(t, n.quantized(t, bad, q, o).Model, n.data.Val)
		o.Equalize = true
		r := n.quantized(t, bad, q, o)
		equal := agreement(t, r.Model, n.data.Val)
		t.Logf("%s: float %.2f %%, rescaled w8a8 per tensor %.2f %%, equalized %.2f %%", name, float, plain, equal)
		for _, e := range r.Equalized {
			t.Logf("%s to %s: ranges differ %.1f-fold before, %.1f-fold after", e.From, e.To, e.Before, e.After)
		}
		if float-plain < 20 {
			t.Errorf("%s: per-tensor int8 loses only %.2f points: the test shows nothing", name, float-plain)
		}
		if float-equal > 0.5 {
			t.Errorf("%s: equalized %.2f %%, float %.2f %%", name, equal, float)
		}
	}
}

// TestBiasCorrectionCentresTheLogits: the logits have no ReLU behind them, so their mean must come out right.
func TestBiasCorrectionCentresTheLogits(t *testing.T) {
	names := []string{"digits-mlp", "digits-cnn"}
	if testing.Short() {
		names = names[:1]
	}
	for _, name := range names {
		n := trained(t, name)
		shift := func(m *model.Model) (worst float64) {
			x, y := run(t, n.model, n.data.Train), run(t, m, n.data.Train)
			for c := range 10 {
				sum := 0.0
				for i := c; i < len(x); i += 10 {
					sum += float64(y[i]) - float64(x[i])
				}
				worst = max(worst, math.Abs(sum/float64(n.data.Train.Len())))
			}
			return worst
		}
		o := quick()
		o.Examples = n.data.Train.Len()
		plain := n.quantized(t, n.model, precision(t, "w3a8"), o)
		o.BiasCorrection = true
		fixed := n.quantized(t, n.model, precision(t, "w3a8"), o)
		before, after := shift(plain.Model), shift(fixed.Model)
		t.Logf("%s: largest mean shift of a logit %.4f, corrected %.6f; %.2f %% and %.2f %%", name, before, after,
			agreement(t, plain.Model, n.data.Val), agreement(t, fixed.Model, n.data.Val))
		if after > 0.02*before {
			t.Errorf("%s: the mean of a logit is off by %v after correction, %v before", name, after, before)
		}
		if len(fixed.Shifted) == 0 || fixed.Shifted[0].Largest == 0 {
			t.Errorf("%s: report %+v", name, fixed.Shifted)
		}
	}
}

// TestPassesOnAResidualNet: the pairs stop at the sum, c2 to c3 and c4 to fc, and every pass works on the layers around it.
func TestPassesOnAResidualNet(t *testing.T) {
	if testing.Short() {
		t.Skip("trains a net of its own")
	}
	n := trained(t, "residual")
	equal, pairs, err := ptq.Equalize(n.model)
	if err != nil {
		t.Fatal(err)
	}
	if len(pairs) != 2 || pairs[0].From != "c2" || pairs[0].To != "c3" || pairs[1].From != "c4" || pairs[1].To != "fc" {
		t.Errorf("pairs %+v", pairs)
	}
	want := run(t, n.model, n.data.Val)
	for i, v := range run(t, equal, n.data.Val) {
		if d := math.Abs(float64(v - want[i])); d > 1e-5*largest(want) {
			t.Fatalf("logit %d is %v after equalization, %v before", i, v, want[i])
		}
	}
	near := meanError(t, n.model, n.quantized(t, n.model, precision(t, "w3a8"), quick()).Model, n.data.Val)
	for _, r := range []ptq.Rounding{ptq.AdaRound, ptq.GPTQ} {
		o := quick()
		o.Rounding, o.Equalize, o.BiasCorrection = r, true, true
		got := meanError(t, n.model, n.quantized(t, n.model, precision(t, "w3a8"), o).Model, n.data.Val)
		t.Logf("w3a8: error of the logits %.4f rounded to nearest, %.4f by %s and both other passes", near, got, r)
		if got > 0.7*near {
			t.Errorf("%s: error %v, nearest %v", r, got, near)
		}
	}
}
