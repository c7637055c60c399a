package par

import (
	"errors"
	"fmt"
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
	turn    sync.Mutex // held by the one Run that uses the workers
	helpers []*helper
	closed  bool // under turn
	job     job
}

// helper is a worker besides the callers of Run.
type helper struct {
	number  int           // from 1: a caller is worker 0
	calls   atomic.Uint32 // loops it was to help in
	leave   atomic.Bool
	waiting sleeper // for a call
}

// job is one Run's loop. Its errors are kept per shard so that the error
// returned does not depend on timing.
type job struct {
	loop    loop
	shards  int
	workers int    // that take shards
	number  uint64 // of the loop
	taken   [Shards]ticket
	errs    [Shards]error
	left    atomic.Int32 // helpers that have not drained
	waiting sleeper      // the caller, for these
}

// loop is n iterations of one of its functions.
type loop struct {
	n  int
	fn func(shard, lo, hi int)
	on func(worker, shard, lo, hi int)
}

// ticket says which loop's shard a worker took last. Each has a cache line of its own, so that workers do not wait for
// each other's.
type ticket struct {
	loop atomic.Uint64
	_    [56]byte
}

// New returns a pool of the given number of workers, held to [1, Shards]. A pool of
// one worker has no goroutines: Run works in its caller.
func New(workers int) *Pool {
	p := &Pool{helpers: make([]*helper, max(1, min(workers, Shards))-1)}
	p.job.waiting = newSleeper()
	for i := range p.helpers {
		p.helpers[i] = &helper{number: i + 1, waiting: newSleeper()}
		go p.serve(p.helpers[i])
	}
	return p
}

// Workers returns the number of shards that run at a time.
func (p *Pool) Workers() int { return len(p.helpers) + 1 }

// Close ends the worker goroutines after the current Run. A closed pool still
// runs loops, in their callers.
func (p *Pool) Close() {
	p.turn.Lock()
	defer p.turn.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	for _, h := range p.helpers {
		h.leave.Store(true)
		h.waiting.call()
	}
}

// Run calls fn once for every shard of [0, n) and returns when all are done.
// A panic in fn becomes a *PanicError; the other shards still run. Run
// allocates nothing when fn is a stored function value.
//
// When the workers are busy, with another caller's loop or with the loop that
// this very call is nested in, the caller runs all its shards itself.
func (p *Pool) Run(n int, fn func(shard, lo, hi int)) error { return p.run(loop{n: n, fn: fn}) }

// RunOn is Run for a function with memory for each worker. Shards that run at
// a time have different workers, numbered below Workers. A loop that its caller
// runs itself has worker 0 alone, so memory is one caller's, and a nested loop
// needs its own.
func (p *Pool) RunOn(n int, fn func(worker, shard, lo, hi int)) error {
	return p.run(loop{n: n, on: fn})
}

func (p *Pool) run(l loop) error {
	shards := Count(l.n)
	if len(p.helpers) == 0 || shards <= 1 || !p.turn.TryLock() {
		return l.inline(shards)
	}
	defer p.turn.Unlock()
	if p.closed {
		return l.inline(shards)
	}
	j := &p.job
	helpers := p.helpers[:min(len(p.helpers), shards-1)]
	j.loop, j.shards, j.workers = l, shards, len(helpers)+1
	j.number++
	j.left.Store(int32(len(helpers)))
	for _, h := range helpers {
		h.calls.Add(1)
		h.waiting.call()
	}
	j.drain(0)
	j.waiting.until(func() bool { return j.left.Load() == 0 })
	j.loop = loop{}
	var err error
	for i := range j.errs[:shards] {
		if j.errs[i] != nil {
			err = errors.Join(err, j.errs[i])
			j.errs[i] = nil
		}
	}
	return err
}

// serve is a helper's goroutine: one drain per call.
func (p *Pool) serve(h *helper) {
	for call := uint32(1); ; call++ {
		h.waiting.until(func() bool { return h.calls.Load() == call || h.leave.Load() })
		if h.calls.Load() != call {
			return
		}
		p.job.drain(h.number)
		if p.job.left.Add(-1) == 0 {
			p.job.waiting.call()
		}
	}
}

// drain runs the shards that belong to a worker, and then those that others have not come to, their last ones first. A
// shard belongs to the same worker in every loop, so that what one loop writes is in the cache of the processor that
// reads it in the next.
func (j *job) drain(worker int) {
	first, end := worker*j.shards/j.workers, (worker+1)*j.shards/j.workers
	for s := first; s < end; s++ {
		j.take(worker, s)
	}
	for i := 1; i <= j.shards-(end-first); i++ {
		j.take(worker, (first-i+j.shards)%j.shards)
	}
}

// take runs a shard unless another worker has taken it.
func (j *job) take(worker, shard int) {
	t := &j.taken[shard].loop
	if last := t.Load(); last == j.number || !t.CompareAndSwap(last, j.number) {
		return
	}
	if err := j.loop.shard(worker, shard); err != nil {
		j.errs[shard] = err
	}
}

func (l *loop) inline(shards int) error {
	var err error
	for s := range shards {
		if e := l.shard(0, s); e != nil {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (l *loop) shard(worker, shard int) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Shard: shard, Value: v, Stack: debug.Stack()}
		}
	}()
	lo, hi := Span(l.n, shard)
	if l.on != nil {
		l.on(worker, shard, lo, hi)
	} else {
		l.fn(shard, lo, hi)
	}
	return nil
}
