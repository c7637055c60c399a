package model_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// groupNet is one dense layer of 70 inputs: with groups of 32 rows the last has 6.
func groupNet(t *testing.T, edit func(*model.QuantConfig)) *model.Model {
	t.Helper()
	m := model.New("groups", model.Input{Name: "x", Shape: model.Shape{70}, Scale: 0.25, Zero: 9})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: 3, Bias: true}, Origin: "net.yaml:4"})
	m, err := model.Shapes(m)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	for i := range m.Params["fc.weight"].Data {
		m.Params["fc.weight"].Data[i] = float32(rnd.NormFloat64() * math.Pow(4, float64(i/3/32)))
	}
	q := model.DefaultQuant(precision(t, "w4a16"))
	q.Weight.Per, q.Weight.Group = quant.PerGroup, 32
	if edit != nil {
		edit(&q)
	}
	if m, err = model.Place(m, q); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestGroupsAreWeightsOfTheirOwn: each group of rows has the codes and scales that it would have as a weight per channel.
func TestGroupsAreWeightsOfTheirOwn(t *testing.T) {
	m := groupNet(t, nil)
	w := m.Params["fc.weight"].Data
	f, err := model.Freeze(m)
	if err != nil {
		t.Fatal(err)
	}
	q, codes := f.Quant["fc.weight"], f.Params["fc.weight"].Codes
	if len(q.Scale) != 9 || q.Channels != 3 {
		t.Fatalf("%d scales of %d channels, want 9 of 3", len(q.Scale), q.Channels)
	}
	spec := quant.WeightSpec(quant.Int4)
	for g := range 3 {
		part := w[g*96 : min((g+1)*96, len(w))]
		alone := &quant.Params{Spec: spec, Zero: make([]int32, 3)}
		for c := range 3 {
			var top float32
			for i := c; i < len(part); i += 3 {
				top = max(top, part[i], -part[i])
			}
			s, _ := spec.Choose(0, top)
			alone.Scale = append(alone.Scale, s)
		}
		want := make([]int8, len(part))
		if err := quant.Quantize(want, part, alone); err != nil {
			t.Fatal(err)
		}
		if got := codes[g*96:][:len(part)]; !slices.Equal(got, want) || !slices.Equal(q.Scale[3*g:3*g+3], alone.Scale) {
			t.Errorf("group %d: codes %v with %v, alone %v with %v", g, got, q.Scale[3*g:3*g+3], want, alone.Scale)
		}
	}
	if got, want := f.WeightBytes(), 210/2+4*9; got != want || m.WeightBytes() != want {
		t.Errorf("%d bytes frozen and %d before, want %d", got, m.WeightBytes(), want)
	}

	// quant reads the same grid: values are fixed points.
	values, again := make([]float32, len(w)), make([]int8, len(w))
	if err := quant.Dequantize(values, codes, q); err != nil {
		t.Fatal(err)
	}
	if err := quant.Quantize(again, values, q); err != nil || !slices.Equal(again, codes) {
		t.Errorf("values of codes are coded differently (%v)", err)
	}
	fake := make([]float32, len(w))
	if err := quant.FakeQuantize(fake, w, q, nil); err != nil || !slices.Equal(fake, values) {
		t.Errorf("fake-quantization differs from the values of the codes (%v)", err)
	}

	var file bytes.Buffer
	if err := model.Encode(&file, f); err != nil {
		t.Fatal(err)
	}
	back, err := model.Decode(file.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	got := back.Quant["fc.weight"]
	if got.Spec != q.Spec || got.Channels != 3 || !slices.Equal(got.Scale, q.Scale) || !slices.Equal(back.Params["fc.weight"].Codes, codes) {
		t.Errorf("read back: %+v", got)
	}
	f.Quant["fc.weight"].Scale = f.Quant["fc.weight"].Scale[:6]
	f.Quant["fc.weight"].Zero = f.Quant["fc.weight"].Zero[:6]
	if err := model.Validate(f); err == nil || !strings.Contains(err.Error(), "with 6 scales") {
		t.Errorf("a model without the scales of a group: %v", err)
	}
}

// TestWeightOnlyKeepsScales: nothing is folded into the scales of a weight-only layer, so they may be powers of two beside
// batch norm, and no bias can raise them.
func TestWeightOnlyKeepsScales(t *testing.T) {
	for _, per := range []quant.Granularity{quant.PerTensor, quant.PerChannel} {
		m := groupNet(t, func(q *model.QuantConfig) {
			q.Weight.Per, q.Weight.Group, q.Weight.Scheme = per, 0, quant.PowerOfTwo
		})
		m.Params["fc.bias"].Data[0] = 1e30
		f, err := model.Freeze(m)
		if err != nil {
			t.Fatal(err)
		}
		q := f.Quant["fc.weight"]
		if want := q.Spec.Scales(210, 3); len(q.Scale) != want {
			t.Errorf("per %s: %d scales, want %d", per, len(q.Scale), want)
		}
		for _, s := range q.Scale {
			if frac, _ := math.Frexp(float64(s)); frac != 0.5 {
				t.Errorf("per %s: scale %v is no power of two", per, s)
			}
		}
		if b := f.Params["fc.bias"]; b.Data[0] != 1e30 || f.Nodes[0].Requant != nil {
			t.Errorf("per %s: bias %v, requantization %v", per, b.Data, f.Nodes[0].Requant)
		}
	}
}

func TestGroupsNeedFloats(t *testing.T) {
	m := groupNet(t, func(q *model.QuantConfig) { q.Precision, q.Act = precision(t, "w4a8"), quant.ActSpec(quant.Int8) })
	want := `net.yaml:4: dense "fc": weight int4 symmetric/group of 32/minmax: a scale per group of inputs would need an accumulator for each group`
	if err := model.Check(m); err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "w4a16") {
		t.Errorf("%v", err)
	}
}
