package model_test

import (
	"math"
	"testing"

	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// Weights are coded by their rule, one by one as quant.Spec.Code does, and the mask has what the grid did not clamp.
func TestCodeWeightsByRounding(t *testing.T) {
	in := &quant.Params{Spec: quant.ActSpec(quant.Int8), Scale: []float32{0.01}, Zero: []int32{3}}
	s := rng.New(5, rng.Test)
	w := make([]float32, 7*24)
	for i := range w {
		w[i] = float32(s.Norm())
		if i%5 == 0 {
			w[i] = 0.25 * float32(i%9-4) / 2 // halves
		}
	}
	for _, mode := range quant.Roundings() {
		spec := quant.WeightSpec(quant.Int4)
		spec.Rounding, spec.Range = mode, quant.LSQ
		p := &quant.Params{Spec: spec, Scale: []float32{0.25, 0.1, 0.5, 0.3, 0.25, 0.2, 0.7}, Zero: make([]int32, 7)}
		codes, mask, scale := make([]int8, len(w)), make([]uint8, len(w)/8), make([]float32, 7)
		if _, err := (model.Loops{}).CodeWeights(codes, mask, scale, w, p, in, nil); err != nil {
			t.Fatal(err)
		}
		for i, v := range w {
			c := i % 7
			rounded := mode.Round(float64(v / p.Scale[c]))
			if want := spec.Code(v, p.Scale[c], 0); int32(codes[i]) != want {
				t.Fatalf("%s: code of %v at scale %v is %d, want %d", mode, v, p.Scale[c], codes[i], want)
			}
			if in := mask[i>>3]>>(i&7)&1 == 1; in != (math.Abs(rounded) <= 7) {
				t.Fatalf("%s: %v rounds to %v and the mask says %t", mode, v, rounded, in)
			}
		}
	}
}

// Stochastic rounding is floor(t + noise): the expected code is the weight itself.
func TestStochasticRoundingIsUnbiased(t *testing.T) {
	in := &quant.Params{Spec: quant.ActSpec(quant.Int8), Scale: []float32{0.01}, Zero: []int32{3}}
	spec := quant.WeightSpec(quant.Int4)
	spec.Rounding, spec.Range, spec.Per = quant.Stochastic, quant.LSQ, quant.PerTensor
	p := &quant.Params{Spec: spec, Scale: []float32{0.5}, Zero: []int32{0}}
	w := []float32{0, 0.5, 0.1, -0.1, 1.3, -2.2, 3.5, -3.5, 9}
	sums := make([]float64, len(w))
	const draws = 20000
	stream := rng.New(1, rng.Test)
	noise, codes, scale := make([]float32, len(w)), make([]int8, len(w)), make([]float32, 1)
	for range draws {
		for i := range noise {
			noise[i] = stream.Float32()
		}
		if _, err := (model.Loops{Noise: noise}).CodeWeights(codes, nil, scale, w, p, in, nil); err != nil {
			t.Fatal(err)
		}
		for i, q := range codes {
			sums[i] += float64(q)
		}
	}
	for i, v := range w {
		mean, want := sums[i]/draws, math.Min(float64(v)/0.5, 7)
		if math.Abs(mean-want) > 5*0.5/math.Sqrt(draws) { // five standard deviations of a fair coin
			t.Errorf("%v has mean code %v, want %v", v, mean, want)
		}
	}
}
