package main

import (
	"slices"
	"testing"
)

func TestSpread(t *testing.T) {
	for _, r := range []struct {
		name   string
		values []float64
		want   Spread
	}{
		{"one", []float64{3}, Spread{3, 3, 3}},
		{"odd", []float64{9, 1, 4}, Spread{4, 1, 9}},
		{"even", []float64{8, 1, 2, 4}, Spread{3, 1, 8}},
		{"equal", []float64{2, 2, 2, 2}, Spread{2, 2, 2}},
	} {
		before := slices.Clone(r.values)
		if got := spread(r.values); got != r.want {
			t.Errorf("%s: %v, want %v", r.name, got, r.want)
		}
		if !slices.Equal(before, r.values) {
			t.Errorf("%s: the values were reordered, which breaks the pairs of a round", r.name)
		}
	}
}

// The ratio is taken round by round: a machine that slows down by half leaves it alone.
func TestRatiosAreByRound(t *testing.T) {
	ours, theirs := []float64{100, 50, 200}, []float64{50, 25, 100}
	if got := spread(ratios(ours, theirs)); got != (Spread{2, 2, 2}) {
		t.Errorf("ratios %v, want 2 in every round", got)
	}
	if got := ratios([]float64{6, 6}, []float64{3}); !slices.Equal(got, []float64{2}) {
		t.Errorf("%v: a round that one side has not finished must not count", got)
	}
}

func TestTurnIsFair(t *testing.T) {
	for n := 1; n <= 7; n++ {
		first := make([]int, n)
		behind := map[[2]int]int{}
		const cycles = 2
		for round := range cycles * n {
			order := turn(round, n)
			if sorted := slices.Sorted(slices.Values(order)); len(slices.Compact(sorted)) != n || sorted[0] != 0 || sorted[n-1] != n-1 {
				t.Fatalf("%d contestants, round %d: %v is no permutation", n, round, order)
			}
			first[order[0]]++
			for i := 1; i < n; i++ {
				behind[[2]int{order[i-1], order[i]}]++
			}
		}
		for i, count := range first {
			if count != cycles {
				t.Errorf("%d contestants: %d was first %d times, want %d", n, i, count, cycles)
			}
		}
		for pair, count := range behind {
			if back := behind[[2]int{pair[1], pair[0]}]; n > 1 && back != count {
				t.Errorf("%d contestants: %d ran %d times right before %d, and %d times right after", n, pair[0], count, pair[1], back)
			}
		}
	}
}
