package main

import "slices"

// Spread is a median with what lies around it.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spread summarises values, at least one.
func spread(values []float64) Spread {
	s := slices.Sorted(slices.Values(values))
	return Spread{Median: middle(s), Min: s[0], Max: s[len(s)-1]}
}

// middle is the median of sorted values: of an even number, the mean of the two in the middle.
func middle(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// ratios divides ours by theirs, round by round: what disturbs a round disturbs both sides of its ratio.
func ratios(ours, theirs []float64) []float64 {
	out := make([]float64, min(len(ours), len(theirs)))
	for i := range out {
		out[i] = ours[i] / theirs[i]
	}
	return out
}

// turn is the order of n contestants in a round: each is first equally often, and every second time they go backwards, so
// that nobody always runs behind the same other.
func turn(round, n int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = (i + round) % n
	}
	if round/n%2 == 1 {
		slices.Reverse(order)
	}
	return order
}
