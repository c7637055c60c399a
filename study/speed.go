package study

import (
	"context"
	"slices"
	"time"

	"github.com/narrow-ml/narrow/infer"
)

// speed is how fast one engine is.
type speed struct {
	latencyMicros float64 // one example
	throughput    float64 // examples per second in batches of speedBatch
}

const (
	speedBatch = 64
	// All engines together are measured for about measureTime, with at least minRounds readings of each. A median over a
	// second outlives the short interruptions of a shared machine.
	measureTime          = time.Second
	minRounds, maxRounds = 15, 1001
	// timerFloor is the shortest time measured at once: a clock reading costs some 50 ns.
	timerFloor = 20 * time.Microsecond
)

// measure times the engines of the first seed, taking turns.
func (r *runner) measure(ctx context.Context) (map[arm]speed, error) {
	engines, err := r.compile()
	if err != nil {
		return nil, err
	}
	single, err := r.medians(ctx, engines, 1)
	if err != nil {
		return nil, err
	}
	batch, err := r.medians(ctx, engines, speedBatch)
	if err != nil {
		return nil, err
	}
	out := map[arm]speed{}
	for i, a := range r.plan.arms {
		out[a] = speed{latencyMicros: single[i] * 1e6, throughput: speedBatch / batch[i]}
	}
	return out, nil
}

// medians is each engine's median time, in seconds, for n test examples. Every run has other examples than the one
// before: with one example again and again, the CPU would learn its branches by heart.
func (r *runner) medians(ctx context.Context, engines []*infer.Engine, n int) ([]float64, error) {
	set := r.Data.Test
	size := set.Elems()
	const parts = 64
	x := make([]uint8, parts*n*size)
	for i := range parts * n {
		copy(x[i*size:], set.Row(i%set.Len()))
	}
	logits := make([]float32, n*engines[0].Classes())
	timed := func(e *infer.Engine, first, times int) (time.Duration, error) {
		began := time.Now()
		for i := first; i < first+times; i++ {
			if err := e.Run(logits, x[i%parts*n*size:][:n*size], n); err != nil {
				return 0, err
			}
		}
		return time.Since(began), nil
	}
	repeat := make([]int, len(engines)) // runs between two readings of the clock
	var all time.Duration               // of one round
	for i, e := range engines {
		if _, err := timed(e, 0, 3); err != nil { // warm-up: buffers, caches, clock speed
			return nil, err
		}
		d, err := timed(e, 3, 5)
		if err != nil {
			return nil, err
		}
		once := max(d/5, 1)
		repeat[i] = int(max(1, (timerFloor+once-1)/once))
		all += once * time.Duration(repeat[i])
	}
	rounds := min(max(int(measureTime/all), minRounds), maxRounds)
	samples := make([][]float64, len(engines))
	for round := range rounds {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for k := range engines {
			i := (k + round) % len(engines) // nobody is always the first, or always after the same one
			if round/len(engines)%2 == 1 {
				i = len(engines) - 1 - i
			}
			d, err := timed(engines[i], round*repeat[i], repeat[i])
			if err != nil {
				return nil, err
			}
			samples[i] = append(samples[i], d.Seconds()/float64(repeat[i]))
		}
	}
	out := make([]float64, len(engines))
	for i, s := range samples {
		slices.Sort(s)
		out[i] = (s[(len(s)-1)/2] + s[len(s)/2]) / 2
	}
	return out, nil
}
