package datasets

import (
	"context"
	"fmt"
	"iter"

	"github.com/narrow-ml/narrow/internal/rng"
)

// Batch is the next few examples of an epoch. It belongs to the iterator: it is valid until the next one is asked for or
// the loop ends, then its memory is used again. Copy what must live longer.
type Batch struct {
	X      []uint8 // N * product(Shape) codes
	Labels []int32 // N
	Index  []int32 // row of each example in the Set, N
	N      int     // examples; less than Size only in the last batch
}

// BatchOptions says how an epoch is cut into batches.
type BatchOptions struct {
	Size     int    // examples per batch, at least 1
	Seed     uint64 // of the shuffle
	Epoch    int    // from 0; every epoch has its own order
	Shuffle  bool   // false: the order of the Set
	DropLast bool   // leave out a last batch of fewer than Size examples
	Start    int    // first step to return, for resuming inside an epoch; Steps means none
	Prefetch int    // batches prepared ahead by a goroutine; 0 prepares each when asked for
}

func (o BatchOptions) validate() error {
	switch {
	case o.Size < 1:
		return fmt.Errorf("batches: size %d, want at least 1", o.Size)
	case o.Epoch < 0:
		return fmt.Errorf("batches: epoch %d, want at least 0", o.Epoch)
	case o.Prefetch < 0:
		return fmt.Errorf("batches: prefetch %d, want at least 0", o.Prefetch)
	case o.Start < 0:
		return fmt.Errorf("batches: start %d, want at least 0", o.Start)
	}
	return nil
}

// Steps returns the number of batches of an epoch, Start not counted in.
func (s *Set) Steps(opt BatchOptions) (int, error) {
	if err := opt.validate(); err != nil {
		return 0, err
	}
	n := s.Len() / opt.Size
	if !opt.DropLast && s.Len()%opt.Size != 0 {
		n++
	}
	return n, nil
}

// Order returns the rows of the set in the order of an epoch.
func (s *Set) Order(seed uint64, epoch int) []int32 {
	rows := make([]int32, s.Len())
	r := rng.New(seed, rng.Shuffle, uint64(epoch))
	r.Perm(rows)
	return rows
}

// Batches iterates over an epoch. Batch t holds the examples t*Size to (t+1)*Size-1 of the epoch's order, so starting at
// t gives what an iteration from 0 gives there. An error (a wrong option, a cancelled ctx) comes as the last pair, with
// an empty Batch. The sequence can be ranged over again, and leaving the loop early stops and awaits the goroutine.
// The set must not change meanwhile.
func (s *Set) Batches(ctx context.Context, opt BatchOptions) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		e, err := s.epoch(opt)
		switch {
		case err != nil:
			yield(Batch{}, err)
		case opt.Prefetch == 0:
			e.inline(ctx, yield)
		default:
			e.ahead(ctx, opt.Prefetch, yield)
		}
	}
}

// epoch is one pass in progress.
type epoch struct {
	set         *Set
	order       []int32 // nil: the order of the set
	size, elems int
	from, to    int // steps
}

func (s *Set) epoch(opt BatchOptions) (*epoch, error) {
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("batches: %w", err)
	}
	steps, err := s.Steps(opt)
	if err != nil {
		return nil, err
	}
	if opt.Start > steps {
		return nil, fmt.Errorf("batches: start %d, the epoch has %d steps of %d examples", opt.Start, steps, opt.Size)
	}
	e := &epoch{set: s, size: min(opt.Size, s.Len()), elems: s.Elems(), from: opt.Start, to: steps}
	if opt.Shuffle {
		e.order = s.Order(opt.Seed, opt.Epoch)
	}
	return e, nil
}

func (e *epoch) newBuffer() *Batch {
	return &Batch{X: make([]uint8, e.size*e.elems), Labels: make([]int32, e.size), Index: make([]int32, e.size)}
}

// fill gathers the examples of one step into b, whose slices keep the capacity newBuffer gave them.
func (e *epoch) fill(b *Batch, step int) {
	first := step * e.size
	b.N = min(e.size, e.set.Len()-first)
	b.X, b.Labels, b.Index = b.X[:b.N*e.elems], b.Labels[:b.N], b.Index[:b.N]
	for i := range b.N {
		row := int32(first + i)
		if e.order != nil {
			row = e.order[row]
		}
		b.Index[i] = row
		b.Labels[i] = e.set.Labels[row]
		copy(b.X[i*e.elems:(i+1)*e.elems], e.set.Row(int(row)))
	}
}

func (e *epoch) inline(ctx context.Context, yield func(Batch, error) bool) {
	b := e.newBuffer()
	for step := e.from; step < e.to; step++ {
		if err := ctx.Err(); err != nil {
			yield(Batch{}, err)
			return
		}
		e.fill(b, step)
		if !yield(*b, nil) {
			return
		}
	}
}

// ahead lets a goroutine fill batches while the loop body works on an earlier one. n+1 buffers go round: one is with
// the loop body, the others are being filled or wait.
func (e *epoch) ahead(ctx context.Context, n int, yield func(Batch, error) bool) {
	n = max(1, min(n, e.to-e.from))
	free, ready := make(chan *Batch, n+1), make(chan *Batch, n+1)
	for range n + 1 {
		free <- e.newBuffer()
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for step := e.from; step < e.to; step++ {
			select {
			case <-stop:
				return
			case b := <-free:
				e.fill(b, step)
				ready <- b // never blocks: there are no more buffers than places
			}
		}
	}()
	defer func() { // also when the loop body panics
		close(stop)
		<-stopped
	}()
	for range e.to - e.from {
		if err := ctx.Err(); err != nil {
			yield(Batch{}, err)
			return
		}
		select {
		case <-ctx.Done():
			yield(Batch{}, ctx.Err())
			return
		case b := <-ready:
			if !yield(*b, nil) {
				return
			}
			free <- b
		}
	}
}
