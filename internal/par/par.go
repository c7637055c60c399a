package par

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// Shards is the largest number of pieces a loop is cut into. It is part of
// the arithmetic: changing it changes the bits of sharded reductions.
const Shards = 8

// Span returns the half-open range of shard of a loop of length n. Shards
// beyond Count(n) are empty. Sizes differ by at most one.
func Span(n, shard int) (lo, hi int) {
	c := Count(n)
	if shard < 0 || shard >= c {
		return n, n
	}
	return shard * n / c, (shard + 1) * n / c
}

// Count returns the number of shards a loop of length n is cut into.
func Count(n int) int {
	return max(0, min(n, Shards))
}

// PanicError is a panic inside a shard's function, turned into an error.
type PanicError struct {
	Shard int    // shard whose function panicked
	Value any    // the value given to panic
	Stack []byte // stack of the panicking goroutine
}

// Error names the shard and the panic's value.
func (e *PanicError) Error() string {
	return fmt.Sprintf("par: shard %d panicked: %v", e.Shard, e.Value)
}

// Unwrap returns the panic's value when it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Pool is a set of workers. Its methods may be called by any number of
// goroutines. The zero value is not usable: call New.
type Pool struct {
	workers int
	turn    sync.Mutex      // held by the one Run that uses the workers
	wake    []chan struct{} // one per worker goroutine
	closed  bool            // under turn
	job     job
}

// job is one Run's loop. Its errors are kept per shard so that the error
// returned does not depend on timing.
type job struct {
	fn      func(shard, lo, hi int)
	n       int
	shards  int
	workers int                 // that take shards: the caller is number 0
	taken   [Shards]atomic.Bool // by a worker
	done    chan struct{}       // one token of each worker goroutine that has drained
	errs    [Shards]error
}

// New returns a pool of the given number of workers, held to [1, Shards]. A pool of
// one worker has no goroutines: Run works in its caller.
func New(workers int) *Pool {
	p := &Pool{workers: max(1, min(workers, Shards))}
	p.wake = make([]chan struct{}, p.workers-1)
	p.job.done = make(chan struct{}, p.workers-1)
	for i := range p.wake {
		p.wake[i] = make(chan struct{}, 1)
		go p.serve(i+1, p.wake[i])
	}
	return p
}

// Workers returns the number of shards that run at a time.
func (p *Pool) Workers() int { return p.workers }

// Close ends the worker goroutines after the current Run. A closed pool still
// runs loops, in their callers.
func (p *Pool) Close() {
	p.turn.Lock()
	defer p.turn.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	for _, c := range p.wake {
		close(c)
	}
}

// Run calls fn once for every shard of [0, n) and returns when all are done.
// A panic in fn becomes a *PanicError; the other shards still run. Run
// allocates nothing when fn is a stored function value.
//
// When the workers are busy, with another caller's loop or with the loop that
// this very call is nested in, the caller runs all its shards itself.
func (p *Pool) Run(n int, fn func(shard, lo, hi int)) error {
	shards := Count(n)
	if p.workers == 1 || shards <= 1 || !p.turn.TryLock() {
		return runInline(n, shards, fn)
	}
	defer p.turn.Unlock()
	if p.closed {
		return runInline(n, shards, fn)
	}
	j := &p.job
	helpers := min(len(p.wake), shards-1)
	j.fn, j.n, j.shards, j.workers = fn, n, shards, helpers+1
	for i := range j.taken {
		j.taken[i].Store(false)
	}
	for _, c := range p.wake[:helpers] {
		c <- struct{}{}
	}
	j.drain(0)
	for range helpers {
		await(j.done)
	}
	j.fn = nil
	var err error
	for i := range j.errs[:shards] {
		if j.errs[i] != nil {
			err = errors.Join(err, j.errs[i])
			j.errs[i] = nil
		}
	}
	return err
}

// serve is a worker goroutine: one drain per wake-up.
func (p *Pool) serve(worker int, wake <-chan struct{}) {
	for await(wake) {
		p.job.drain(worker)
		p.job.done <- struct{}{}
	}
}

// awaitTurns is how often await looks before it sleeps: about 50 us, many times the pauses between the loops of a
// training step.
const awaitTurns = 250

// await receives a token and reports false when the channel is closed. Waking a sleeping thread takes longer than many
// loops, so at first it lets other goroutines run and looks again.
func await(c <-chan struct{}) bool {
	for range awaitTurns {
		select {
		case _, ok := <-c:
			return ok
		default:
			runtime.Gosched()
		}
	}
	_, ok := <-c
	return ok
}

// drain runs the shards that belong to a worker, and then those that others have not come to, their last ones first. A
// shard belongs to the same worker in every loop, so that what one loop writes is in the cache of the processor that
// reads it in the next.
func (j *job) drain(worker int) {
	first, end := worker*j.shards/j.workers, (worker+1)*j.shards/j.workers
	for s := first; s < end; s++ {
		j.take(s)
	}
	for i := 1; i <= j.shards-(end-first); i++ {
		j.take((first - i + j.shards) % j.shards)
	}
}

// take runs a shard unless another worker has taken it.
func (j *job) take(shard int) {
	if j.taken[shard].CompareAndSwap(false, true) {
		j.errs[shard] = runShard(j.n, shard, j.fn)
	}
}

func runInline(n, shards int, fn func(shard, lo, hi int)) error {
	var err error
	for s := range shards {
		if e := runShard(n, s, fn); e != nil {
			err = errors.Join(err, e)
		}
	}
	return err
}

func runShard(n, shard int, fn func(shard, lo, hi int)) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Shard: shard, Value: v, Stack: debug.Stack()}
		}
	}()
	lo, hi := Span(n, shard)
	fn(shard, lo, hi)
	return nil
}
