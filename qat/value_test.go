package qat_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/qat"
	"github.com/narrow-ml/narrow/quant"
)

func TestAccStandsFor(t *testing.T) {
	a := qat.NewAcc(tensor.Shape{2, 2})
	a.Raw = []int32{-5, 7, 1 << 25, -100}
	a.Offset = []int32{3, -7}
	a.InScale, a.Scale = 0.1, []float32{0.5, 3}
	want := make([]float32, 4)
	for i, raw := range a.Raw {
		m := float32(a.InScale * a.Scale[i%2])
		want[i] = float32(raw+a.Offset[i%2]) * m
	}
	got := make([]float32, 4)
	a.Dequantize(got)
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	a.Relu = true
	a.Dequantize(got)
	if got[0] != 0 || got[2] != want[2] || got[3] != 0 {
		t.Errorf("with ReLU %v", got)
	}
	if a.Size() != 4 || a.Channels() != 2 || a.Dtype() != tensor.Float32 || a.MemSize() != 16 || a.Uintptr() == 0 {
		t.Error("the value misreports itself to Gorgonia")
	}
	if s := fmt.Sprintf("%v", a); s != "accumulators s32 (2, 2)" {
		t.Errorf("printed as %q", s)
	}
}

func TestCodesStandFor(t *testing.T) {
	p := &quant.Params{Spec: quant.ActSpec(quant.Int8), Scale: []float32{0.1}, Zero: []int32{7}}
	c := qat.NewActCodes(p, tensor.Shape{1, 3})
	copy(c.U8, []uint8{0, 7, 255})
	got, want := make([]float32, 3), make([]float32, 3)
	c.Dequantize(got)
	if err := quant.Dequantize(want, c.U8, p); err != nil || !slices.Equal(got, want) {
		t.Errorf("activation %v, want %v (%v)", got, want, err)
	}
	v := c.View(tensor.Shape{3, 1})
	v.U8[0] = 9
	if c.U8[0] != 9 || v.Shape().Dims() != 2 || v.Shape()[0] != 3 || v.MemSize() != 3 || v.Uintptr() != c.Uintptr() {
		t.Error("a view is not the same codes in another shape")
	}
	w := &qat.Codes{S8: []int8{-127, 3, 0, 5}, Params: &quant.Params{Spec: quant.WeightSpec(quant.Int8), Scale: []float32{0.5, 0.25}, Zero: []int32{0, 0}}}
	got = make([]float32, 4)
	w.Dequantize(got)
	if !slices.Equal(got, []float32{-63.5, 0.75, 0, 1.25}) {
		t.Errorf("weight %v", got)
	}
	if fmt.Sprintf("%v %v", c, w.View(tensor.Shape{2, 2})) != "codes u8 (1, 3) codes s8 (2, 2)" {
		t.Errorf("printed as %v %v", c, w.View(tensor.Shape{2, 2}))
	}
}

func TestInitialScale(t *testing.T) {
	w := []float32{1, -4, -3, 8}
	spec := quant.WeightSpec(quant.Int4)
	spec.Range = quant.LSQ
	root := math.Sqrt(7)
	for _, row := range []struct {
		per  quant.Granularity
		want []float32
	}{
		{quant.PerChannel, []float32{float32(2 * 2 / root), float32(2 * 6 / root)}},
		{quant.PerTensor, []float32{float32(2 * 4 / root)}},
	} {
		spec.Per = row.per
		p := &quant.Params{Spec: spec}
		qat.InitialScale(p, w, 2)
		if !slices.Equal(p.Scale, row.want) || p.Validate(2) != nil {
			t.Errorf("%s: %v, want %v (%v)", row.per, p.Scale, row.want, p.Validate(2))
		}
		p.Scale[0] = 5
		if qat.InitialScale(p, w, 2); p.Scale[0] != 5 {
			t.Error("a calibrated scale is overwritten")
		}
	}
	zero := &quant.Params{Spec: spec}
	if qat.InitialScale(zero, make([]float32, 4), 2); zero.Scale[0] != quant.MinScale {
		t.Errorf("zero weights give scale %v", zero.Scale)
	}
	minmax := &quant.Params{Spec: quant.WeightSpec(quant.Int4)}
	if qat.InitialScale(minmax, w, 2); minmax.Scale != nil {
		t.Error("a scale that is not learned is set")
	}
}

func TestQuantizersRefuse(t *testing.T) {
	g := G.NewGraph()
	x, err := gx.Leaf(g, "x", gx.NewTensor(2, 2))
	if err != nil {
		t.Fatal(err)
	}
	st := qat.NewStep(nil, true)
	ready := func(change func(*quant.Params)) *quant.Params {
		p := &quant.Params{Spec: quant.ActSpec(quant.Int8), Scale: []float32{1}, Zero: []int32{0}}
		change(p)
		return p
	}
	if _, err := qat.QuantizeInput("x", x, ready(func(*quant.Params) {})); err == nil || !strings.Contains(err.Error(), "leaf of u8 codes") {
		t.Errorf("floats as input bytes: %v", err)
	}
	for _, row := range []struct {
		p    *quant.Params
		want string
	}{
		{&quant.Params{Spec: quant.ActSpec(quant.Int8)}, "calibrate first"},
		{ready(func(p *quant.Params) { p.Scale[0] = 0 }), "scale[0]"},
		{ready(func(p *quant.Params) { p.Zero[0] = 256 }), "outside the grid"},
		{ready(func(p *quant.Params) { p.Spec.Range = quant.LSQ }), "lsq learns [scale], and there are 0 leaves"},
	} {
		if _, _, err := qat.QuantizeAct(st, "a", row.p, x, nil, true); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%v, want %q", err, row.want)
		}
	}
}
