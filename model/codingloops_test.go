package model_test

import (
	"math"
	"testing"

	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// TestWeightCodesAreQuantOne: the plain loop and package kernel's vectors round every weight as quant.One does, at every
// tie of the grid and on the floats around it, far outside, and at zeros of both signs.
func TestWeightCodesAreQuantOne(t *testing.T) {
	scales := []float32{0.00214854861, 0.1, 1.0 / 3, 1, 0.7317, 3e-7, quant.MinScale, 1e20, 0.05296124517917633}
	loops := map[string]model.Loops{"plain": {}, "kernel": {AbsMax: kernel.AbsMaxChannels, Quantize: kernel.QuantizeS8}}
	for _, format := range []quant.Format{quant.Int2, quant.Int4, quant.Int8} {
		spec := quant.WeightSpec(format)
		spec.Range = quant.LSQ
		lo, hi := spec.Grid()
		for _, s := range scales {
			var w []float32
			for k := 2*lo - 6; k <= 2*hi+6; k++ { // halves, in units of the scale
				v := float32(float64(k) / 2 * float64(s))
				up, down := v, v
				w = append(w, v)
				for range 4 {
					up, down = math.Nextafter32(up, math.MaxFloat32), math.Nextafter32(down, -math.MaxFloat32)
					w = append(w, up, down)
				}
			}
			w = append(w, 0, float32(math.Copysign(0, -1)), 1e30, -1e30, math.SmallestNonzeroFloat32)
			p := &quant.Params{Spec: spec, Scale: []float32{s}, Zero: []int32{0}}
			for name, l := range loops {
				codes, mask, scale := make([]int8, len(w)), make([]uint8, len(w)/8+1), make([]float32, 1)
				in := &quant.Params{Spec: quant.ActSpec(quant.Int8), Scale: []float32{1}, Zero: []int32{0}}
				if raised, err := l.CodeWeights(codes, mask, scale, w, p, in, nil); err != nil || raised != 0 {
					t.Fatalf("%s: %v, %d raised", name, err, raised)
				}
				for i, v := range w {
					if want := quant.One(v, s, 0, lo, hi); int32(codes[i]) != want {
						t.Errorf("%s %s: %v / %v: code %d, want %d", name, format, v, s, codes[i], want)
					}
					free := quant.One(v, s, 0, math.MinInt32, math.MaxInt32)
					if inside := mask[i>>3]>>(i&7)&1 == 1; inside != (free >= lo && free <= hi) {
						t.Errorf("%s %s: %v / %v: mask %t, unclamped code %d", name, format, v, s, inside, free)
					}
				}
			}
		}
	}
}

// Infinite and NaN weights are refused by every method and loop.
func TestWeightsMustBeFinite(t *testing.T) {
	inf := float32(math.Inf(-1))
	for _, method := range []quant.Range{quant.MinMax, quant.LSQ} {
		spec := quant.WeightSpec(quant.Int8)
		spec.Range = method
		p := &quant.Params{Spec: spec, Scale: []float32{1}, Zero: []int32{0}}
		in := &quant.Params{Spec: quant.ActSpec(quant.Int8), Scale: []float32{1}, Zero: []int32{0}}
		for _, l := range []model.Loops{{}, {AbsMax: kernel.AbsMaxChannels, Quantize: kernel.QuantizeS8}} {
			for _, bad := range []float32{inf, float32(math.NaN())} {
				w := []float32{1, 2, 3, 4, 5, bad, 7, 8}
				if _, err := l.CodeWeights(make([]int8, 8), nil, make([]float32, 2), w, p, in, nil); err == nil {
					t.Errorf("%s: weight %v was coded", method, bad)
				}
			}
		}
	}
}
