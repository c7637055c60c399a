package infer

import (
	"fmt"

	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/internal/par"
)

// worthSharing is how many multiplications a part of a batch must have for a second goroutine to pay: about 10
// microseconds of work, some times what waking one costs.
const worthSharing = 1 << 19

// worker is the state of one pass through the network.
type worker struct {
	x       []uint8   // the examples of this pass
	logits  []float32 // their results
	first   int       // index of the first of them in the call
	trace   bool      // keep accumulators
	bufs    buffers
	acc     []int32
	acc64   []int64 // of layers with 16-bit codes
	wide    []int16 // and their inputs
	scratch kernel.Scratch
	err     error
}

// buffers hold the tensors of a pass, for up to `room` examples.
type buffers struct {
	codes  [][]uint8
	values [][]float32
	room   int
}

// reserve makes room for n examples.
func (b *buffers) reserve(p *program, n int) {
	if b.room >= n {
		return
	}
	b.room = n
	b.codes, b.values = make([][]uint8, len(p.codes)), make([][]float32, len(p.values))
	for i, size := range p.codes {
		b.codes[i] = make([]uint8, n*size)
	}
	for i, size := range p.values {
		b.values[i] = make([]float32, n*size)
	}
}

// codes is the memory of n examples of a tensor that holds codes.
func (w *worker) codes(t *tensor, n int) []uint8 {
	if t.place == inInput {
		return w.x[:n*t.size]
	}
	return w.bufs.codes[t.slot][:n*t.size]
}

// values is the memory of n examples of a float tensor.
func (w *worker) values(t *tensor, n int) []float32 {
	if t.place == inLogits {
		return w.logits[:n*t.size]
	}
	return w.bufs.values[t.slot][:n*t.size]
}

// accumulators is working memory of n elements.
func (w *worker) accumulators(n int) []int32 {
	if cap(w.acc) < n {
		w.acc = make([]int32, n)
	}
	w.acc = w.acc[:n]
	return w.acc
}

// arena is the state of one call of Run: a worker for each part of the batch.
type arena struct {
	e       *Engine
	workers []worker
	x       []uint8
	logits  []float32
	n       int
	parts   int
	run     func(shard, lo, hi int) // runs parts lo to hi, kept so that a call allocates nothing
}

func (e *Engine) newArena() *arena {
	a := &arena{e: e, workers: make([]worker, e.workers)}
	a.run = func(_, lo, hi int) {
		for part := lo; part < hi; part++ {
			a.part(part)
		}
	}
	return a
}

// Run computes the logits of n examples, at the start of logits: n*Classes values from n*InputSize bytes. After an error
// the logits are not meaningful. n may be 0 and may exceed MaxBatch.
func (e *Engine) Run(logits []float32, x []uint8, n int) error {
	if err := e.checkLengths(len(logits), len(x), n); err != nil {
		return err
	}
	var a *arena
	select {
	case a = <-e.free:
	default:
		a = e.newArena()
	}
	a.x, a.logits, a.n, a.parts = x, logits, n, e.parts(n)
	err := a.runParts()
	a.release()
	select {
	case e.free <- a:
	default: // the list is full: as many calls as this may overlap are served without allocating
	}
	if err != nil {
		return fmt.Errorf("run model %q: %w", e.m.Name, err)
	}
	return nil
}

func (e *Engine) checkLengths(logits, x, n int) error {
	if n < 0 || n > x/e.InputSize() || n > logits/e.Classes() {
		return fmt.Errorf("run model %q: %d examples need %d bytes of input and %d logits each; got %d and %d in all", e.m.Name, n, e.InputSize(), e.Classes(), x, logits)
	}
	return nil
}

// parts is how many goroutines share n examples.
func (e *Engine) parts(n int) int {
	work := int64(n) * int64(max(e.prog.macs, 1)) / e.grain
	return int(max(1, min(int64(e.workers), int64(n), work)))
}

func (a *arena) runParts() error {
	if a.parts == 1 {
		a.part(0)
		return a.workers[0].err
	}
	if err := a.e.pool.Run(a.parts, a.run); err != nil {
		return err
	}
	for i := range a.workers[:a.parts] {
		if err := a.workers[i].err; err != nil {
			return err
		}
	}
	return nil
}

// part runs one contiguous part of the examples, a batch at a time.
func (a *arena) part(part int) {
	w, p := &a.workers[part], a.e.prog
	defer func() {
		if v := recover(); v != nil {
			w.err = &par.PanicError{Shard: part, Value: v}
		}
	}()
	lo, hi := part*a.n/a.parts, (part+1)*a.n/a.parts
	w.bufs.reserve(p, min(a.e.batch, hi-lo))
	for at := lo; at < hi && w.err == nil; at += a.e.batch {
		n := min(a.e.batch, hi-at)
		w.first = at
		w.x, w.logits = a.x[at*p.input.size:][:n*p.input.size], a.logits[at*p.output.size:][:n*p.output.size]
		w.err = p.run(w, n)
	}
}

func (p *program) run(w *worker, n int) error {
	for i := range p.steps {
		if op := p.steps[i].op; op != nil {
			if err := op.run(w, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// release lets go of the caller's memory.
func (a *arena) release() {
	a.x, a.logits = nil, nil
	for i := range a.workers {
		w := &a.workers[i]
		w.x, w.logits, w.err = nil, nil, nil
	}
}
