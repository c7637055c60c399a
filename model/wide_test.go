package model_test

import (
	"math"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// TestCodeWide: 16-bit codes are those of package quant, and the scale of a channel is doubled until its bias fits 32 bits.
func TestCodeWide(t *testing.T) {
	w := []float32{0.5, -2, 0.25, 1, -0.125, 0.001}
	p := &quant.Params{Spec: quant.WeightSpec(quant.Int16)}
	in := &quant.Params{Spec: quant.ActSpec(quant.Int16), Scale: []float32{1e-4}, Zero: []int32{0}}
	codes, scale := make([]int16, 6), make([]float32, 2)
	raised, err := model.CodeWide(codes, scale, w, p, in, &model.Affine{B: []float64{1, -1}})
	if err != nil || raised != 0 {
		t.Fatal(raised, err)
	}
	want := make([]int16, 6)
	alone := &quant.Params{Spec: p.Spec, Scale: []float32{float32(0.5) / 32767, float32(2) / 32767}, Zero: []int32{0, 0}}
	if err := quant.Quantize(want, w, alone); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(codes, want) || !slices.Equal(scale, alone.Scale) || codes[0] != 32767 || codes[1] != -32767 {
		t.Errorf("codes %v with %v, want %v with %v", codes, scale, want, alone.Scale)
	}
	const bias = 100 // of the order of 2^36 steps
	if raised, err = model.CodeWide(codes, scale, w, p, in, &model.Affine{B: []float64{bias, 0}}); err != nil || raised != 1 {
		t.Fatal(raised, err)
	}
	ratio := float64(scale[0] / alone.Scale[0])
	if frac, _ := math.Frexp(ratio); frac != 0.5 || bias/float64(scale[0]*1e-4) > math.MaxInt32 || 2*bias/float64(scale[0]*1e-4) < math.MaxInt32 {
		t.Errorf("scale raised by %v", ratio)
	}
	if _, err := model.CodeWide(codes[:5], scale, w, p, in, nil); err == nil {
		t.Error("too few codes were accepted")
	}
}

// TestWideModel: what Freeze makes of 16-bit layers, and what Validate finds wrong with it.
func TestWideModel(t *testing.T) {
	m := frozenNet(t, "int16")
	if q := m.Quant["c1"]; !q.Spec.Signed || q.Zero[0] != 0 || q.Spec.Scheme != quant.Symmetric {
		t.Errorf("activation %+v", q)
	}
	if r := m.Node("c1").Requant; r.Lo != 0 || r.Hi != 32767 || r.Zero != 0 {
		t.Errorf("limits of a ReLU: %+v", r)
	}
	if m.WeightBytes() == 0 || m.Params["c1.weight"].Codes16 == nil || m.Params["c1.weight"].Codes != nil {
		t.Error("the weight is not in 16 bits")
	}
	m.Params["c1.weight"].Codes16[0] = -32768
	if err := model.Validate(m); err == nil {
		t.Error("a code below the narrow grid was accepted")
	}
}
