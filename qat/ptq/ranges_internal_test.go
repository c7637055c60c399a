package ptq

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

func normals(n int, seed uint64) []float32 {
	s := rng.New(seed, rng.Test)
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(s.Norm())
	}
	return x
}

func filled(t *testing.T, x []float32) *histogram {
	t.Helper()
	h := newHistogram()
	if err := h.add(x); err != nil {
		t.Fatal(err)
	}
	return h
}

// meanSquares is the plain-loop truth that the histogram approximates.
func meanSquares(x []float32, s float32, z int32, spec quant.Spec) float64 {
	sum := 0.0
	for _, v := range x {
		sum += squaredError(spec, v, s, z)
	}
	return sum / float64(len(x))
}

func TestHistogramIgnoresOrderAndBatches(t *testing.T) {
	x := normals(5000, 1)
	x = append(x, 0, 0, 1e-30, -1e-40, 3e38, 1000)
	want := filled(t, x)
	for _, size := range []int{1, 7, 1000} {
		order := slices.Clone(x)
		slices.Sort(order) // the worst order: the width grows again and again
		got := newHistogram()
		for part := range slices.Chunk(order, size) {
			if err := got.add(part); err != nil {
				t.Fatal(err)
			}
		}
		if got.exp != want.exp || got.n != want.n || got.zeros != want.zeros || got.min != want.min || got.max != want.max ||
			!slices.Equal(got.pos, want.pos) || !slices.Equal(got.neg, want.neg) {
			t.Errorf("batches of %d in ascending order give another histogram", size)
		}
	}
	total := want.zeros
	want.bins(func(_ float32, c int64) { total += c })
	if total != int64(len(x)) {
		t.Errorf("%d values counted, %d added", total, len(x))
	}
}

func TestHistogramBinsHoldTheirValues(t *testing.T) {
	for _, x := range []float32{1, -1, 0.999, 3.1e-39, -65504, math.MaxFloat32, math.SmallestNonzeroFloat32} {
		h := filled(t, []float32{x})
		h.bins(func(mid float32, c int64) {
			if half := h.width() / 2; c != 1 || math.Abs(float64(mid)-float64(x)) > half {
				t.Errorf("%v is counted in the bin around %v +- %v", x, mid, half)
			}
		})
	}
}

func TestHistogramRefusesWhatHasNoRange(t *testing.T) {
	h := filled(t, []float32{1, 2})
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		err := h.add([]float32{5, float32(bad)})
		var ve *valueError
		if !errors.As(err, &ve) || ve.index != 1 {
			t.Errorf("%v: error %v, want a valueError at 1", bad, err)
		}
	}
	if h.n != 2 || h.max != 2 {
		t.Errorf("a refused batch was counted: n %d, max %v", h.n, h.max)
	}
}

func TestEveryMethodOnNoData(t *testing.T) {
	spec := quant.ActSpec(quant.Int8)
	for _, m := range []Method{MinMax, Percentile, MSE, KL, Histogram} {
		h := filled(t, make([]float32, 100)) // a dead layer: zeros only
		s, z, err := h.choose(spec, m, 99.99)
		if err != nil || s != quant.MinScale || z != 0 {
			t.Errorf("%s on zeros: scale %v zero %d error %v, want %v and 0", m, s, z, err, quant.MinScale)
		}
	}
}

func TestMinMaxClipsNothing(t *testing.T) {
	x := normals(10000, 2)
	spec := quant.ActSpec(quant.Int4)
	s, z, err := filled(t, x).choose(spec, MinMax, 99.99)
	if err != nil {
		t.Fatal(err)
	}
	lo, hi := spec.Grid()
	for _, v := range x {
		if d := math.Abs(float64(v - s*float32(quant.One(v, s, z, lo, hi)-z))); d > float64(s) {
			t.Fatalf("%v is off by %v, more than a step %v", v, d, s)
		}
	}
}

func TestPercentileClipsNoMoreThanItsShare(t *testing.T) {
	relu := normals(20000, 3)
	for i, v := range relu {
		relu[i] = max(v, 0)
	}
	both := normals(200000, 4)
	for _, x := range [][]float32{relu, both} {
		h := filled(t, x)
		last := float32(0)
		for _, p := range []float64{60, 90, 99, 99.9, 99.99, 100} {
			lo, hi := h.clipped(p)
			outside := 0
			for _, v := range x {
				if v < lo || v > hi {
					outside++
				}
			}
			if allowed := (100 - p) / 100 * float64(len(x)); float64(outside) > allowed {
				t.Errorf("p %v: %d values outside [%v, %v], at most %v allowed", p, outside, lo, hi, allowed)
			}
			if hi-lo < last {
				t.Errorf("p %v: range [%v, %v] is narrower than for a lower percentile", p, lo, hi)
			}
			last = hi - lo
		}
		if lo, hi := h.clipped(100); lo != min(h.min, 0) || hi != h.max {
			t.Errorf("percentile 100 gives [%v, %v], extremes are [%v, %v]", lo, hi, h.min, h.max)
		}
	}
	// 99 % of the standard normal lies within 2.576 on both sides; of |x| within 2.576 on one.
	if lo, hi := filled(t, both).clipped(99); math.Abs(float64(lo)+2.576) > 0.05 || math.Abs(float64(hi)-2.576) > 0.05 {
		t.Errorf("99 %% of the normal distribution: [%v, %v], want about +-2.576", lo, hi)
	}
}

func TestPercentileDropsAnOutlier(t *testing.T) {
	x := make([]float32, 20000)
	for i := range x {
		x[i] = float32(i%100) / 100
	}
	x[77] = 50
	_, hi := filled(t, x).clipped(99.99)
	if hi < 0.99 || hi > 1.01 {
		t.Errorf("upper bound %v, want about 0.99: the outlier at 50 is 0.005 %% of the values", hi)
	}
}

// TestMSEFindsTheOptimalStep compares with the optimal uniform quantizers of the normal distribution, J. Max, "Quantizing
// for minimum distortion", IRE Trans. Information Theory 6 (1960), table II: steps for 3, 7 and 15 levels. The grid search
// moves in steps of 1 % of absmax, so it can be off by half of that plus sampling noise.
func TestMSEFindsTheOptimalStep(t *testing.T) {
	x := normals(40000, 5)
	for _, tc := range []struct {
		format quant.Format
		step   float64
	}{{quant.Int2, 1.2240}, {quant.Int3, 0.6508}, {quant.Int4, 0.3534}} {
		spec := quant.WeightSpec(tc.format)
		_, hi := spec.Grid()
		tolerance := 4.5/100/float64(hi)/2 + 0.01
		weights := float64(leastSquaresWeights(slices.Clone(x), spec))
		if math.Abs(weights-tc.step) > tolerance {
			t.Errorf("%s weights: step %.4f, optimal %.4f (tolerance %.4f)", tc.format, weights, tc.step, tolerance)
		}
		fromBins, _ := filled(t, x).leastSquares(spec)
		if math.Abs(float64(fromBins)-tc.step) > tolerance {
			t.Errorf("%s histogram: step %.4f, optimal %.4f (tolerance %.4f)", tc.format, fromBins, tc.step, tolerance)
		}
	}
}

// TestMSEAgreesWithTheSamples searches the same grid on the values themselves.
func TestMSEAgreesWithTheSamples(t *testing.T) {
	x := normals(4000, 6)
	for i := range x {
		x[i] = max(x[i]*x[i]*x[i], 0) // heavy tail after a ReLU
	}
	h := filled(t, x)
	for _, f := range []quant.Format{quant.Int2, quant.Int3, quant.Int4, quant.Int6, quant.Int8} {
		spec := quant.ActSpec(f)
		s, z := h.leastSquares(spec)
		got := meanSquares(x, s, z, spec)
		best := math.Inf(1)
		for i := range shrinks {
			cs, cz := spec.Choose(shrunk(h.min, i), shrunk(h.max, i))
			best = min(best, meanSquares(x, cs, cz, spec))
		}
		if got > best*1.01 {
			t.Errorf("%s: error %v, the best candidate on the samples has %v", f, got, best)
		}
		ms, mz := spec.Choose(h.min, h.max)
		if plain := meanSquares(x, ms, mz, spec); f.Bits() <= 4 && got > 0.8*plain {
			t.Errorf("%s: error %v, minmax has %v: little gain on a heavy tail", f, got, plain)
		}
	}
}

func TestFillWeight(t *testing.T) {
	const channels = 3
	w := &model.Param{Shape: model.Shape{400, channels}, Data: normals(400*channels, 7)}
	for i := range w.Data {
		w.Data[i] *= float32(1 + i%channels) // a scale per channel
	}
	with := func(r quant.Range, per quant.Granularity) quant.Spec {
		s := quant.WeightSpec(quant.Int3)
		s.Range, s.Per = r, per
		return s
	}
	for _, tc := range []struct {
		name   string
		spec   quant.Spec
		method Method
		want   quant.Range
		scales int
	}{
		{"minmax stays absmax", with(quant.MinMax, quant.PerChannel), MinMax, quant.MinMax, 0},
		{"percentile is for activations", with(quant.MinMax, quant.PerChannel), Percentile, quant.MinMax, 0},
		{"mse turns absmax into mse", with(quant.MinMax, quant.PerChannel), MSE, quant.MSE, channels},
		{"a spec names mse itself", with(quant.MSE, quant.PerChannel), MinMax, quant.MSE, channels},
		{"per tensor", with(quant.MSE, quant.PerTensor), MSE, quant.MSE, 1},
		{"lsq keeps its name", with(quant.LSQ, quant.PerChannel), MinMax, quant.LSQ, channels},
		{"a spec names percentile itself", with(quant.Percentile, quant.PerChannel), MSE, quant.Percentile, channels},
	} {
		q := &quant.Params{Spec: tc.spec}
		if err := fillWeight(q, w, tc.method, 99); err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if q.Spec.Range != tc.want || len(q.Scale) != tc.scales {
			t.Errorf("%s: range %s with %d scales, want %s with %d", tc.name, q.Spec.Range, len(q.Scale), tc.want, tc.scales)
		}
		if tc.scales == channels && !(q.Scale[2] > 2*q.Scale[0]) {
			t.Errorf("%s: scales %v do not follow the channels' spread 1:2:3", tc.name, q.Scale)
		}
	}
	w.Data[5] = float32(math.NaN())
	var bad *valueError
	if err := fillWeight(&quant.Params{Spec: with(quant.MSE, quant.PerChannel)}, w, MSE, 99); !errors.As(err, &bad) || bad.index != 5 {
		t.Errorf("NaN weight: error %v, want one at index 5", err)
	}
}

func TestClippedMagnitude(t *testing.T) {
	x := make([]float32, 1000)
	for i := range x {
		x[i] = float32(i - 500)
	}
	if got := clippedMagnitude(slices.Clone(x), 99); got != 495 { // the ten largest magnitudes: 500, 499 twice, ... 496, 495
		t.Errorf("99 %%: %v, want 495", got)
	}
	if got := clippedMagnitude(x, 100); got != 500 {
		t.Errorf("100 %%: %v, want 500", got)
	}
	if got := clippedMagnitude([]float32{-3}, 60); got != 3 {
		t.Errorf("one weight: %v, want 3", got)
	}
}
