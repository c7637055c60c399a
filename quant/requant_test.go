package quant_test

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/narrow-ml/narrow/quant"
)

// requantReference is the definition in big.Float: float32(acc), one float32 product, clamp, halves to even.
func requantReference(acc int32, m float32, z, lo, hi int32) int32 {
	t := product(acc, m)
	switch {
	case t.Cmp(big.NewFloat(float64(lo-z))) <= 0:
		return lo
	case t.Cmp(big.NewFloat(float64(hi-z))) >= 0:
		return hi
	}
	r, _ := t.Rat(nil)
	return int32(rint(r).Int64()) + z
}

// product is float32(acc)*m with 24 bits and halves to even, without float32's limits on the exponent.
func product(acc int32, m float32) *big.Float {
	f := new(big.Float).SetPrec(24).SetMode(big.ToNearestEven).SetInt64(int64(acc))
	return new(big.Float).SetPrec(24).SetMode(big.ToNearestEven).Mul(f, big.NewFloat(float64(m)))
}

func TestRequantReference(t *testing.T) {
	accs := []int32{0, 1, -1, 2, -2, 3, 127, 128, -129, 1<<24 - 1, 1 << 24, 1<<24 + 1, 1<<24 + 2, 1<<24 + 3, -(1<<24 + 1), 1<<25 + 2, 1<<30 + 64, 1<<30 + 65, math.MaxInt32, math.MinInt32, math.MinInt32 + 1}
	ms := []float32{math.SmallestNonzeroFloat32, 1e-38, 1.0 / (1 << 24), 0.001, 0.25, 0.3, 0.5, 1 - 1.0/(1<<24), 1, 1.5, 255, 1e20, math.MaxFloat32}
	grids := []struct{ z, lo, hi int32 }{{0, 0, 255}, {128, 0, 255}, {255, 0, 255}, {7, 0, 15}, {3, 3, 15}, {1, 0, 3}, {0, -127, 127}, {0, -32768, 32767}}
	r := rand.New(rand.NewPCG(5, 5))
	for range 3000 {
		accs = append(accs, int32(r.Uint32())>>r.IntN(31))
	}
	for range 40 {
		ms = append(ms, float32(math.Ldexp(1+r.Float64(), -r.IntN(30))))
	}
	for _, g := range grids {
		rq := quant.Requant{M: ms, Zero: g.z, Lo: g.lo, Hi: g.hi}
		if err := rq.Validate(len(ms)); err != nil {
			t.Fatal(err)
		}
		for c, m := range ms {
			for _, acc := range accs {
				if got, want := rq.Code(acc, c), requantReference(acc, m, g.z, g.lo, g.hi); got != want {
					t.Fatalf("acc %d, M %v, z %d, [%d, %d]: %d, want %d", acc, m, g.z, g.lo, g.hi, got, want)
				}
			}
		}
	}
}

func TestRequantFloat(t *testing.T) {
	rq := quant.Requant{M: []float32{0.3, 1e-3}, Float: true}
	for _, acc := range []int32{0, 1, -7, 1<<24 + 1, 1<<24 + 3, math.MaxInt32, math.MinInt32} {
		for c, m := range rq.M {
			want, _ := product(acc, m).Float32()
			if got := rq.Value(acc, c); got != want {
				t.Errorf("%d * %v = %v, want %v", acc, m, got, want)
			}
		}
	}
}

// TestAccumulatorAbove24Bits: float32(acc) rounds half to even, so 2^24+1 counts as 2^24 and 2^24+3 as 2^24+4.
func TestAccumulatorAbove24Bits(t *testing.T) {
	rq := quant.Requant{M: []float32{1.0 / (1 << 22)}, Lo: 0, Hi: 255}
	for acc, want := range map[int32]float32{1<<24 + 1: 1 << 24, 1<<24 + 2: 1<<24 + 2, 1<<24 + 3: 1<<24 + 4} {
		if got := rq.Value(acc, 0); got != want/(1<<22) {
			t.Errorf("%d counts as %v, want %v", acc, got*(1<<22), want)
		}
	}
}

// TestD15Vectors is the float32 half-to-even column of D15 (PyTorch/FBGEMM's scheme), zero points moved by 128 to u8.
// The last row is the case on which TFLite's double rounding gives -119. It turns on how M is made: [quant.Multiplier]
// rounds the product and the quotient to float32 and gives a tie; the double quotient rounded once is one step larger.
func TestD15Vectors(t *testing.T) {
	m := quant.Multiplier(0.05296124517917633, 0.024093778803944588, 0.11484327912330627)
	rows := []struct {
		m            float32
		acc, z, want int32
	}{
		{0.25, 1, 128, 128}, {0.25, -2, 128, 128}, {0.25, 2, 128, 128}, {0.25, 6, 128, 130}, {0.25, -6, 128, 126},
		{0.5, -1, 128, 128}, {0.5, -3, 128, 126}, {0.5, 1, 128, 128}, {0.5, 3, 128, 130},
		{m, 585, -126 + 128, -120 + 128},
	}
	for _, r := range rows {
		rq := quant.Requant{M: []float32{r.m}, Zero: r.z, Lo: 0, Hi: 255}
		if got := rq.Code(r.acc, 0); got != r.want {
			t.Errorf("acc %d, M %v: %d, want %d", r.acc, r.m, got, r.want)
		}
	}
}

// TestRoundClampsFirst: saturation, the fused ReLU's limit lo = z, NaN and infinities.
func TestRoundClampsFirst(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	u8 := quant.Requant{Zero: 10, Lo: 0, Hi: 255}
	relu := quant.Requant{Zero: 10, Lo: 10, Hi: 255}
	int4 := quant.Requant{Zero: 3, Lo: 3, Hi: 15}
	rows := []struct {
		rq   quant.Requant
		t    float32
		want int32
	}{
		{u8, 0, 10}, {u8, -0.4, 10}, {u8, -10, 0}, {u8, -11, 0}, {u8, 245.4, 255}, {u8, 1e30, 255}, {u8, -1e30, 0},
		{u8, inf, 255}, {u8, -inf, 0}, {u8, nan, 0}, {u8, 0.5, 10}, {u8, 1.5, 12},
		{relu, -0.6, 10}, {relu, -5, 10}, {relu, 0.6, 11}, {relu, nan, 10},
		{int4, 12, 15}, {int4, 11.5, 15}, {int4, 11.4, 14}, {int4, 300, 15}, {int4, -1, 3},
	}
	for _, r := range rows {
		if got := r.rq.Round(r.t); got != r.want {
			t.Errorf("zero %d [%d, %d]: %v rounds to %d, want %d", r.rq.Zero, r.rq.Lo, r.rq.Hi, r.t, got, r.want)
		}
	}
}

func TestMultiplierAndBias(t *testing.T) {
	sx, sw, sy := float32(0.1), float32(0.003), float32(0.7)
	step, _ := new(big.Float).SetPrec(24).Mul(big.NewFloat(float64(sx)), big.NewFloat(float64(sw))).Float32()
	want, _ := new(big.Rat).Quo(rat(step), rat(sy)).Float32()
	if got := quant.Multiplier(sx, sw, sy); got != want {
		t.Errorf("M = %v, want %v: product first, rounded, then the quotient", got, want)
	}
	rows := []struct {
		b      float64
		sx, sw float32
		want   int32
		ok     bool
	}{
		{1.25, 0.5, 0.5, 5, true},
		{0.625, 0.5, 0.5, 2, true}, // 2.5 to even
		{-0.875, 0.5, 0.5, -4, true},
		{math.MaxInt32, 1, 1, math.MaxInt32, true},
		{-math.MaxInt32, 1, 1, -math.MaxInt32, true},
		{math.MaxInt32 + 1, 1, 1, 0, false},
		{math.MinInt32, 1, 1, 0, false}, // kept symmetric: |q_b| must fit too
		{math.Inf(1), 1, 1, 0, false},
		{math.NaN(), 1, 1, 0, false},
		{1, 1e-30, 1e-30, 0, false}, // the step underflows
	}
	for _, r := range rows {
		if got, ok := quant.BiasCode(r.b, r.sx, r.sw); got != r.want || ok != r.ok {
			t.Errorf("BiasCode(%v, %v, %v) = %d, %v; want %d, %v", r.b, r.sx, r.sw, got, ok, r.want, r.ok)
		}
	}
}

// TestBiasCodeStep: the step of a bias is the float32 product, so that halves of that step go to the even code.
func TestBiasCodeStep(t *testing.T) {
	sx, sw := float32(0.1), float32(0.003)
	for k := range int32(100) {
		b := (float64(k) + 0.5) * float64(quant.Mul32(sx, sw)) // exact in float64
		if got, ok := quant.BiasCode(b, sx, sw); !ok || got != k+k&1 {
			t.Errorf("%v steps give %d, want %d", float64(k)+0.5, got, k+k&1)
		}
	}
}

func TestRequantValidate(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	rows := []struct {
		rq   quant.Requant
		want string
	}{
		{quant.Requant{M: []float32{1, 2}, Zero: 3, Lo: 3, Hi: 255}, ""},
		{quant.Requant{M: []float32{1, 2}, Float: true}, ""},
		{quant.Requant{M: []float32{1}, Hi: 255}, "requantization has 1 multipliers, not 2"},
		{quant.Requant{M: []float32{1, 0}, Hi: 255}, "multiplier[1] is 0; it must be finite and positive"},
		{quant.Requant{M: []float32{nan, 1}, Hi: 255}, "multiplier[0] is NaN; it must be finite and positive"},
		{quant.Requant{M: []float32{1, inf}, Float: true}, "multiplier[1] is +Inf; it must be finite and positive"},
		{quant.Requant{M: []float32{1, -1}, Hi: 255}, "multiplier[1] is -1; it must be finite and positive"},
		{quant.Requant{M: []float32{1, 1}, Zero: 1, Lo: 9, Hi: 3}, "zero point 1 and limits [9, 3] contradict each other"},
		{quant.Requant{M: []float32{1, 1}, Zero: 0, Lo: 1, Hi: 3}, "zero point 0 and limits [1, 3] contradict each other"},
	}
	for _, r := range rows {
		if got := message(r.rq.Validate(2)); got != r.want {
			t.Errorf("%+v: %q, want %q", r.rq, got, r.want)
		}
	}
}

func FuzzRequant(f *testing.F) {
	f.Add(int32(585), float32(0.011), int32(2), int32(0), uint16(255))
	f.Add(int32(math.MinInt32), float32(1e-45), int32(0), int32(-127), uint16(254))
	f.Fuzz(func(t *testing.T, acc int32, m float32, z, lo int32, width uint16) {
		lo = lo % (1 << 15)
		hi := lo + int32(width)
		z = lo + int32(uint32(z)%(uint32(width)+1))
		rq := quant.Requant{M: []float32{m}, Zero: z, Lo: lo, Hi: hi}
		if rq.Validate(1) != nil {
			t.Skip("not a multiplier")
		}
		if got, want := rq.Code(acc, 0), requantReference(acc, m, z, lo, hi); got != want {
			t.Fatalf("acc %d, M %v, z %d, [%d, %d]: %d, want %d", acc, m, z, lo, hi, got, want)
		}
	})
}
