package study

import (
	"context"
	"slices"
	"time"

	"github.com/narrow-ml/narrow/infer"
)

// RaceRounds is the number of turns that each engine of a [Race] gets.
const RaceRounds = 9

// timerFloor is the shortest time measured at once: a clock reading costs some 50 ns.
const timerFloor = 20 * time.Microsecond

// Race measures engines that take turns in [RaceRounds] rounds, for about d each, and returns the seconds of one call
// with n examples: for each engine one value per round, the median of the round. So the short interruptions of a shared
// machine meet all engines alike, and a ratio can be taken within a round.
//
// x holds encoded examples, a multiple of n of them, which calls go through in turn: with one example again and again
// the CPU would learn its branches by heart. All engines have the same input and output sizes.
func Race(ctx context.Context, engines []*infer.Engine, x []uint8, n int, d time.Duration) ([][]float64, error) {
	size := engines[0].InputSize()
	parts := len(x) / (n * size)
	logits := make([]float32, n*engines[0].Classes())
	next := 0
	timed := func(e *infer.Engine, times int) (time.Duration, error) {
		began := time.Now()
		for range times {
			part := x[next%parts*n*size:][:n*size]
			next++
			if err := e.Run(logits, part, n); err != nil {
				return 0, err
			}
		}
		return time.Since(began), nil
	}
	out := make([][]float64, len(engines))
	for round := range RaceRounds {
		for k := range engines {
			i := (k + round) % len(engines) // nobody is always the first
			var laps []float64
			warm, err := timed(engines[i], 3) // buffers, caches: another engine had them
			if err != nil {
				return nil, err
			}
			repeat := int(1 + timerFloor/max(warm/3, 1))
			for end := time.Now().Add(d / RaceRounds); len(laps) == 0 || time.Now().Before(end); {
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				lap, err := timed(engines[i], repeat)
				if err != nil {
					return nil, err
				}
				laps = append(laps, lap.Seconds()/float64(repeat))
			}
			out[i] = append(out[i], Median(laps))
		}
	}
	return out, nil
}

// Median is the middle of at least one value, or the mean of the two in the middle.
func Median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}
