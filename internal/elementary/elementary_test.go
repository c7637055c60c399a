package elementary_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/narrow-ml/narrow/internal/elementary"
)

func TestElementaryFunctions(t *testing.T) {
	tests := []struct {
		name     string
		own, ref func(float64) float64
		lo, hi   float64
		tol      float64 // relative
	}{
		{"exp", elementary.Exp, math.Exp, -700, 700, 4e-16},
		{"exp small", elementary.Exp, math.Exp, -1, 1, 4e-16},
		{"log", elementary.Log, math.Log, 1e-300, 1e300, 4e-16},
		{"log near 1", elementary.Log, math.Log, 0.5, 2, 4e-16},
		{"tanh", elementary.Tanh, math.Tanh, -3, 3, 2e-15},
		{"tanh small", elementary.Tanh, math.Tanh, -1e-3, 1e-3, 2e-15},
		{"erf", elementary.Erf, math.Erf, -7, 7, 4e-15},
		{"sigmoid", elementary.Sigmoid, func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }, -30, 30, 1e-14},
		{"softplus", elementary.Softplus, func(x float64) float64 { return math.Log1p(math.Exp(x)) }, -20, 30, 1e-7},
	}
	r := rand.New(rand.NewPCG(4, 17))
	for _, tt := range tests {
		worst := 0.0
		for range 20000 {
			x := tt.lo + (tt.hi-tt.lo)*r.Float64()
			if tt.name == "log" { // all exponents
				x = math.Exp2(r.Float64()*2000 - 1000)
			}
			want := tt.ref(x)
			worst = math.Max(worst, math.Abs(tt.own(x)-want)/math.Max(math.Abs(want), 1e-300))
		}
		if !(worst <= tt.tol) {
			t.Errorf("%s: relative error %g, want at most %g", tt.name, worst, tt.tol)
		}
	}
	inf, nan := math.Inf(1), math.NaN()
	special := []struct {
		name      string
		got, want float64
	}{
		{"exp(-inf)", elementary.Exp(-inf), 0}, {"exp(inf)", elementary.Exp(inf), inf}, {"exp(nan)", elementary.Exp(nan), nan}, {"exp(0)", elementary.Exp(0), 1},
		{"exp(-745)", elementary.Exp(-745), math.SmallestNonzeroFloat64}, {"exp(709.7)", elementary.Exp(800), inf},
		{"log(0)", elementary.Log(0), -inf}, {"log(-1)", elementary.Log(-1), nan}, {"log(inf)", elementary.Log(inf), inf}, {"log(1)", elementary.Log(1), 0}, {"log(nan)", elementary.Log(nan), nan},
		{"tanh(inf)", elementary.Tanh(inf), 1}, {"tanh(-inf)", elementary.Tanh(-inf), -1}, {"tanh(nan)", elementary.Tanh(nan), nan},
		{"erf(inf)", elementary.Erf(inf), 1}, {"erf(nan)", elementary.Erf(nan), nan}, {"erf(-0)", elementary.Erf(0), 0},
		{"sigmoid(-inf)", elementary.Sigmoid(-inf), 0}, {"sigmoid(inf)", elementary.Sigmoid(inf), 1}, {"softplus(1000)", elementary.Softplus(1000), 1000},
	}
	for _, s := range special {
		if s.got != s.want && !(math.IsNaN(s.got) && math.IsNaN(s.want)) {
			t.Errorf("%s = %v, want %v", s.name, s.got, s.want)
		}
	}
}

// Exp scales by powers of two exactly, into the subnormal numbers.
func TestExpScalesExactly(t *testing.T) {
	for k := -1075; k <= 1023; k++ {
		x := float64(k) * math.Ln2
		if got, want := elementary.Exp(x), math.Exp(x); math.Abs(got-want) > 4e-16*want+math.SmallestNonzeroFloat64 {
			t.Errorf("Exp(%v) = %v, want %v", x, got, want)
		}
	}
}
