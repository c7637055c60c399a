package study

import (
	"context"
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
	// All engines together are measured for about measureTime at each batch size. A median over a second outlives the
	// short interruptions of a shared machine.
	measureTime = time.Second
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

// medians is each engine's median time, in seconds, for n test examples.
func (r *runner) medians(ctx context.Context, engines []*infer.Engine, n int) ([]float64, error) {
	set := r.Data.Test
	size := set.Elems()
	const parts = 64
	x := make([]uint8, parts*n*size)
	for i := range parts * n {
		copy(x[i*size:], set.Row(i%set.Len()))
	}
	laps, err := Race(ctx, engines, x, n, measureTime/time.Duration(len(engines)))
	if err != nil {
		return nil, err
	}
	out := make([]float64, len(engines))
	for i, l := range laps {
		out[i] = Median(l)
	}
	return out, nil
}
