package qat

import (
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/quant"
)

// Step is what the ops of one graph share: how many rows of the batch hold examples, what is frozen, and the workers
// with their scratch memory. Ops read and write the first Rows rows only, so statistics and observers never see the
// padding of a last, partial batch.
type Step struct {
	Rows         int    // examples in this batch, at most the graph's batch size
	Train        bool   // gradients are wanted, statistics and ranges follow the batches
	FreezeNorm   bool   // batch norm uses its running statistics and keeps them
	FreezeRanges bool   // observers keep their ranges
	At           uint64 // the step, counted from 1, that names the numbers of stochastic rounding; 0: to nearest
	Seed         uint64 // of stochastic rounding

	ScaleFactor quant.ScaleFactor // of the gradients of learned scales
	NormWeight  float64           // of a batch in batch norm's running statistics; 0: each layer's own momentum
	PACTDecay   float64           // of the limits of range method pact: the L2 penalty is decay/2 * alpha^2

	pool *par.Pool
	fn   func(shard, lo, hi int) // of the loop that runs
	on   func(worker, shard, lo, hi int)
	by   [par.Shards]int // which worker runs a shard
	work [par.Shards]work
}

// work is a worker's memory, which stays in the cache of its processor from shard to shard.
type work struct {
	scratch          kernel.Scratch
	values, gradient []float32
	sums             []int32
}

// NewStep is the state of a graph that runs on pool; nil means the caller's goroutine alone.
func NewStep(pool *par.Pool, train bool) *Step {
	if pool == nil {
		pool = par.New(1)
	}
	s := &Step{Train: train, pool: pool}
	s.on = func(worker, shard, lo, hi int) {
		s.by[shard] = worker
		s.fn(shard, lo, hi)
	}
	return s
}

// EachRow cuts the rows into shards.
func (s *Step) EachRow(fn func(shard, lo, hi int)) error { return s.Each(s.Rows, fn) }

// Each cuts n of anything into shards. Loops of a step are not nested.
func (s *Step) Each(n int, fn func(shard, lo, hi int)) error {
	s.fn = fn
	return s.pool.RunOn(n, s.on)
}

// Scratch is the working memory of a shard's kernels.
func (s *Step) Scratch(shard int) *kernel.Scratch { return &s.of(shard).scratch }

// Values is a shard's memory for n values of an example, which last until the next op or example asks.
func (s *Step) Values(shard, n int) []float32 { return grow(&s.of(shard).values, n) }

// Gradient is such memory for n elements of a gradient.
func (s *Step) Gradient(shard, n int) []float32 { return grow(&s.of(shard).gradient, n) }

// Sums is such memory for n accumulators.
func (s *Step) Sums(shard, n int) []int32 { return grow(&s.of(shard).sums, n) }

func (s *Step) of(shard int) *work { return &s.work[s.by[shard]] }

func grow[T any](buf *[]T, n int) []T {
	if cap(*buf) < n {
		*buf = make([]T, n)
	}
	return (*buf)[:n]
}

// NormTrains reports whether batch norm uses the statistics of the batch.
func (s *Step) NormTrains() bool { return s.Train && !s.FreezeNorm }
