package kernel_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/quant"
)

// signSpec is the grid of binary activations, whose codes the kernels write.
func signSpec() quant.Spec { return quant.ActSpec(quant.Binary) }

// TestRequantSign: codes are quant.Requant's, for any positive multiplier, at 0, beside it and at the ends of int32; masks
// and extremes are those of t.
func TestRequantSign(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 22))
	const channels, n = 5, 203 * 5
	acc, bias, m := make([]int32, n), make([]int32, channels), make([]float32, channels)
	for c := range m {
		bias[c] = r.Int32N(7) - 3
		m[c] = float32(math.Ldexp(1+r.Float64(), r.IntN(60)-40))
	}
	m[0] = math.SmallestNonzeroFloat32
	for i := range acc {
		switch r.IntN(4) {
		case 0:
			acc[i] = -bias[i%channels] + r.Int32N(3) - 1
		case 1:
			acc[i] = int32(r.Uint32()) / 2
		default:
			acc[i] = r.Int32N(2001) - 1000
		}
	}
	rq := quant.Requant{M: m, Zero: 1, Lo: 0, Hi: 2, Sign: true}
	got, plain, mask := make([]uint8, n), make([]uint8, n), make([]uint8, kernel.MaskLen(n))
	kernel.RequantSign(plain, acc, bias, channels)
	st := kernel.RequantSignTrain(got, mask, acc, bias, m)
	lo, hi := float32(math.Inf(1)), float32(math.Inf(-1))
	for i, a := range acc {
		c := i % channels
		v := a + bias[c]
		x := quant.Mul32(float32(v), m[c])
		lo, hi = min(lo, x), max(hi, x)
		if want := rq.Code(v, c); int32(got[i]) != want || got[i] != plain[i] {
			t.Fatalf("sum %d: codes %d and %d, want %d", v, got[i], plain[i], want)
		}
		if in := mask[i>>3]>>(i&7)&1 == 1; in != signSpec().EvenPass(x) {
			t.Fatalf("t = %v: mask %t", x, in)
		}
	}
	if st.Min != lo || st.Max != hi {
		t.Errorf("extremes %v, want %v and %v", st, lo, hi)
	}
	for i := range acc {
		acc[i] += bias[i%channels]
	}
	kernel.RequantSign(plain, acc, nil, channels)
	for i := range got {
		if plain[i] != got[i] {
			t.Fatalf("without bias: code[%d] = %d, with it %d", i, plain[i], got[i])
		}
	}
}

func TestQuantizeSign(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, s := range []float32{0.3, 1, 4, 1e-30, 1e30} {
		x := []float32{0, float32(math.Copysign(0, -1)), -math.SmallestNonzeroFloat32, s, -s, math.Nextafter32(s, inf), 3 * s, -2 * s, inf, -inf, 1e-3}
		codes, mask := make([]uint8, len(x)), make([]uint8, kernel.MaskLen(len(x)))
		if nan := kernel.QuantizeSign(codes, mask, x, s); nan >= 0 {
			t.Fatalf("NaN at %d", nan)
		}
		for i, v := range x {
			if want := signSpec().Code(v, s, 1); int32(codes[i]) != want {
				t.Errorf("%v / %v: code %d, want %d", v, s, codes[i], want)
			}
			if in := mask[i>>3]>>(i&7)&1 == 1; in != signSpec().EvenPass(v/s) {
				t.Errorf("%v / %v: mask %t", v, s, in)
			}
		}
	}
	if nan := kernel.QuantizeSign(make([]uint8, 3), nil, []float32{1, float32(math.NaN()), float32(math.NaN())}, 1); nan != 1 {
		t.Errorf("first NaN at %d, want 1", nan)
	}
}

// TestD22Slopes holds the estimators to their definitions in float64.
func TestD22Slopes(t *testing.T) {
	for k := -4000; k <= 4000; k++ {
		x := float64(k) / 1000
		v := float32(x)
		x = float64(v)
		approx := 0.0
		if math.Abs(x) <= 1 {
			approx = 2 - 2*math.Abs(x)
		}
		const b = 5.0
		swish := b * (2 - b*x*math.Tanh(b*x/2)) / (1 + math.Cosh(b*x))
		if got := float64(kernel.ApproxSignSlope(v)); math.Abs(got-approx) > 1e-6 {
			t.Errorf("approx-sign at %v: %v, want %v", x, got, approx)
		}
		if got := float64(kernel.SwishSignSlope(v)); math.Abs(got-swish) > 1e-6*(1+math.Abs(swish)) {
			t.Errorf("swish-sign at %v: %v, want %v", x, got, swish)
		}
	}
	for _, far := range []float32{1e3, -1e30, float32(math.Inf(1)), float32(math.Inf(-1))} {
		if a, s := kernel.ApproxSignSlope(far), kernel.SwishSignSlope(far); a != 0 || s > 0 || s < -1e-6 {
			t.Errorf("at %v: slopes %v and %v, want 0", far, a, s)
		}
	}
	dy, x, dx := []float32{1, -2, 3, 4}, []float32{0.5, 0.5, -1, 8}, make([]float32, 4)
	kernel.SlopeGrad(dx, dy, x, []float32{1, 2}, kernel.ApproxSignSlope)
	for i, want := range []float32{1, -3, 0, 0} {
		if dx[i] != want {
			t.Errorf("gradient[%d] = %v, want %v", i, dx[i], want)
		}
	}
}

// TestScaleGradEven: the gradient of a learned scale of even levels is the definition, channel by channel.
func TestScaleGradEven(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 22))
	for _, f := range []quant.Format{quant.Binary, quant.Int2, quant.Int4} {
		s := quant.WeightSpec(f)
		s.Even, s.Range = true, quant.LSQ
		_, hi := s.Grid()
		const channels = 3
		scale := []float32{0.1, 1, 3}
		x, dy, want := make([]float32, 300), make([]float32, 300), make([]float64, channels)
		for i := range x {
			c := i % channels
			dy[i] = float32(r.NormFloat64())
			x[i] = float32(r.NormFloat64()) * scale[c] * float32(hi)
			if r.IntN(5) == 0 {
				x[i] = scale[c] * float32(r.Int32N(2*hi+5)-hi-2)
			}
			u := x[i] / scale[c]
			var slope float32
			switch {
			case s.EvenPass(u):
				slope = float32(s.Code(x[i], scale[c], 0)) - u
			case u > 0:
				slope = float32(hi)
			default:
				slope = -float32(hi)
			}
			want[c] += float64(dy[i] * slope)
		}
		got := make([]float64, channels)
		kernel.ScaleGradEven(got, dy, x, scale, hi)
		for c := range want {
			if got[c] != want[c] {
				t.Errorf("%s: channel %d: %v, want %v", s, c, got[c], want[c])
			}
		}
	}
}

// TestSquaredHinge: loss and gradient by hand, and the gradient by finite differences away from the kink.
func TestSquaredHinge(t *testing.T) {
	x, target, grad := []float32{0.5, -0.5, 2, 1, -3}, []float32{1, 1, 1, 0, 0}, make([]float32, 5)
	loss, err := kernel.SquaredHinge(grad, x, target, kernel.Mean)
	if err != nil || math.Abs(loss-(0.25+2.25+0+4+0)/5) > 1e-12 {
		t.Errorf("loss %v, %v; want 1.3", loss, err)
	}
	for i, want := range []float32{-1. / 5, -3. / 5, 0, 4. / 5, 0} {
		if math.Abs(float64(grad[i]-want)) > 1e-7 {
			t.Errorf("gradient[%d] = %v, want %v", i, grad[i], want)
		}
	}
	for i := range x {
		const h = 1.0 / 1024
		up, down := append([]float32{}, x...), append([]float32{}, x...)
		up[i], down[i] = up[i]+h, down[i]-h
		a, _ := kernel.SquaredHinge(nil, up, target, kernel.Mean)
		b, _ := kernel.SquaredHinge(nil, down, target, kernel.Mean)
		if d := (a - b) / (2 * h); math.Abs(d-float64(grad[i])) > 1e-3 {
			t.Errorf("gradient[%d] = %v, differences give %v", i, grad[i], d)
		}
	}
}
