package par_test

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/narrow-ml/narrow/internal/par"
)

func TestSpanCoversOnce(t *testing.T) {
	for n := 0; n <= 100; n++ {
		next, small, large := 0, n, 0
		for s := range par.Count(n) {
			lo, hi := par.Span(n, s)
			if lo != next || hi <= lo {
				t.Fatalf("n=%d shard %d: [%d,%d), want it to begin at %d and not be empty", n, s, lo, hi, next)
			}
			small, large, next = min(small, hi-lo), max(large, hi-lo), hi
		}
		if next != n {
			t.Errorf("n=%d: shards end at %d", n, next)
		}
		if n > 0 && large-small > 1 {
			t.Errorf("n=%d: sizes %d..%d", n, small, large)
		}
		if lo, hi := par.Span(n, par.Count(n)); lo != hi {
			t.Errorf("n=%d: shard beyond the last is [%d,%d)", n, lo, hi)
		}
	}
}

func TestRunEveryShardOnceForAnyWorkers(t *testing.T) {
	for _, workers := range []int{-1, 1, 2, 3, 8, 50} {
		p := par.New(workers)
		for _, n := range []int{0, 1, 2, 7, 8, 9, 1000} {
			hits := make([]int32, n)
			var calls [par.Shards]int32
			err := p.Run(n, func(shard, lo, hi int) {
				atomic.AddInt32(&calls[shard], 1)
				wantLo, wantHi := par.Span(n, shard)
				if lo != wantLo || hi != wantHi {
					t.Errorf("workers=%d n=%d shard %d: [%d,%d), want [%d,%d)", workers, n, shard, lo, hi, wantLo, wantHi)
				}
				for i := lo; i < hi; i++ {
					atomic.AddInt32(&hits[i], 1)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			for i, h := range hits {
				if h != 1 {
					t.Fatalf("workers=%d n=%d: index %d ran %d times", workers, n, i, h)
				}
			}
			for s, c := range calls {
				want := int32(0)
				if s < par.Count(n) {
					want = 1
				}
				if c != want {
					t.Errorf("workers=%d n=%d: shard %d called %d times", workers, n, s, c)
				}
			}
		}
		p.Close()
	}
}

func TestPanicBecomesError(t *testing.T) {
	cause := errors.New("bad row")
	for _, workers := range []int{1, 2, 4} {
		p := par.New(workers)
		var ran atomic.Int32
		err := p.Run(80, func(shard, lo, hi int) {
			ran.Add(1)
			if shard == 3 {
				panic(cause)
			}
		})
		var pe *par.PanicError
		if !errors.As(err, &pe) || pe.Shard != 3 || !errors.Is(err, cause) || len(pe.Stack) == 0 {
			t.Errorf("workers=%d: error %v, want a PanicError of shard 3 wrapping %v", workers, err, cause)
		}
		if ran.Load() != par.Shards {
			t.Errorf("workers=%d: %d shards ran, want all %d", workers, ran.Load(), par.Shards)
		}
		if err := p.Run(80, func(int, int, int) {}); err != nil {
			t.Errorf("workers=%d: the next Run still fails: %v", workers, err)
		}
		p.Close()
	}
}

func TestNestedAndConcurrentCallers(t *testing.T) {
	p := par.New(4)
	defer p.Close()
	var total atomic.Int64
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for range 50 {
				err := p.Run(16, func(_, lo, hi int) {
					if err := p.Run(hi-lo, func(_, a, b int) { total.Add(int64(b - a)) }); err != nil {
						t.Error(err)
					}
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := total.Load(); got != 6*50*16 {
		t.Errorf("inner loops covered %d elements, want %d", got, 6*50*16)
	}
}

func TestClosedPoolRunsInline(t *testing.T) {
	p := par.New(3)
	p.Close()
	p.Close()
	sum := 0 // no lock: the race detector fails the test if workers still run
	if err := p.Run(10, func(_, lo, hi int) { sum += hi - lo }); err != nil || sum != 10 {
		t.Errorf("sum %d, error %v", sum, err)
	}
}

func TestRunDoesNotAllocate(t *testing.T) {
	for _, workers := range []int{1, 2} {
		p := par.New(workers)
		var sums [par.Shards]int
		fn := func(shard, lo, hi int) { sums[shard] += hi - lo }
		if n := testing.AllocsPerRun(100, func() {
			if err := p.Run(64, fn); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("workers=%d: %v allocations per Run", workers, n)
		}
		p.Close()
	}
}

// A sum whose partial results belong to shards has the same bits for any
// number of workers.
func Example() {
	x := make([]float32, 1000)
	for i := range x {
		x[i] = 1 / float32(i+1)
	}
	sum := func(workers int) float32 {
		p := par.New(workers)
		defer p.Close()
		var parts [par.Shards]float32
		err := p.Run(len(x), func(shard, lo, hi int) {
			for _, v := range x[lo:hi] {
				parts[shard] += v
			}
		})
		if err != nil {
			fmt.Println(err)
		}
		var total float32
		for _, v := range parts {
			total += v
		}
		return total
	}
	fmt.Println(sum(1) == sum(2), sum(2) == sum(8))
	// Output: true true
}

// Shards that run at a time have different workers, whose memory needs no lock.
func TestRunOnWorkers(t *testing.T) {
	for _, workers := range []int{1, 2, 3, par.Shards} {
		p := par.New(workers)
		var busy [par.Shards]atomic.Bool
		memory := make([]int, workers) // the race detector's to watch
		for range 50 {
			err := p.RunOn(40, func(worker, shard, lo, hi int) {
				if worker < 0 || worker >= workers || !busy[worker].CompareAndSwap(false, true) {
					t.Errorf("workers=%d: shard %d runs on worker %d, which is busy or none", workers, shard, worker)
				}
				for range hi - lo {
					memory[worker]++
					runtime.Gosched()
				}
				busy[worker].Store(false)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		sum := 0
		for _, n := range memory {
			sum += n
		}
		if sum != 50*40 {
			t.Errorf("workers=%d: %d iterations, want %d", workers, sum, 50*40)
		}
		p.Close()
		if err := p.RunOn(3, func(worker, _, _, _ int) {
			if worker != 0 {
				t.Errorf("workers=%d: a closed pool's caller is worker %d", workers, worker)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
}
