package quant

import (
	"fmt"
	"math"

	"github.com/x448/float16"
)

// Encode16 is the 16-bit pattern of x in FP16 or BF16, rounded half to even (D16). NaN stays NaN.
func Encode16(x float32, f Format) uint16 {
	if f == FP16 {
		return float16.Fromfloat32(x).Bits()
	}
	b := math.Float32bits(x)
	if x != x {
		return uint16(b>>16) | 0x40 // keep it a quiet NaN when the payload's upper bits are zero
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// Decode16 is the float32 value of a 16-bit pattern.
func Decode16(bits uint16, f Format) float32 {
	if f == FP16 {
		return float16.Frombits(bits).Float32()
	}
	return math.Float32frombits(uint32(bits) << 16)
}

// Round16 writes x rounded to FP16 or BF16, or unchanged for FP32. A finite value that would become infinite is an
// [OverflowError], NaN a [NaNError]: 16-bit training and inference must not hide them. Infinities
// stay as they are.
func Round16(dst, x []float32, f Format) error {
	if len(dst) != len(x) {
		return fmt.Errorf("round to %s: %d outputs for %d values", f, len(dst), len(x))
	}
	if f == FP32 {
		copy(dst, x)
		return nil
	}
	if !f.Rounds16() {
		return fmt.Errorf("round to %s: it is not a floating-point format (allowed: fp32, fp16, bf16)", f)
	}
	for i, v := range x {
		r := Decode16(Encode16(v, f), f)
		if r != r {
			return &NaNError{Index: i}
		}
		if math.IsInf(float64(r), 0) && !math.IsInf(float64(v), 0) {
			return &OverflowError{Index: i, Value: v, Format: f}
		}
		dst[i] = r
	}
	return nil
}
