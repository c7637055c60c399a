package model_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

func dorefa(f quant.Format, even bool) quant.Spec {
	s := quant.WeightSpec(f)
	s.Range, s.Per, s.Even = quant.DoReFa, quant.PerTensor, even
	return s
}

// squashCases are weights of several sizes, the saturated and the vanishing included.
func squashCases() map[string][]float32 {
	r := rand.New(rand.NewPCG(22, 1))
	cases := map[string][]float32{
		"zero": make([]float32, 6), "one": {0, 0, 3, 0, 0, 0}, "signed zeros": {float32(math.Copysign(0, -1)), 1, 0, -1, 2, 0.5},
		"tiny": {1e-30, -2e-30, 0, 1e-38, 5e-31, 1e-30}, "huge": {1e30, -3e38, 1, -0.25, 20, 9},
	}
	for name, size := range map[string]float64{"small": 0.02, "usual": 0.4, "wide": 3} {
		w := make([]float32, 600)
		for i := range w {
			w[i] = float32(r.NormFloat64() * size)
		}
		cases[name] = w
	}
	return cases
}

func top(w []float32) (most float32) {
	for _, v := range w {
		most = max(most, v, -v)
	}
	return most
}

// TestDoReFaCodes (D22): codes and scale against 2*quantize_k(tanh(w)/(2 max|tanh w|) + 1/2) - 1 of the paper in float64, where
// the weight is not within rounding errors of the middle of two levels; with narrow levels against rint.
func TestDoReFaCodes(t *testing.T) {
	in := &quant.Params{Spec: quant.ActSpec(quant.Int8), Scale: []float32{1}, Zero: []int32{0}}
	for name, w := range squashCases() {
		most := math.Max(math.Tanh(float64(top(w))), float64(quant.MinScale))
		for _, spec := range []quant.Spec{dorefa(quant.Int2, true), dorefa(quant.Int4, true), dorefa(quant.Int7, true), dorefa(quant.Int2, false), dorefa(quant.Int8, false)} {
			_, hi := spec.Grid()
			codes, scale := make([]int8, len(w)), make([]float32, 3)
			if _, err := model.CodeWeights(codes, scale, w, &quant.Params{Spec: spec}, in, nil); err != nil {
				t.Fatal(err)
			}
			checked := 0
			for i, v := range w {
				if s := scale[i%3]; s != 1/float32(hi) {
					t.Fatalf("%s %s: scale %v, want 1/%d", name, spec, s, hi)
				}
				squashed := math.Tanh(float64(v)) / most
				at := squashed * float64(hi)
				want := math.RoundToEven(at)
				if spec.Even {
					at = float64(hi) * (squashed/2 + 0.5) // n*r_i, n = 2^k - 1 = hi
					want = 2*math.Round(at) - float64(hi)
				}
				if off := math.Abs(at-math.Floor(at)) - 0.5; math.Abs(off) < 1e-4 {
					continue
				}
				checked++
				if float64(codes[i]) != want {
					t.Errorf("%s %s: w[%d] = %v has code %d, want %v", name, spec, i, v, codes[i], want)
				}
			}
			if len(w) > 6 && checked < len(w)*9/10 {
				t.Errorf("%s %s: %d of %d codes checked", name, spec, checked, len(w))
			}
		}
	}
	spec := dorefa(quant.Int4, true)
	spec.Per = quant.PerChannel
	_, err := model.CodeWeights(make([]int8, 6), make([]float32, 3), make([]float32, 6), &quant.Params{Spec: spec}, in, nil)
	if err == nil || !strings.Contains(err.Error(), "use per: tensor") {
		t.Errorf("per channel: %v", err)
	}
}

// TestSquashGrad: the gradient is that of tanh(w)/T with T held, by central differences of math.Tanh with step 1e-4, to 1e-5 of
// the largest slope 1/T and 1e-7 for the float32 that Squash leaves.
func TestSquashGrad(t *testing.T) {
	for name, w := range squashCases() {
		most := top(w)
		held := math.Max(math.Tanh(float64(most)), float64(quant.MinScale))
		y, dy, dw := make([]float32, len(w)), make([]float32, len(w)), make([]float32, len(w))
		for i := range dy {
			dy[i] = float32(i%5) - 2
		}
		model.Squash(y, w, most)
		model.SquashGrad(dw, dy, y, most)
		const h = 1e-4
		for i, v := range w {
			if !(y[i] >= -1 && y[i] <= 1) {
				t.Fatalf("%s: %v becomes %v", name, v, y[i])
			}
			want := float64(dy[i]) * (math.Tanh(float64(v)+h) - math.Tanh(float64(v)-h)) / (2 * h) / held
			if d := math.Abs(float64(dw[i]) - want); d > math.Abs(float64(dy[i]))*(1e-5/held+1e-7) {
				t.Errorf("%s: gradient of %v is %v, want %v", name, v, dw[i], want)
			}
		}
		model.SquashGrad(dy, dy, y, most)
		for i := range dy {
			if dy[i] != dw[i] {
				t.Fatalf("%s: in place %v, apart %v", name, dy[i], dw[i])
			}
		}
	}
}
