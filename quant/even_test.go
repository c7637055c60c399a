package quant_test

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
	"github.com/narrow-ml/narrow/quant"
)

// evenSpecs lists the valid combinations with even levels.
func evenSpecs() []quant.Spec {
	var out []quant.Spec
	for f := quant.Int2; f <= quant.Binary; f++ {
		for _, per := range []quant.Granularity{quant.PerTensor, quant.PerChannel} {
			s := quant.Spec{Format: f, Scheme: quant.Symmetric, Per: per, Range: quant.LSQ, Rounding: quant.HalfEven, Signed: true, Narrow: true, Even: true}
			if s.Validate() == nil {
				out = append(out, s)
			}
		}
	}
	return append(out, quant.ActSpec(quant.Binary))
}

// evenReference is the definition in exact arithmetic: the odd integer nearest to x/s rounded once to float32, the upper
// one of two, within the grid.
func evenReference(x, s float32, z, lo, hi int32) int32 {
	ratio := float64(x) / float64(s)
	if r32, _ := new(big.Rat).Quo(rat(x), rat(s)).Float32(); !math.IsInf(float64(r32), 0) {
		ratio = float64(r32)
	}
	ratio = min(max(ratio, -1000), 1000)
	best, distance := lo, new(big.Rat).SetInt64(1<<40)
	for q := lo; q <= hi; q += 2 {
		d := new(big.Rat).SetFloat64(ratio)
		d.Sub(d, new(big.Rat).SetInt64(int64(q-z))).Abs(d)
		if d.Cmp(distance) <= 0 {
			best, distance = q, d
		}
	}
	return best
}

// TestD22EvenLaws: levels are fixed points, coding twice is coding once, codes are monotone, on the grid and nearest, for
// every width of even levels; codes can change their sign.
func TestD22EvenLaws(t *testing.T) {
	specs := evenSpecs()
	if len(specs) != 2*7+1 {
		t.Fatalf("%d specs, want 6 widths of integers and binary weights, each per tensor and per channel, and binary activations", len(specs))
	}
	for i, spec := range specs {
		r := rand.New(rand.NewPCG(22, uint64(i)))
		lo, hi := spec.Grid()
		_, zero := spec.Choose(-1, 1)
		if hi-zero != zero-lo || (hi-lo)/2+1 != 1<<spec.Format.Bits() {
			t.Errorf("%s: grid [%d, %d] around %d does not have %d levels on both sides", spec, lo, hi, zero, 1<<spec.Format.Bits())
		}
		for range max(3, 600>>spec.Format.Bits()) {
			amax := float32(math.Ldexp(1+r.Float64(), r.IntN(30)-15))
			s, z := spec.Choose(-amax, amax)
			var x []float32
			for q := lo; q <= hi; q += 2 {
				v := s * float32(q-z)
				if got := spec.Code(v, s, z); got != q {
					t.Fatalf("%s s=%v: the value of code %d has code %d", spec, s, q, got)
				}
				edge := s * float32(q-z+1)
				x = append(x, v, edge, math.Nextafter32(edge, -math.MaxFloat32), float32(r.NormFloat64())*amax)
			}
			x = append(x, 0, float32(math.Copysign(0, -1)), math.MaxFloat32, -math.MaxFloat32)
			p := &quant.Params{Spec: spec, Scale: []float32{s}, Zero: []int32{z}}
			y, twice, pass := make([]float32, len(x)), make([]float32, len(x)), make([]bool, len(x))
			if err := quant.FakeQuantize(y, x, p, pass); err != nil {
				t.Fatal(err)
			}
			if err := quant.FakeQuantize(twice, y, p, nil); err != nil {
				t.Fatal(err)
			}
			if err := qtest.SameBits("coded twice", twice, y); err != nil {
				t.Fatal(err)
			}
			for k, v := range x {
				q := spec.Code(v, s, z)
				if want := evenReference(v, s, z, lo, hi); q != want || (q-z)%2 == 0 {
					t.Fatalf("%s s=%v: code of %v is %d, exactly %d", spec, s, v, q, want)
				}
				if y[k] != s*float32(q-z) || pass[k] != spec.EvenPass(v/s) {
					t.Fatalf("%s s=%v: %v is %v with gradient %v", spec, s, v, y[k], pass[k])
				}
				for j := range k {
					if (x[j] <= v && y[j] > y[k]) || (x[j] >= v && y[j] < y[k]) {
						t.Fatalf("%s not monotone: %v -> %v, %v -> %v", spec, x[j], y[j], v, y[k])
					}
				}
			}
		}
	}
}

// TestSign: the sign of zero is +1, infinities have signs and NaN has none.
func TestSign(t *testing.T) {
	inf := float32(math.Inf(1))
	p := &quant.Params{Spec: quant.ActSpec(quant.Binary), Scale: []float32{1}, Zero: []int32{1}}
	x := []float32{0, float32(math.Copysign(0, -1)), -1e-45, 1e-45, inf, -inf, 1, -1.5}
	codes := make([]uint8, len(x))
	if err := quant.Quantize(codes, x, p); err != nil {
		t.Fatal(err)
	}
	y, pass := make([]float32, len(x)), make([]bool, len(x))
	if err := quant.FakeQuantize(y, x, p, pass); err != nil {
		t.Fatal(err)
	}
	want := []uint8{2, 2, 0, 2, 2, 0, 2, 0}
	wantPass := []bool{true, true, true, true, false, false, true, false}
	for i := range x {
		if codes[i] != want[i] || y[i] != float32(want[i])-1 || pass[i] != wantPass[i] {
			t.Errorf("%v: code %d, value %v, gradient %v; want %d, %v", x[i], codes[i], y[i], pass[i], want[i], wantPass[i])
		}
	}
	if err := quant.Quantize(codes[:1], []float32{float32(math.NaN())}, p); err == nil {
		t.Error("NaN has a sign")
	}
}

func TestEvenRefuses(t *testing.T) {
	edit := func(s quant.Spec, f func(*quant.Spec)) quant.Spec { f(&s); return s }
	w, a := quant.WeightSpec(quant.Int2), quant.ActSpec(quant.Int2)
	rows := []struct {
		name string
		spec quant.Spec
		want string
	}{
		{"binary of all levels", edit(quant.WeightSpec(quant.Binary), func(s *quant.Spec) { s.Even = false }), "binary has two levels, and levels are not even"},
		{"even int8", edit(quant.WeightSpec(quant.Int8), func(s *quant.Spec) { s.Even = true }), "even levels of int8 do not fit a byte: use int7 or less"},
		{"even activations", edit(a, func(s *quant.Spec) { s.Even, s.Scheme = true, quant.Symmetric }), "even levels are for weights, and for binary activations: an activation needs the level 0"},
		{"even affine", edit(a, func(s *quant.Spec) { s.Even = true }), "even levels need scheme symmetric: they lie on both sides of a zero that is no level"},
		{"mean of int2", edit(w, func(s *quant.Spec) { s.Range = quant.Mean }), "range method mean is the scale of binary weights: use minmax or lsq for int2"},
		{"constant without max", edit(w, func(s *quant.Spec) { s.Range = quant.Constant }), "range method constant needs max, a positive number, and has 0"},
		{"constant affine", edit(a, func(s *quant.Spec) { s.Range, s.Max = quant.Constant, 1 }), "range method constant is [-max, max]: use scheme symmetric"},
		{"max of minmax", edit(w, func(s *quant.Spec) { s.Max = 1 }), "max 1 belongs to range method constant, not to minmax"},
		{"estimator of int2", edit(w, func(s *quant.Spec) { s.Estimator = quant.SwishSign }), "estimator swish-sign is the gradient of a sign: it belongs to binary tensors, not to int2"},
		{"range of a sign", edit(quant.ActSpec(quant.Binary), func(s *quant.Spec) { s.Range, s.Max = quant.Envelope, 0 }), "a binary activation is a sign, which no range changes: use range constant, not envelope"},
	}
	for _, r := range rows {
		if got := message(r.spec.Validate()); got != r.want {
			t.Errorf("%s: %q, want %q", r.name, got, r.want)
		}
	}
	for _, e := range []quant.Estimator{quant.Clipped, quant.ApproxSign, quant.SwishSign} {
		if back, err := quant.ParseEstimator(e.String()); back != e || err != nil {
			t.Errorf("%s reads back as %v, %v", e, back, err)
		}
	}
	if _, err := quant.ParseEstimator("ste"); message(err) != `unknown estimator "ste" (allowed: clipped, approx-sign, swish-sign)` {
		t.Errorf("ste: %v", err)
	}
}
