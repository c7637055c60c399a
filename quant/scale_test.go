package quant_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
	"github.com/narrow-ml/narrow/quant"
)

func spec(f quant.Format, scheme quant.Scheme, signed, narrow bool) quant.Spec {
	return quant.Spec{Format: f, Scheme: scheme, Per: quant.PerTensor, Range: quant.MinMax, Rounding: quant.HalfEven, Signed: signed, Narrow: narrow}
}

func TestD6Choose(t *testing.T) {
	const max = math.MaxFloat32
	u8, s8, w8 := spec(quant.Int8, quant.Affine, false, false), spec(quant.Int8, quant.Symmetric, true, false), quant.WeightSpec(quant.Int8)
	rows := []struct {
		name     string
		spec     quant.Spec
		min, max float32
		scale    float32
		zero     int32
	}{
		{"affine u8", u8, -1, 1, 2.0 / 255, 127}, // float32(2/255) is a little more than 2/255: rint(-127.49999)
		{"affine u8 exact", u8, -1, 254, 1, 1},
		{"affine u8 tie to even", u8, -0.5, 254.5, 1, 0}, // rint(-0.5) is 0
		{"affine u8 tie to even, odd", u8, -1.5, 253.5, 1, 2},
		{"range widened to 0 from above", u8, 2, 255, 1, 0},
		{"range widened to 0 from below", u8, -255, -3, 1, 255},
		{"affine s8", spec(quant.Int8, quant.Affine, true, false), -1, 254, 1, -127},
		{"affine narrow, tie before lo is subtracted", spec(quant.Int8, quant.Affine, true, true), -0.5, 253.5, 1, -127}, // rint(-0.5) is 0
		{"affine u4", spec(quant.Int4, quant.Affine, false, false), -5, 10, 1, 5},
		{"affine u2", spec(quant.Int2, quant.Affine, false, false), 0, 3, 1, 0},
		{"symmetric s8, 127.5 steps", s8, -2, 1, 2 / 127.5, 0},
		{"symmetric s8 narrow, 127 steps", w8, -2, 1, 2.0 / 127, 0},
		{"symmetric u8, middle code", spec(quant.Int8, quant.Symmetric, false, false), -3, 51, 0.4, 128},
		{"symmetric u4, middle rounded down", spec(quant.Int4, quant.Symmetric, false, false), -15, 3, 2, 7},
		{"ternary", quant.WeightSpec(quant.Int2), -0.25, 0.125, 0.25, 0},
		{"s16", spec(quant.Int16, quant.Symmetric, true, true), -32767, 5, 1, 0},
		{"pow2 rounds up", spec(quant.Int8, quant.PowerOfTwo, true, true), -2, 2, 1.0 / 32, 0}, // 2/127 = 0.0157 > 1/64
		{"pow2 exact stays", spec(quant.Int8, quant.PowerOfTwo, true, true), 0, 127.0 / 64, 1.0 / 64, 0},
		{"pow2 just above", spec(quant.Int8, quant.PowerOfTwo, true, true), 0, math.Nextafter32(127.0/64, 2), 1.0 / 32, 0},
		{"no width affine", u8, 0, 0, quant.MinScale, 0},
		{"no width symmetric", w8, 0, 0, quant.MinScale, 0},
		{"no width pow2", spec(quant.Int4, quant.PowerOfTwo, true, true), 0, 0, quant.MinScale, 0},
		{"tiny range", u8, -1e-12, 1e-12, quant.MinScale, 0},
		{"tiny negative range of many steps", u8, -2e-5, 0, quant.MinScale, 168}, // 2e-5 * 2^23 = 167.8
		{"range that overflows float32", u8, -max, max, float32(2 * float64(max) / 255), 128},
		{"ternary of the largest float", quant.WeightSpec(quant.Int2), -max, max, max, 0},
		{"pow2 of the largest float", spec(quant.Int2, quant.PowerOfTwo, true, true), -max, max, float32(math.Ldexp(1, 127)), 0},
	}
	for _, r := range rows {
		scale, zero := r.spec.Choose(r.min, r.max)
		if scale != r.scale || zero != r.zero {
			t.Errorf("%s: Choose(%v, %v) = %v, %d; want %v, %d", r.name, r.min, r.max, scale, zero, r.scale, r.zero)
		}
	}
}

// TestChooseLaws: for every spec the parameters are valid, the whole range is coded to half a step, 0 exactly, and
// power-of-two scales are powers of two.
func TestChooseLaws(t *testing.T) {
	for i, s := range integerSpecs() {
		r := rand.New(rand.NewPCG(11, uint64(i)))
		lo, hi := s.Grid()
		for range 300 {
			width := math.Ldexp(1+r.Float64(), r.IntN(60)-14)
			min, max := float32(-width*r.Float64()), float32(width*r.Float64())
			scale, zero := s.Choose(min, max)
			p := &quant.Params{Spec: s, Scale: []float32{scale}, Zero: []int32{zero}}
			if err := p.Validate(1); err != nil {
				t.Fatalf("%s: Choose(%v, %v): %v", s, min, max, err)
			}
			if frac, _ := math.Frexp(float64(scale)); s.Scheme == quant.PowerOfTwo && frac != 0.5 {
				t.Fatalf("%s: scale %v is not a power of two", s, scale)
			}
			for _, x := range []float32{min, max, min / 3, max / 3, 0} {
				q := quant.One(x, scale, zero, lo, hi)
				// the scale's own rounding moves the last code by 2^-24 of the range on each side
				if err := math.Abs(float64(x) - float64(scale)*float64(q-zero)); err > float64(scale)/2+float64(max-min)/(1<<22) {
					t.Fatalf("%s: range [%v, %v]: %v is off by %v with scale %v", s, min, max, x, err, scale)
				}
			}
		}
	}
}

// TestChoosePowerOfTwoIsSmallest: half the scale would clip the range.
func TestChoosePowerOfTwoIsSmallest(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	for _, f := range integerFormats() {
		s := spec(f, quant.PowerOfTwo, true, true)
		_, hi := s.Grid()
		for range 200 {
			a := float32(math.Ldexp(1+r.Float64(), r.IntN(20)-3))
			scale, _ := s.Choose(-a, a)
			if float64(scale)*float64(hi) < float64(a) || float64(scale)/2*float64(hi) >= float64(a) {
				t.Fatalf("%s: scale %v for [-%v, %v]", f, scale, a, a)
			}
		}
	}
}

// TestD6TorchObservers compares Choose with the min-max observers of PyTorch 1.13.
func TestD6TorchObservers(t *testing.T) {
	for _, op := range []string{"observer_per_tensor", "observer_per_channel"} {
		t.Run(op, func(t *testing.T) {
			checked := 0
			qtest.Conform(t, op, nil, func(c qtest.Case) error {
				lo, hi := int32(c.Int("quant_min", 0)), int32(c.Int("quant_max", 0))
				s, ok := specOf(lo, hi, strings.HasSuffix(c.Str("qscheme"), "symmetric"))
				if !ok || c.Str("observer") == "HistogramObserver" {
					return nil // a searched range is not a question for Choose
				}
				// The recorded minima and maxima are the final ones in every batch, so only the last batch's scale is theirs.
				last := c.Int("batches", 0) - 1
				at := func(name string) qtest.Tensor { return c.Outputs[fmt.Sprintf("%s%d", name, last)] }
				min, max, scale, zero := at("min").F32(), at("max").F32(), at("scale").F32(), at("zero_point").I32()
				for i := range scale {
					gotS, gotZ := s.Choose(min[i], max[i])
					if math.Abs(float64(gotS/scale[i])-1) > 1e-6 || gotZ != zero[i] {
						return fmt.Errorf("[%v, %v] on [%d, %d] gives %v, %d; torch %v, %d", min[i], max[i], lo, hi, gotS, gotZ, scale[i], zero[i])
					}
					checked++
				}
				return nil
			})
			if t.Logf("%d ranges compared", checked); checked < 50 {
				t.Error("too few ranges compared to mean something")
			}
		})
	}
}

// specOf finds the full grid [lo, hi]; ok is false if no format has it.
func specOf(lo, hi int32, symmetric bool) (s quant.Spec, ok bool) {
	scheme := quant.Affine
	if symmetric {
		scheme = quant.Symmetric
	}
	for _, f := range integerFormats() {
		for grid := range 3 {
			s := spec(f, scheme, grid > 0, grid > 1)
			if l, h := s.Grid(); l == lo && h == hi {
				return s, true
			}
		}
	}
	return quant.Spec{}, false
}

// TestD3TorchFakeQuantize compares FakeQuantize with PyTorch's, which multiplies by 1/s where we divide (D4): values
// within 1e-4 of a tie may differ by one step unless the scale is a power of two.
func TestD3TorchFakeQuantize(t *testing.T) {
	qtest.Conform(t, "fake_quantize_per_tensor", nil, func(c qtest.Case) error {
		s, ok := specOf(int32(c.Int("quant_min", 0)), int32(c.Int("quant_max", 0)), false)
		if !ok {
			return nil
		}
		p := &quant.Params{Spec: s, Scale: []float32{float32(c.Float("scale", 0))}, Zero: []int32{int32(c.Int("zero_point", 0))}}
		x, want := c.Inputs["x"].F32(), c.Outputs["y"].F32()
		got, pass := make([]float32, len(x)), make([]bool, len(x))
		if err := quant.FakeQuantize(got, x, p, pass); err != nil {
			return err
		}
		for i, v := range x {
			tie := nearTie(v, p.Scale[0]) && !c.Bool("pow2_scale")
			if d := math.Abs(float64(got[i] - want[i])); d > 0 && !(tie && d <= 1.001*float64(p.Scale[0])) {
				return fmt.Errorf("y[%d] = %v for x = %v, want %v", i, got[i], v, want[i])
			}
			if g, ok := c.Grads["x"]; ok && !tie {
				up := c.Upstream["y"].F32()[i]
				if w := g.F32()[i]; (pass[i] && w != up) || (!pass[i] && w != 0) {
					return fmt.Errorf("gradient[%d] is %v of %v, our mask says %v", i, w, up, pass[i])
				}
			}
		}
		return nil
	})
}

// nearTie reports a quotient so close to a half that dividing and multiplying by 1/s may round apart: 1e-4, or the two
// float32 roundings of a large quotient.
func nearTie(x, s float32) bool {
	r := math.Abs(float64(x / s))
	return math.Abs(r-math.Floor(r)-0.5) < 1e-4+r/(1<<23)
}

// TestD3TorchPerChannel covers the cases whose channels are the last axis and whose zero points are 0, as ours are.
func TestD3TorchPerChannel(t *testing.T) {
	compared := 0
	qtest.Conform(t, "fake_quantize_per_channel", nil, func(c qtest.Case) error {
		x := c.Inputs["x"]
		s, ok := specOf(int32(c.Int("quant_min", 0)), int32(c.Int("quant_max", 0)), true)
		if !ok || c.Int("axis", -1) != len(x.Shape)-1 {
			return nil
		}
		s.Per = quant.PerChannel
		p := &quant.Params{Spec: s, Scale: c.Inputs["scale"].F32(), Zero: c.Inputs["zero_point"].I32()}
		got := make([]float32, len(x.Data))
		if err := quant.FakeQuantize(got, x.F32(), p, nil); err != nil {
			return err
		}
		for i, want := range c.Outputs["y"].F32() {
			sc, _ := p.At(i % len(p.Scale))
			if d := math.Abs(float64(got[i] - want)); d > 0 && !(nearTie(x.F32()[i], sc) && d <= 1.001*float64(sc)) {
				return fmt.Errorf("y[%d] = %v, want %v", i, got[i], want)
			}
		}
		compared++
		return nil
	})
	if compared == 0 {
		t.Error("no case has its channels last")
	}
}

// ChooseSymmetric is Choose, scale by scale.
func TestChooseSymmetric(t *testing.T) {
	amax := []float32{0, 1e-30, quant.MinScale, 0.3, 1, 1.0000001, 127, 3e38, math.MaxFloat32}
	for _, f := range []quant.Format{quant.Int2, quant.Int3, quant.Int4, quant.Int8, quant.Int16} {
		for _, scheme := range []quant.Scheme{quant.Symmetric, quant.PowerOfTwo} {
			s := quant.WeightSpec(f)
			s.Scheme = scheme
			scale := slices.Clone(amax)
			s.ChooseSymmetric(scale, scale)
			for i, v := range amax {
				if want, _ := s.Choose(0, v); scale[i] != want {
					t.Errorf("%s: scale of %v is %v, want %v", s, v, scale[i], want)
				}
			}
		}
	}
}
