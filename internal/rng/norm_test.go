package rng_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/narrow-ml/narrow/internal/rng"
)

func ExampleStream_Norm() {
	s := rng.New(42, rng.Init)
	for range 3 {
		fmt.Printf("%x\n", s.Norm()) // hexadecimal: every bit is the same on every CPU
	}
	// Output:
	// 0x1.54c4b050be12p+00
	// 0x1.fe6279ca67734p-03
	// 0x1.1339e152e7b86p-02
}

// Moments up to the fourth. The k-th sample moment has variance (E x^2k - (E x^k)^2)/n, E x^2k = 1*3*5*...*(2k-1).
func TestNormMoments(t *testing.T) {
	s := rng.New(1, rng.Test)
	const n = 1_000_000
	var m [5]float64
	for range n {
		x, p := s.Norm(), 1.0
		for k := 1; k <= 4; k++ {
			p *= x
			m[k] += p / n
		}
	}
	want := [5]float64{1, 0, 1, 0, 3}
	variance := [5]float64{0, 1, 3 - 1, 15, 105 - 9}
	for k := 1; k <= 4; k++ {
		if tol := 5 * math.Sqrt(variance[k]/n); math.Abs(m[k]-want[k]) > tol {
			t.Errorf("moment %d = %.5f, want %v within %.5f", k, m[k], want[k], tol)
		}
	}
}

// Chi-squared against the exact cell probabilities, tails included.
func TestNormDistribution(t *testing.T) {
	edges := []float64{-4, -3.5, -3, -2.5, -2, -1.5, -1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4}
	cdf := func(x float64) float64 { return 0.5 * math.Erfc(-x/math.Sqrt2) }
	counts := make([]float64, len(edges)+1)
	s := rng.New(2, rng.Test)
	const n = 1_000_000
	for range n {
		x, cell := s.Norm(), 0
		for cell < len(edges) && x >= edges[cell] {
			cell++
		}
		counts[cell]++
	}
	var chi float64
	for i, c := range counts {
		lo, hi := 0.0, 1.0
		if i > 0 {
			lo = cdf(edges[i-1])
		}
		if i < len(edges) {
			hi = cdf(edges[i])
		}
		want := n * (hi - lo)
		if want < 20 {
			t.Fatalf("cell %d expects only %.1f deviates: too few for the test", i, want)
		}
		chi += (c - want) * (c - want) / want
	}
	df := float64(len(counts) - 1)
	if limit := df + 5*math.Sqrt(2*df); chi > limit {
		t.Errorf("chi-squared %.1f over %d cells, want at most %.1f", chi, len(counts), limit)
	}
}

func BenchmarkNorm(b *testing.B) {
	s := rng.New(1, rng.Test)
	for b.Loop() {
		s.Norm()
	}
}

func BenchmarkFill(b *testing.B) {
	s := rng.New(1, rng.Test)
	dst := make([]uint32, 4096)
	b.SetBytes(int64(4 * len(dst)))
	for b.Loop() {
		s.Fill(dst)
	}
}
