package quant_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/narrow-ml/narrow/quant"
)

// everySpec lists every valid Spec of an integer format: grid, scheme, range method and rounding, per tensor.
func everySpec() []quant.Spec {
	var out []quant.Spec
	for f := quant.Int2; f <= quant.Binary; f++ {
		for _, scheme := range []quant.Scheme{quant.Symmetric, quant.Affine, quant.PowerOfTwo} {
			for _, method := range quant.RangesWhere(func(r quant.Range) bool { return r.ForWeights() || r.ForActs() }) {
				for _, rounding := range quant.Roundings() {
					for grid := range 8 { // signed, narrow, even
						s := quant.Spec{Format: f, Scheme: scheme, Per: quant.PerTensor, Range: method, Rounding: rounding,
							Signed: grid&1 != 0, Narrow: grid&2 != 0, Even: grid&4 != 0}
						if method == quant.Constant {
							s.Max = 1.5
						}
						if s.Validate() == nil {
							out = append(out, s)
						}
					}
				}
			}
		}
	}
	return out
}

// settled is a quantizer of spec for values up to amax, with what its method learns moved a little by move.
func settled(t *testing.T, spec quant.Spec, amax float32, move float32) *quant.Params {
	t.Helper()
	s, z := spec.Choose(-amax, amax)
	if spec.Range == quant.Constant {
		s, z = spec.ConstantScale()
	}
	if spec.Range == quant.PACT {
		s, z = spec.Choose(0, amax)
	}
	p := &quant.Params{Spec: spec, Scale: []float32{s}, Zero: []int32{z}}
	p.Start()
	p.Settle()
	if q := p.Scale[0]; q != s || p.Zero[0] != z {
		t.Fatalf("%s: starting to learn moves scale %v and zero point %d to %v and %d", spec, s, z, q, p.Zero[0])
	}
	for _, kind := range spec.Range.Learned() {
		numbers := p.Numbers(kind)
		switch kind {
		case quant.LearnedScale:
			numbers[0] *= 1 + move
		default:
			numbers[0] += 3 * move
		}
	}
	p.Settle()
	if err := p.Validate(1); err != nil {
		t.Fatalf("%s: %v", spec, err)
	}
	before := p.Clone()
	if p.Settle(); p.Scale[0] != before.Scale[0] || p.Zero[0] != before.Zero[0] {
		t.Fatalf("%s: settling twice gives scale %v and %v", spec, before.Scale[0], p.Scale[0])
	}
	return p
}

// TestLawsOfEverySpec: for every format, grid, scheme, range method and rounding, codes are on the grid, levels are fixed points,
// quantizing twice is quantizing once, order is kept, values inside are moved by at most half a step (a whole one where the
// rounding is not to nearest), infinities saturate, NaN is an error.
func TestLawsOfEverySpec(t *testing.T) {
	specs := everySpec()
	methods := map[quant.Range]bool{}
	for i, spec := range specs {
		methods[spec.Range] = true
		r := rand.New(rand.NewPCG(4, uint64(i)))
		lo, hi := spec.Grid()
		step := int32(1)
		if spec.Even {
			step = 2
		}
		for range 3 {
			p := settled(t, spec, float32(math.Ldexp(1+r.Float64(), r.IntN(16)-8)), float32(r.NormFloat64()/8))
			s, z := p.Scale[0], p.Zero[0]
			x := []float32{0, s / 2, -s / 2, float32(math.Inf(1)), float32(math.Inf(-1))}
			for range 24 {
				q := lo + step*int32(r.IntN(int((hi-lo)/step)+1))
				x = append(x, s*float32(q-z), s*(float32(q-z)+float32(r.Float64()-0.5)))
			}
			y, twice := make([]float32, len(x)), make([]float32, len(x))
			if err := quant.FakeQuantize(y, x, p, nil); err != nil {
				t.Fatal(err)
			}
			if err := quant.FakeQuantize(twice, y, p, nil); err != nil {
				t.Fatal(err)
			}
			for k, v := range x {
				q := int32(math.RoundToEven(float64(y[k]/s))) + z
				if q < lo || q > hi || (q-lo)%step != 0 || y[k] != s*float32(q-z) {
					t.Fatalf("%s: %v becomes %v, which is no level of [%d, %d]", spec, v, y[k], lo, hi)
				}
				if got := spec.Code(v, s, z); got != q {
					t.Fatalf("%s: %v has code %d and value %v", spec, v, got, y[k])
				}
				if spec.Rounding.Nearest() && twice[k] != y[k] {
					t.Fatalf("%s: %v becomes %v, then %v", spec, v, y[k], twice[k])
				}
				inside := float64(v) >= float64(s)*float64(lo-z) && float64(v) <= float64(s)*float64(hi-z)
				most := float64(step) / 2
				if !spec.Rounding.Nearest() {
					most = 1
				}
				// the division and the product round to float32 once each
				if d := math.Abs(float64(y[k])-float64(v)) / float64(s); inside && d > most+1e-5+float64(hi-lo)*0x1p-23 {
					t.Fatalf("%s: %v becomes %v, %v steps away", spec, v, y[k], d)
				}
				for j := range k {
					if x[j] < v && y[j] > y[k] || x[j] > v && y[j] < y[k] {
						t.Fatalf("%s is not monotone: %v -> %v, %v -> %v", spec, x[j], y[j], v, y[k])
					}
				}
			}
			if y[3] != s*float32(hi-z) || y[4] != s*float32(lo-z) {
				t.Fatalf("%s: infinities become %v and %v", spec, y[3], y[4])
			}
			var nan *quant.NaNError
			if err := quant.FakeQuantize(y[:1], []float32{float32(math.NaN())}, p, nil); !errors.As(err, &nan) {
				t.Fatalf("%s: NaN gives %v", spec, err)
			}
		}
	}
	if want := len(quant.RangesWhere(func(r quant.Range) bool { return r.ForWeights() || r.ForActs() })); len(methods) != want {
		t.Errorf("%d of %d range methods have a valid spec", len(methods), want)
	}
}

// FuzzSettle: whatever an optimizer makes of the learned numbers, scale and zero point are legal, or a NaN is passed on to where
// it is refused.
func FuzzSettle(f *testing.F) {
	f.Add(uint8(0), uint8(4), float32(0.1), float32(3))
	f.Add(uint8(1), uint8(8), float32(-1), float32(-1e30))
	f.Add(uint8(2), uint8(2), float32(math.Inf(1)), float32(math.NaN()))
	f.Add(uint8(3), uint8(3), float32(1e-30), float32(1e30))
	f.Fuzz(func(t *testing.T, method, bits uint8, scale, number float32) {
		format := quant.Int2 + quant.Format(bits%7)
		spec := quant.ActSpec(format)
		switch spec.Range = []quant.Range{quant.LSQ, quant.LSQPlus, quant.PACT, quant.TQT}[method%4]; spec.Range {
		case quant.TQT:
			spec.Scheme = quant.PowerOfTwo
		}
		p := &quant.Params{Spec: spec, Scale: []float32{scale}, Zero: []int32{0}, Learned: []float32{number}}
		if len(spec.Range.Learned()) == 1 && spec.Range != quant.TQT {
			p.Learned = nil
		}
		p.Settle()
		bad := scale != scale || math.IsInf(float64(scale), 1) || p.Learned != nil && number != number
		if spec.Range == quant.TQT {
			bad = number != number
		}
		if err := p.Validate(1); (err != nil) != bad {
			t.Errorf("%s with scale %v and number %v becomes %v and %d: %v", spec, scale, number, p.Scale[0], p.Zero[0], err)
		}
	})
}
