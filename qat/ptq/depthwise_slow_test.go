//go:build slow

package ptq_test

import (
	"math"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat/ptq"
	"github.com/narrow-ml/narrow/quant"
)

// TestDepthwiseRescaled is the table of docs/guide.md about depthwise layers: fashion-mbnet with ReLU in place of ReLU6, and
// the same function with the channels of every ReLU multiplied by 1 to 100. Scores are of the validation split, 4,000 examples,
// on which single networks scatter by half a point: the limits are for the mean of six.
//
//	go test -tags slow ./qat/ptq -run DepthwiseRescaled -v
func TestDepthwiseRescaled(t *testing.T) {
	type row struct {
		what      string
		got       float64
		low, high float64 // points lost against float
	}
	var all [][]row
	var floats []float64
	for _, seed := range []string{"seed=7", "seed=8", "seed=9", "seed=10", "seed=11", "seed=12"} {
		c, err := configs.Preset("fashion-mbnet", "train.epochs=2", "qat.epochs=1", seed)
		if err != nil {
			t.Fatal(err)
		}
		for i := range c.Model {
			if conv := c.Model[i].Conv; conv != nil {
				conv.Act = strings.TrimSuffix(conv.Act, "6")
			}
		}
		n, err := fitConfig(t, c, datasets.Options{ValFraction: 0.25, Seed: c.Seed, Limit: 16000})
		if err != nil {
			t.Skip(err)
		}
		random := rng.New(c.Seed, rng.Synthetic)
		wide := rescaled(t, n.model, func(int, int) float32 { return float32(math.Exp(random.Float64() * math.Log(100))) })

		float := agreement(t, n.model, n.data.Val)
		if d := math.Abs(float - agreement(t, wide, n.data.Val)); d > 0.1 {
			t.Fatalf("the rescaled net is another function: its accuracy differs by %.2f", d)
		}
		perTensor, perChannel := precision(t, "int8"), precision(t, "int8")
		perTensor.Weight.Per = quant.PerTensor
		plain := ptq.Options{Method: ptq.MinMax, Examples: 1024, Seed: c.Seed, Workers: 2}
		equalized := plain
		equalized.Equalize = true
		score := func(m *model.Model) float64 { return agreement(t, m, n.data.Val) }
		rows := []row{
			{"w8a8, one scale per tensor", score(n.quantized(t, wide, perTensor, plain).Model), 20, 100},
			{"w8a8, one scale per channel of the weights", score(n.quantized(t, wide, perChannel, plain).Model), 1, 100},
			{"equalized, w8a8, one scale per tensor", score(n.quantized(t, wide, perTensor, equalized).Model), -1, 0.5},
			{"equalized, w8a8, one scale per channel", score(n.quantized(t, wide, perChannel, equalized).Model), -1, 0.5},
			{"depthwise weights alone in int8, per tensor", score(onGrid(wide, perTensor.Weight)), 1, 100},
			{"depthwise weights alone in int8, per channel", score(onGrid(wide, perChannel.Weight)), -0.5, 0.5},
		}
		for _, r := range rows {
			t.Logf("%s: %-46s %6.2f %% (float %.2f %%)", seed, r.what, r.got, float)
		}
		all, floats = append(all, rows), append(floats, float)
	}
	for i, r := range all[0] {
		lost := 0.0
		for s, rows := range all {
			lost += (floats[s] - rows[i].got) / float64(len(all))
		}
		t.Logf("mean: %-46s loses %.2f points", r.what, lost)
		if lost < r.low || lost > r.high {
			t.Errorf("%s loses %.2f points on average, want %v to %v", r.what, lost, r.low, r.high)
		}
	}
}

// onGrid puts the weights of the depthwise layers on the grid of a Spec and leaves everything else in float32: what these
// grids cost by themselves. The weights are the values s*q of their codes.
func onGrid(m *model.Model, spec quant.Spec) *model.Model {
	m = m.Clone()
	lo, hi := spec.Grid()
	for i := range m.Nodes {
		n := &m.Nodes[i]
		if n.Op != model.Conv || n.Attr.Groups == 1 {
			continue
		}
		w := m.Params[n.Param(model.Weight)].Data
		groups := 1
		if spec.Per == quant.PerChannel {
			groups = n.Attr.Units
		}
		for g := range groups {
			var most float32
			for j := g; j < len(w); j += groups {
				most = max(most, w[j], -w[j])
			}
			s, _ := spec.Choose(0, most)
			for j := g; j < len(w); j += groups {
				w[j] = quant.Mul32(s, float32(quant.One(w[j], s, 0, lo, hi)))
			}
		}
	}
	return m
}
