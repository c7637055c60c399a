package qat_test

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
	"github.com/narrow-ml/narrow/quant"
)

// torchQuantize compares codes and the values they stand for. Torch multiplies by 1/s where we divide (D4): within 1e-4
// of a tie a code may be one off, unless the scale is a power of two.
func torchQuantize(c qtest.Case) error {
	lo, hi := int32(-128), int32(127)
	switch c.Str("dtype") {
	case "quint8":
		lo, hi = 0, 255
	case "qint32":
		lo, hi = math.MinInt32, math.MaxInt32
	}
	x := c.Inputs["x"]
	scales, zeros := []float32{float32(c.Float("scale", 0))}, []int32{int32(c.Int("zero_point", 0))}
	if s, ok := c.Inputs["scale"]; ok {
		scales, zeros = s.F32(), c.Inputs["zero_point"].I32()
	}
	inner := 1
	for _, d := range x.Shape[c.Int("axis", 0)+1:] {
		inner *= d
	}
	values := c.Outputs["dq"].F32()
	for i, q := range c.Outputs["q"].I32() {
		ch := i / inner % len(scales)
		s, z := scales[ch], zeros[ch]
		v := x.F32()[i]
		got := quant.One(v, s, z, lo, hi)
		r := math.Abs(float64(v / s))
		tie := math.Abs(r-math.Floor(r)-0.5) < 1e-4 && !c.Bool("pow2_scale")
		if d := got - q; d != 0 && !(tie && (d == 1 || d == -1)) {
			return fmt.Errorf("code of x[%d] = %v is %d, torch %d", i, v, got, q)
		}
		if got != q {
			continue
		}
		if y := s * float32(got-z); y != values[i] {
			return fmt.Errorf("code %d stands for %v, torch %v", got, y, values[i])
		}
	}
	return nil
}

func TestD1TorchQuantize(t *testing.T) {
	for _, op := range []string{"quantize_per_tensor", "quantize_per_channel"} {
		t.Run(op, func(t *testing.T) { qtest.Conform(t, op, nil, torchQuantize) })
	}
}

// Infinities and huge values saturate to their own side and NaN is an error; torch 1.13 sends them all to the lowest code,
// an undefined conversion of C++ whose record its own note says not to assert. The case is listed as the exception it is.
func TestNonFiniteDiffersFromTorch(t *testing.T) {
	why := "saturation to the value's own side, NaN an error: a documented difference"
	qtest.Conform(t, "fake_quantize_nonfinite", qtest.Exceptions{"fake_quantize_nonfinite/0": why}, func(c qtest.Case) error {
		spec := quant.Spec{Format: quant.Int8, Scheme: quant.Affine, Per: quant.PerTensor, Range: quant.MinMax, Rounding: quant.HalfEven, Signed: true}
		p := &quant.Params{Spec: spec, Scale: []float32{float32(c.Float("scale", 0))}, Zero: []int32{int32(c.Int("zero_point", 0))}}
		x, want := c.Inputs["x"].F32(), c.Outputs["y"].F32()
		differ := 0
		for i, v := range x {
			y := make([]float32, 1)
			err := quant.FakeQuantize(y, []float32{v}, p, nil)
			var nan *quant.NaNError
			switch {
			case v != v:
				if !errors.As(err, &nan) {
					t.Errorf("NaN: %v", err)
				}
				differ++
			case err != nil:
				t.Errorf("%v: %v", v, err)
			case v > 100:
				if y[0] != p.Scale[0]*float32(127-p.Zero[0]) {
					t.Errorf("%v gives %v, not the highest value", v, y[0])
				}
			case v < -100:
				if y[0] != p.Scale[0]*float32(-128-p.Zero[0]) {
					t.Errorf("%v gives %v, not the lowest value", v, y[0])
				}
			}
			if err == nil && y[0] != want[i] {
				differ++
			}
		}
		if differ > 0 {
			return fmt.Errorf("%d of %d values differ", differ, len(x))
		}
		return nil
	})
}
