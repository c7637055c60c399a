package main

import (
	"slices"

	"github.com/narrow-ml/narrow/study"
)

// spread is a median over rounds with what lies around it.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// summary is the spread of values, at least one.
func summary(values []float64) spread {
	return spread{Median: study.Median(values), Min: slices.Min(values), Max: slices.Max(values)}
}

// over is each value divided into what it is compared with, in the same round.
func over(reference, values []float64) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = reference[i] / v
	}
	return out
}
