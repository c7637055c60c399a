package par

import (
	"runtime"
	"sync/atomic"
)

// sleeper is where one goroutine waits for what others do. Waking a sleeping thread takes longer than many loops, so at
// first it looks again and again.
type sleeper struct {
	asleep atomic.Bool
	wake   chan struct{}
}

// A sleeper looks about 100 us long, many times the pauses between the loops of a training step. Between its looks other
// goroutines may run.
const (
	turns        = 500
	looksPerTurn = 16
)

func newSleeper() sleeper { return sleeper{wake: make(chan struct{}, 1)} }

// until returns when ready does; others make it so and then call call.
func (s *sleeper) until(ready func() bool) {
	for range turns {
		for range looksPerTurn {
			if ready() {
				return
			}
		}
		runtime.Gosched()
	}
	for !ready() {
		s.asleep.Store(true)
		if ready() && s.asleep.CompareAndSwap(true, false) {
			return // nobody has sent, nor will
		}
		<-s.wake
	}
}

// call wakes the goroutine that waits here, if it sleeps.
func (s *sleeper) call() {
	if s.asleep.CompareAndSwap(true, false) {
		s.wake <- struct{}{}
	}
}
