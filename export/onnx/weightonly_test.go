package onnx_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/export/onnx"
	"github.com/narrow-ml/narrow/export/onnx/eval"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// value is weight k of a weight-only layer by the definition of docs/arithmetic.md: f32(s*q), s that of the channel, or of
// the channel's group of rows.
func value(m *model.Model, n *model.Node, k int) float64 {
	q, units := m.Quant[n.Param(model.Weight)], n.Attr.Units
	s := q.Scale[0]
	switch q.Spec.Per {
	case quant.PerChannel:
		s = q.Scale[k%units]
	case quant.PerGroup:
		s = q.Scale[k/units/q.Spec.Group*units+k%units]
	}
	return float64(quant.Mul32(s, float32(m.Params[n.Param(model.Weight)].Codes[k])))
}

// TestWriteWeightOnly: a dense layer of weights in groups, the last of them short, gives the products of exactly their
// values for unit inputs, one for each row.
func TestWriteWeightOnly(t *testing.T) {
	const in, units = 70, 3
	for _, per := range []quant.Granularity{quant.PerTensor, quant.PerChannel, quant.PerGroup} {
		rng := rand.New(rand.NewPCG(1, uint64(per)))
		m := model.New("rows", model.Input{Name: "x", Shape: model.Shape{in}, Scale: 1, Zero: 0})
		m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: units}})
		m, err := model.Shapes(m)
		if err != nil {
			t.Fatal(err)
		}
		for i := range m.Params["fc.weight"].Data {
			m.Params["fc.weight"].Data[i] = float32(rng.NormFloat64() * float64(1+i/units/32))
		}
		config := model.DefaultQuant(precisions(t, "w4a16")[0])
		if config.Weight.Per = per; per == quant.PerGroup {
			config.Weight.Group = 32
		}
		if m, err = model.Place(m, config); err != nil {
			t.Fatal(err)
		}
		if m, err = model.Freeze(m); err != nil {
			t.Fatal(err)
		}
		for _, o := range []onnx.Options{{}, {PackInt4: true}} {
			_, program := write(t, m, o)
			x := make([]uint8, in*in)
			for i := range in {
				x[i*in+i] = 1
			}
			got := run(t, m, program, x, in, eval.Float)["fc"].Float32s()
			want := make([]float32, in*units)
			for k := range want {
				want[k] = float32(value(m, &m.Nodes[0], k))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s, %+v: the file's weights are not s*q", per, o)
			}
		}
	}
}
