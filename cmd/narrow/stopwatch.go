package main

import (
	"context"
	"slices"
	"time"

	"github.com/narrow-ml/narrow/infer"
)

// spread is a median over rounds with what lies around it.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

const (
	benchRounds = 9
	// timerFloor is the shortest time measured at once: a clock reading costs some 50 ns.
	timerFloor = 20 * time.Microsecond
)

// race measures engines, which take turns in benchRounds rounds, for about d each, and returns the seconds of one call
// with n examples: for each engine one value per round, the median of the round. Calls go through the examples in x.
func race(ctx context.Context, engines []*infer.Engine, x []uint8, n int, d time.Duration) ([][]float64, error) {
	size := engines[0].InputSize()
	parts := len(x) / (n * size)
	logits := make([]float32, n*engines[0].Classes())
	next := 0
	timed := func(e *infer.Engine, times int) (time.Duration, error) {
		began := time.Now()
		for range times {
			part := x[next%parts*n*size:][:n*size] // one example again and again would teach the CPU its branches
			next++
			if err := e.Run(logits, part, n); err != nil {
				return 0, err
			}
		}
		return time.Since(began), nil
	}
	out := make([][]float64, len(engines))
	for round := range benchRounds {
		for k := range engines {
			i := (k + round) % len(engines) // nobody is always the first
			var laps []float64
			warm, err := timed(engines[i], 3) // buffers, caches: another engine had them
			if err != nil {
				return nil, err
			}
			repeat := int(1 + timerFloor/max(warm/3, 1))
			for end := time.Now().Add(d / benchRounds); len(laps) == 0 || time.Now().Before(end); {
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				lap, err := timed(engines[i], repeat)
				if err != nil {
					return nil, err
				}
				laps = append(laps, lap.Seconds()/float64(repeat))
			}
			out[i] = append(out[i], summary(laps).Median)
		}
	}
	return out, nil
}

// summary is the spread of values, at least one.
func summary(values []float64) spread {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return spread{Median: (s[(n-1)/2] + s[n/2]) / 2, Min: s[0], Max: s[n-1]}
}

// over is each value divided into what it is compared with, in the same round.
func over(reference, values []float64) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = reference[i] / v
	}
	return out
}
