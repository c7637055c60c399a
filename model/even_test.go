package model_test

import (
	"bytes"
	"math"
	"reflect"
	"testing"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// TestEvenWeightCodesAreSpecCode: the coding loop of even levels is quant.Spec.Code and its mask quant.Spec.EvenPass, on
// ties, beside them, beyond the grid and at signed zeros.
func TestEvenWeightCodesAreSpecCode(t *testing.T) {
	in := &quant.Params{Spec: quant.ActSpec(quant.Int8), Scale: []float32{1}, Zero: []int32{0}}
	for _, format := range []quant.Format{quant.Binary, quant.Int2, quant.Int4, quant.Int7} {
		spec := quant.WeightSpec(format)
		spec.Even, spec.Range = true, quant.LSQ
		lo, hi := spec.Grid()
		for _, s := range []float32{0.1, 1.0 / 3, 1, 2, 3e-7, quant.MinScale, 1e20} {
			w := []float32{0, float32(math.Copysign(0, -1)), 1e30, -1e30, math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat32}
			for k := 2*lo - 6; k <= 2*hi+6; k++ {
				v := float32(float64(k) / 2 * float64(s))
				w = append(w, v, math.Nextafter32(v, math.MaxFloat32), math.Nextafter32(v, -math.MaxFloat32))
			}
			p := &quant.Params{Spec: spec, Scale: []float32{s}, Zero: []int32{0}}
			codes, mask, scale := make([]int8, len(w)), make([]uint8, len(w)/8+1), make([]float32, 1)
			if raised, err := (model.Loops{}).CodeWeights(codes, mask, scale, w, p, in, nil); err != nil || raised != 0 {
				t.Fatalf("%v, %d raised", err, raised)
			}
			for i, v := range w {
				if want := spec.Code(v, s, 0); int32(codes[i]) != want {
					t.Errorf("%s: %v / %v: code %d, want %d", spec, v, s, codes[i], want)
				}
				if inside := mask[i>>3]>>(i&7)&1 == 1; inside != spec.EvenPass(v/s) {
					t.Errorf("%s: %v / %v: mask %t", spec, v, s, inside)
				}
			}
		}
	}
}

// TestBinaryScales: binary weights are mean|w| of their channel or tensor, or the constant of the Spec.
func TestBinaryScales(t *testing.T) {
	w := []float32{1, -2, 3, -4, -5, 6} // two channels: 1, 3, -5 and -2, -4, 6
	in := &quant.Params{Spec: quant.ActSpec(quant.Int8), Scale: []float32{1}, Zero: []int32{0}}
	constant := quant.WeightSpec(quant.Binary)
	constant.Range, constant.Max = quant.Constant, 0.5
	tensor := quant.WeightSpec(quant.Binary)
	tensor.Per = quant.PerTensor
	for _, r := range []struct {
		spec quant.Spec
		want []float32
	}{{quant.WeightSpec(quant.Binary), []float32{3, 4}}, {tensor, []float32{3.5, 3.5}}, {constant, []float32{0.5, 0.5}}} {
		codes, scale := make([]int8, 6), make([]float32, 2)
		if _, err := model.CodeWeights(codes, scale, w, &quant.Params{Spec: r.spec}, in, nil); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(scale, r.want) || !reflect.DeepEqual(codes, []int8{1, -1, 1, -1, -1, 1}) {
			t.Errorf("%s: scales %v, codes %v; want %v and the signs", r.spec, scale, codes, r.want)
		}
	}
}

// TestEvenFreeze: batch norm folds into even levels, which have no code for a channel whose factor vanishes: it keeps its
// codes at the floor's scale. The file holds n bits a weight and gives the same codes back.
func TestEvenFreeze(t *testing.T) {
	for _, name := range []string{"w1a8", "w2a8", "w5a8"} {
		m := calibrated(t, name, func(q *model.QuantConfig) { q.Weight.Even = true })
		frozen := must(t)(model.Freeze(m))
		a := affine(t, m, "fc1")
		codes, scale := make([]int8, len(m.Params["fc1.weight"].Data)), make([]float32, 5)
		if _, err := model.CodeWeights(codes, scale, m.Params["fc1.weight"].Data, m.Quant["fc1.weight"], m.Quant["flat"], &a); err != nil {
			t.Fatal(err)
		}
		floored := 0
		for i, q := range frozen.Params["fc1.weight"].Codes {
			sign := int8(1)
			if a.F[i%5] < 0 {
				sign = -1
			}
			if q != sign*codes[i] || q%2 == 0 {
				t.Fatalf("%s: code[%d] = %d, want %d times %d, odd", name, i, q, sign, codes[i])
			}
		}
		for ch, s := range frozen.Quant["fc1.weight"].Scale {
			if math.Abs(a.F[ch]) < model.NormFloor {
				floored++
			}
			if want := float32(float64(scale[ch]) * max(math.Abs(a.F[ch]), model.NormFloor)); s != want {
				t.Errorf("%s: S[%d] = %v, want %v", name, ch, s, want)
			}
		}
		if floored == 0 {
			t.Error("the case needs a channel below the floor")
		}
		var file bytes.Buffer
		if err := model.Encode(&file, frozen); err != nil {
			t.Fatal(err)
		}
		back, err := model.Decode(file.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		for param, p := range frozen.Params {
			if !reflect.DeepEqual(back.Params[param].Codes, p.Codes) {
				t.Errorf("%s: %s came back changed", name, param)
			}
		}
		frozen.Params["fc1.weight"].Codes[3]++
		if err := model.Validate(frozen); err == nil {
			t.Errorf("%s: an even code was accepted", name)
		}
	}
}
