package quant_test

import (
	"math"
	"testing"

	"github.com/narrow-ml/narrow/quant"
)

func TestParamsValidate(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	w, a := quant.WeightSpec(quant.Int4), quant.ActSpec(quant.Int8)
	perTensor := w
	perTensor.Per = quant.PerTensor
	rows := []struct {
		name string
		p    quant.Params
		want string
	}{
		{"weight", quant.Params{Spec: w, Scale: []float32{1, 2, 3}, Zero: make([]int32, 3)}, ""},
		{"weight per tensor", quant.Params{Spec: perTensor, Scale: []float32{1}, Zero: []int32{0}}, ""},
		{"activation", quant.Params{Spec: a, Scale: []float32{1}, Zero: []int32{255}}, ""},
		{"float", quant.Params{Spec: quant.ActSpec(quant.BF16)}, ""},
		{"no spec", quant.Params{}, "format is not set"},
		{"per channel count", quant.Params{Spec: w, Scale: []float32{1}, Zero: []int32{0}}, "channel needs 3 scales and zero points, has 1 and 1"},
		{"zero count", quant.Params{Spec: w, Scale: []float32{1, 1, 1}}, "channel needs 3 scales and zero points, has 3 and 0"},
		{"per tensor count", quant.Params{Spec: a, Scale: []float32{1, 1, 1}, Zero: make([]int32, 3)}, "tensor needs 1 scales and zero points, has 3 and 3"},
		{"NaN", quant.Params{Spec: w, Scale: []float32{1, nan, 1}, Zero: make([]int32, 3)}, "scale[1] is NaN; it must be finite and positive"},
		{"infinite", quant.Params{Spec: w, Scale: []float32{1, 1, inf}, Zero: make([]int32, 3)}, "scale[2] is +Inf; it must be finite and positive"},
		{"zero scale", quant.Params{Spec: a, Scale: []float32{0}, Zero: []int32{0}}, "scale[0] is 0; it must be finite and positive"},
		{"negative", quant.Params{Spec: a, Scale: []float32{-1}, Zero: []int32{0}}, "scale[0] is -1; it must be finite and positive"},
		{"zero above", quant.Params{Spec: a, Scale: []float32{1}, Zero: []int32{256}}, "zero[0] = 256 is outside the grid [0, 255]"},
		{"zero below", quant.Params{Spec: a, Scale: []float32{1}, Zero: []int32{-1}}, "zero[0] = -1 is outside the grid [0, 255]"},
		{"weight zero point", quant.Params{Spec: perTensor, Scale: []float32{1}, Zero: []int32{2}}, "zero[0] = 2: a signed symmetric grid has zero point 0"},
	}
	for _, r := range rows {
		if got := message(r.p.Validate(3)); got != r.want {
			t.Errorf("%s: %q, want %q", r.name, got, r.want)
		}
	}
}

func TestParamsAccess(t *testing.T) {
	one := &quant.Params{Spec: quant.ActSpec(quant.Int8), Scale: []float32{0.5}, Zero: []int32{9}}
	if s, z := one.At(7); s != 0.5 || z != 9 {
		t.Errorf("per tensor: channel 7 has %v, %d", s, z)
	}
	two := &quant.Params{Spec: quant.WeightSpec(quant.Int8), Scale: []float32{0.5, 0.25}, Zero: []int32{0, 0}}
	if s, _ := two.At(1); s != 0.25 {
		t.Errorf("per channel: channel 1 has %v", s)
	}
	c := two.Clone()
	c.Scale[0], c.Zero[0] = 7, 7
	if two.Scale[0] != 0.5 || two.Zero[0] != 0 || c.Spec != two.Spec {
		t.Error("a clone shares its scales with the original")
	}
	for want, p := range map[bool]*quant.Params{true: {Spec: quant.ActSpec(quant.FP16)}, false: {Spec: quant.ActSpec(quant.Int8)}} {
		if p.Ready() != want {
			t.Errorf("%s without scales: Ready() = %v", p.Spec, p.Ready())
		}
	}
	if !one.Ready() {
		t.Error("a scale is there, but Ready() is false")
	}
}
