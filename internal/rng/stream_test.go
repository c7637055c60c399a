package rng_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/internal/rng"
)

func ExampleNew() {
	// The shuffle of epoch 3 under seed 7: the same on every machine.
	s := rng.New(7, rng.Shuffle, 3)
	order := make([]int32, 8)
	s.Perm(order)
	fmt.Println(order)
	// Output: [7 3 1 5 0 4 2 6]
}

func TestNamesGiveDifferentStreams(t *testing.T) {
	names := map[string]rng.Stream{
		"seed 1":         rng.New(1, rng.Init),
		"seed 1<<32":     rng.New(1<<32, rng.Init),
		"seed 2":         rng.New(2, rng.Init),
		"purpose":        rng.New(1, rng.Split),
		"key 0":          rng.New(1, rng.Init, 0),
		"key 0 0":        rng.New(1, rng.Init, 0, 0),
		"key 1":          rng.New(1, rng.Init, 1),
		"key 1<<32":      rng.New(1, rng.Init, 1<<32),
		"key 1 2":        rng.New(1, rng.Init, 1, 2),
		"key 2 1":        rng.New(1, rng.Init, 2, 1),
		"epoch, step, i": rng.New(1, rng.Init, 1, 2, 3),
	}
	seen := map[uint64]string{}
	for name, s := range names {
		v := s.Uint64()
		if other, ok := seen[v]; ok {
			t.Errorf("%s and %s both start with %016x", name, other, v)
		}
		seen[v] = name
	}
}

func TestSameNameSameNumbersAndCopiesFork(t *testing.T) {
	a, b := rng.New(9, rng.Dropout, 4, 5), rng.New(9, rng.Dropout, 4, 5)
	for i := range 9 {
		if x, y := a.Uint32(), b.Uint32(); x != y {
			t.Fatalf("word %d: %08x and %08x", i, x, y)
		}
	}
	fork := a
	if x, y := a.Uint64(), fork.Uint64(); x != y {
		t.Errorf("a copy went on with %016x, the stream with %016x", y, x)
	}
}

func TestFillEqualsUint32(t *testing.T) {
	for before := range 6 {
		for n := range 14 {
			a, b := rng.New(3, rng.Test, 1), rng.New(3, rng.Test, 1)
			for range before {
				a.Uint32()
				b.Uint32()
			}
			got := make([]uint32, n)
			a.Fill(got)
			for i, g := range got {
				if w := b.Uint32(); g != w {
					t.Fatalf("after %d words, word %d of Fill(%d) = %08x, want %08x", before, i, n, g, w)
				}
			}
			if x, y := a.Uint32(), b.Uint32(); x != y {
				t.Fatalf("after %d words, Fill(%d) left the stream at %08x, want %08x", before, n, x, y)
			}
		}
	}
}

func TestNewAllocatesNothing(t *testing.T) {
	dst := make([]uint32, 64)
	var sum float64
	n := testing.AllocsPerRun(20, func() {
		s := rng.New(1, rng.Dropout, 2, 3, 4)
		s.Fill(dst)
		sum += s.Norm() + float64(s.Float32())
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestFloatsStayInRange(t *testing.T) {
	s := rng.New(1, rng.Test)
	var sum32, sum64 float64
	const n = 200_000
	for range n {
		f, d := s.Float32(), s.Float64()
		if f < 0 || f >= 1 || d < 0 || d >= 1 {
			t.Fatalf("Float32 %v, Float64 %v: outside [0, 1)", f, d)
		}
		sum32 += float64(f)
		sum64 += d
	}
	// The mean of n uniforms has standard deviation 1/sqrt(12 n); five of them is a one-in-a-million event.
	tol := 5 / math.Sqrt(12*n)
	if math.Abs(sum32/n-0.5) > tol || math.Abs(sum64/n-0.5) > tol {
		t.Errorf("means %v and %v, want 0.5 within %v", sum32/n, sum64/n, tol)
	}
}

func TestIntN(t *testing.T) {
	s := rng.New(1, rng.Test)
	before := s
	for _, n := range []int{math.MinInt, -1, 0, 1} {
		if got := s.IntN(n); got != 0 {
			t.Errorf("IntN(%d) = %d, want 0", n, got)
		}
	}
	if s != before {
		t.Error("IntN with nothing to choose used words")
	}
	// Chi-squared over n equally likely cells: mean n-1, standard deviation sqrt(2(n-1)).
	for _, n := range []int{2, 3, 10, 97, 256} {
		const perCell = 2000
		counts := make([]int, n)
		for range n * perCell {
			counts[s.IntN(n)]++
		}
		var chi float64
		for _, c := range counts {
			d := float64(c - perCell)
			chi += d * d / perCell
		}
		if limit := float64(n-1) + 5*math.Sqrt(2*float64(n-1)); chi > limit {
			t.Errorf("IntN(%d): chi-squared %.1f, want at most %.1f", n, chi, limit)
		}
	}
	// With n = 3<<61, a multiply-and-shift without rejection gives multiples of 3 three times in eight.
	const n = 3 << 61
	var low int
	for range 30_000 {
		if v := s.IntN(n); v < 0 || v >= n {
			t.Fatalf("IntN(%d) = %d", n, v)
		} else if v%3 == 0 {
			low++
		}
	}
	if low < 9_500 || low > 10_500 {
		t.Errorf("multiples of 3 came %d times in 30000, want about 10000", low)
	}
}

func TestPermIsAPermutationAndUnbiased(t *testing.T) {
	s := rng.New(1, rng.Test)
	for _, n := range []int{0, 1, 2, 100} {
		p := make([]int32, n)
		s.Perm(p)
		slices.Sort(p)
		for i, v := range p {
			if int(v) != i {
				t.Fatalf("Perm(%d) sorted has %d at %d", n, v, i)
			}
		}
	}
	counts := map[[4]int32]int{}
	const each = 1000
	for range 24 * each {
		var p [4]int32
		s.Perm(p[:])
		counts[p]++
	}
	if len(counts) != 24 {
		t.Fatalf("%d of the 24 orders of 4 seen", len(counts))
	}
	for p, c := range counts {
		if math.Abs(float64(c)-each) > 5*math.Sqrt(each) {
			t.Errorf("order %v came %d times, want about %d", p, c, each)
		}
	}
}
