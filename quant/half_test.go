package quant_test

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
	"github.com/narrow-ml/narrow/quant"
	"github.com/x448/float16"
)

// fp16Value is the meaning of a pattern by IEEE 754's definition, not by any codec.
func fp16Value(b uint16) float64 {
	sign := 1.0
	if b>>15 == 1 {
		sign = -1
	}
	exp, frac := int(b>>10&31), float64(b&1023)
	switch exp {
	case 0:
		return sign * math.Ldexp(frac, -24)
	case 31:
		if frac == 0 {
			return math.Inf(int(sign))
		}
		return math.NaN()
	}
	return sign * math.Ldexp(1024+frac, exp-25)
}

func TestFP16AllCodes(t *testing.T) {
	for i := range 1 << 16 {
		b := uint16(i)
		got, want := quant.Decode16(b, quant.FP16), fp16Value(b)
		if math.IsNaN(want) {
			if got == got || !float16.Frombits(quant.Encode16(got, quant.FP16)).IsNaN() {
				t.Fatalf("%#04x decodes to %v and back to %#04x; want NaN", b, got, quant.Encode16(got, quant.FP16))
			}
			continue
		}
		if float64(got) != want || math.Signbit(float64(got)) != math.Signbit(want) || got != float16.Frombits(b).Float32() {
			t.Fatalf("%#04x decodes to %v, want %v", b, got, want)
		}
		if back := quant.Encode16(got, quant.FP16); back != b {
			t.Fatalf("%#04x = %v encodes to %#04x", b, got, back)
		}
	}
}

// TestFP16RoundsToNearest walks all finite neighbours: values below, at and above the midpoint of two codes.
func TestFP16RoundsToNearest(t *testing.T) {
	for i := range uint16(0x7bff) {
		lo, hi := quant.Decode16(i, quant.FP16), quant.Decode16(i+1, quant.FP16)
		mid := (lo + hi) / 2 // exact in float32
		even := i + i&1
		for _, c := range []struct {
			x    float32
			want uint16
		}{{math.Nextafter32(mid, 0), i}, {mid, even}, {math.Nextafter32(mid, hi), i + 1}} {
			for _, sign := range []uint16{0, 0x8000} {
				x := c.x
				if sign != 0 {
					x = -x
				}
				if got := quant.Encode16(x, quant.FP16); got != c.want|sign || got != float16.Fromfloat32(x).Bits() {
					t.Fatalf("%v encodes to %#04x, want %#04x", x, got, c.want|sign)
				}
			}
		}
	}
}

func TestD16Vectors(t *testing.T) {
	ldexp := func(m float64, e int) float32 { return float32(math.Ldexp(m, e)) }
	rows := []struct {
		x    float32
		want uint16
	}{
		{65504, 0x7bff}, {65519.996, 0x7bff}, {65520, 0x7c00}, {-65520, 0xfc00}, {float32(math.Inf(1)), 0x7c00},
		{ldexp(1, -14), 0x0400}, {ldexp(1, -24), 1}, {ldexp(1, -25), 0}, {-ldexp(1, -25), 0x8000},
		{math.Nextafter32(ldexp(1, -25), 1), 1}, {ldexp(1.5, -24), 2}, {ldexp(1023, -24), 0x03ff}, {ldexp(1023.5, -24), 0x0400},
		{1, 0x3c00}, {1 + ldexp(1, -11), 0x3c00}, {1 + ldexp(3, -11), 0x3c02}, {0, 0}, {float32(math.Copysign(0, -1)), 0x8000},
		{math.SmallestNonzeroFloat32, 0},
	}
	for _, r := range rows {
		if got := quant.Encode16(r.x, quant.FP16); got != r.want {
			t.Errorf("%v encodes to %#04x, want %#04x", r.x, got, r.want)
		}
	}
}

// bf16Reference rounds with exact rationals: the nearer of the two 16-bit neighbours, the even one on a tie; beyond the
// largest finite value by half a step or more, infinity.
func bf16Reference(x float32) uint16 {
	bits := math.Float32bits(x)
	down := uint16(bits >> 16) // toward zero
	if bits<<16 == 0 || math.IsInf(float64(x), 0) {
		return down
	}
	value := func(b uint16) *big.Rat {
		if b&0x7fff == 0x7f80 { // the neighbour above the largest finite value, 2^128
			v := new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), 128))
			if b>>15 == 1 {
				v.Neg(v)
			}
			return v
		}
		return rat(math.Float32frombits(uint32(b) << 16))
	}
	exact := rat(x)
	below := new(big.Rat).Sub(exact, value(down))
	above := new(big.Rat).Sub(value(down+1), exact)
	switch below.Abs(below).Cmp(above.Abs(above)) {
	case -1:
		return down
	case 1:
		return down + 1
	}
	return down + down&1
}

func TestBF16(t *testing.T) {
	for i := range 1 << 16 {
		b := uint16(i)
		v := quant.Decode16(b, quant.BF16)
		if math.Float32bits(v) != uint32(b)<<16 {
			t.Fatalf("%#04x decodes to %#08x", b, math.Float32bits(v))
		}
		back := quant.Encode16(v, quant.BF16)
		if v == v && back != b {
			t.Fatalf("%#04x = %v encodes to %#04x", b, v, back)
		}
		if v != v && (back&0x7f80 != 0x7f80 || back&0x7f == 0 || back>>15 != b>>15) {
			t.Fatalf("NaN %#04x encodes to %#04x", b, back)
		}
	}
	r := rand.New(rand.NewPCG(16, 16))
	special := []uint32{0, 1, 0x7fff, 0x8000, 0x8001, 0x7f7fffff, 0x7f7f7fff, 0x7f7f8000, 0x7f800000, 0xff800000, 0x80000000, 0x3f808000, 0x3f818000, 0x007fffff, 0x00800000}
	for i := range 100_000 {
		bits := r.Uint32()
		if i < len(special) {
			bits = special[i]
		} else if i%4 == 0 {
			bits = bits&^0xffff | 0x8000 // a tie
		}
		x := math.Float32frombits(bits)
		if x != x {
			continue
		}
		if got, want := quant.Encode16(x, quant.BF16), bf16Reference(x); got != want {
			t.Fatalf("%v (%#08x) encodes to %#04x, want %#04x", x, bits, got, want)
		}
	}
	// A NaN whose payload is only in the lower half must not become infinity.
	for _, bits := range []uint32{0x7f800001, 0xff80ffff, 0x7fffffff, 0x7fc00000} {
		if v := quant.Decode16(quant.Encode16(math.Float32frombits(bits), quant.BF16), quant.BF16); v == v {
			t.Errorf("NaN %#08x becomes %v", bits, v)
		}
	}
}

func TestRound16(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	largest := math.Float32frombits(0x7f7f0000) // of bf16
	good := []struct {
		f       quant.Format
		x, want float32
	}{
		{quant.FP32, 1.23456789, 1.23456789}, {quant.FP32, nan, nan},
		{quant.FP16, 65519.996, 65504}, {quant.FP16, inf, inf}, {quant.FP16, -inf, -inf}, {quant.FP16, 1e-9, 0},
		{quant.BF16, 65520, 65536}, {quant.BF16, -inf, -inf}, {quant.BF16, math.Float32frombits(0x7f7f7fff), largest},
	}
	for _, g := range good {
		y := []float32{7}
		if err := quant.Round16(y, []float32{g.x}, g.f); err != nil {
			t.Errorf("%s: %v: %v", g.f, g.x, err)
		} else if err := qtest.SameBits(g.f.String(), y, []float32{g.want}); err != nil {
			t.Error(err)
		}
	}
	var over *quant.OverflowError
	err := quant.Round16(make([]float32, 3), []float32{1, 2, -65520}, quant.FP16)
	if !errors.As(err, &over) || *over != (quant.OverflowError{Index: 2, Value: -65520, Format: quant.FP16}) {
		t.Errorf("fp16 overflow: %v", err)
	}
	if got, want := message(err), "value[2] = -65520 overflows fp16; keep this layer in fp32 or bf16, or scale its inputs"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	err = quant.Round16(make([]float32, 1), []float32{math.MaxFloat32}, quant.BF16)
	if got, want := message(err), "value[0] = 3.4028235e+38 overflows bf16; keep this layer in fp32, or scale its inputs"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	var bad *quant.NaNError
	if err := quant.Round16(make([]float32, 2), []float32{1, nan}, quant.BF16); !errors.As(err, &bad) || bad.Index != 1 {
		t.Errorf("NaN in bf16: %v", err)
	}
	if got := message(quant.Round16(make([]float32, 2), make([]float32, 3), quant.FP16)); got != "round to fp16: 2 outputs for 3 values" {
		t.Errorf("lengths: %q", got)
	}
	for _, f := range []quant.Format{quant.Int8, 0} {
		want := "round to " + f.String() + ": it is not a floating-point format (allowed: fp32, fp16, bf16)"
		if got := message(quant.Round16(make([]float32, 1), make([]float32, 1), f)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestTorchCasts(t *testing.T) {
	for op, f := range map[string]quant.Format{"cast_float16": quant.FP16, "cast_bfloat16": quant.BF16} {
		t.Run(op, func(t *testing.T) {
			qtest.Conform(t, op, nil, func(c qtest.Case) error {
				y := c.Outputs["y"]
				for i, x := range c.Inputs["x"].F32() {
					got, want := quant.Encode16(x, f), uint16(y.Bits[i])
					if got != want && !(x != x && math.IsNaN(y.Data[i])) {
						return fmt.Errorf("%v (element %d) encodes to %#04x, want %#04x", x, i, got, want)
					}
				}
				return nil
			})
		})
	}
}

func FuzzEncode16(f *testing.F) {
	for _, bits := range []uint32{0, 0x3f800000, 0x7f7fffff, 0x477fefff, 0x33000000, 0x33000001, 0x7f800001} {
		f.Add(bits)
	}
	f.Fuzz(func(t *testing.T, bits uint32) {
		x := math.Float32frombits(bits)
		if got, want := quant.Encode16(x, quant.FP16), float16.Fromfloat32(x).Bits(); got != want {
			t.Fatalf("fp16 of %v: %#04x, want %#04x", x, got, want)
		}
		if got := quant.Encode16(x, quant.BF16); x == x && got != bf16Reference(x) {
			t.Fatalf("bf16 of %v: %#04x, want %#04x", x, got, bf16Reference(x))
		}
	})
}
