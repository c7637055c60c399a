package datasets_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/narrow-ml/narrow/datasets"
)

// numbered is a set of n examples of two codes that hold the row's number.
func numbered(n int) *datasets.Set {
	s := &datasets.Set{Shape: []int{1, 2, 1}}
	for i := range n {
		s.X = append(s.X, uint8(i), uint8(i>>8))
		s.Labels = append(s.Labels, int32(i%10))
	}
	return s
}

// rows runs an epoch, checks that every batch carries the examples its Index names, and returns the rows and sizes.
func rows(t *testing.T, s *datasets.Set, opt datasets.BatchOptions) (index []int32, sizes []int) {
	t.Helper()
	for b, err := range s.Batches(context.Background(), opt) {
		if err != nil {
			t.Fatal(err)
		}
		if len(b.X) != 2*b.N || len(b.Labels) != b.N || len(b.Index) != b.N {
			t.Fatalf("N %d with %d codes, %d labels, %d rows", b.N, len(b.X), len(b.Labels), len(b.Index))
		}
		for i, row := range b.Index {
			if int32(b.X[2*i])|int32(b.X[2*i+1])<<8 != row || b.Labels[i] != row%10 {
				t.Fatalf("row %d has codes %v and label %d", row, b.X[2*i:2*i+2], b.Labels[i])
			}
		}
		index = append(index, b.Index...)
		sizes = append(sizes, b.N)
	}
	return index, sizes
}

func TestBatchesInOrder(t *testing.T) {
	tests := []struct {
		n    int
		opt  datasets.BatchOptions
		want []int
	}{
		{10, datasets.BatchOptions{Size: 4}, []int{4, 4, 2}},
		{10, datasets.BatchOptions{Size: 5}, []int{5, 5}},
		{10, datasets.BatchOptions{Size: 4, DropLast: true}, []int{4, 4}},
		{10, datasets.BatchOptions{Size: 4, Start: 2}, []int{2}},
		{10, datasets.BatchOptions{Size: 4, Start: 3}, nil},
		{3, datasets.BatchOptions{Size: 4}, []int{3}},
		{3, datasets.BatchOptions{Size: math.MaxInt}, []int{3}},
		{3, datasets.BatchOptions{Size: 4, DropLast: true}, nil},
		{0, datasets.BatchOptions{Size: 4}, nil},
	}
	for _, tt := range tests {
		for _, prefetch := range []int{0, 1, 3, 100, math.MaxInt} {
			tt.opt.Prefetch = prefetch
			index, sizes := rows(t, numbered(tt.n), tt.opt)
			if !slices.Equal(sizes, tt.want) {
				t.Errorf("%d examples, %+v: sizes %v, want %v", tt.n, tt.opt, sizes, tt.want)
			}
			for i, row := range index {
				if int(row) != tt.opt.Start*tt.opt.Size+i {
					t.Errorf("%d examples, %+v: row %d at place %d", tt.n, tt.opt, row, i)
					break
				}
			}
			steps, err := numbered(tt.n).Steps(tt.opt)
			if err != nil || steps != len(tt.want)+tt.opt.Start {
				t.Errorf("%d examples, %+v: %d steps, %v", tt.n, tt.opt, steps, err)
			}
		}
	}
}

func TestShuffle(t *testing.T) {
	s := numbered(1000)
	opt := datasets.BatchOptions{Size: 32, Seed: 7, Epoch: 3, Shuffle: true}
	want, _ := rows(t, s, opt)
	if sorted := slices.Sorted(slices.Values(want)); sorted[0] != 0 || sorted[999] != 999 || len(slices.Compact(sorted)) != 1000 {
		t.Fatal("a shuffled epoch does not hold every row once")
	}
	if !slices.Equal(want, s.Order(7, 3)) {
		t.Error("the batches do not follow Order")
	}
	same := map[string]datasets.BatchOptions{
		"again":       opt,
		"prefetch":    {Size: 32, Seed: 7, Epoch: 3, Shuffle: true, Prefetch: 4},
		"other size":  {Size: 7, Seed: 7, Epoch: 3, Shuffle: true},
		"one at once": {Size: 1000, Seed: 7, Epoch: 3, Shuffle: true, Prefetch: 1},
	}
	for name, o := range same {
		if got, _ := rows(t, s, o); !slices.Equal(got, want) {
			t.Errorf("%s: another order", name)
		}
	}
	for name, o := range map[string]datasets.BatchOptions{
		"seed":  {Size: 32, Seed: 8, Epoch: 3, Shuffle: true},
		"epoch": {Size: 32, Seed: 7, Epoch: 4, Shuffle: true},
	} {
		if got, _ := rows(t, s, o); slices.Equal(got, want) {
			t.Errorf("another %s gives the same order", name)
		}
	}
	for _, start := range []int{1, 17, 31, 32} {
		o := opt
		o.Start = start
		if got, _ := rows(t, s, o); !slices.Equal(got, want[min(1000, 32*start):]) {
			t.Errorf("starting at step %d gives other batches than step %d of a whole epoch", start, start)
		}
	}
}

func TestBatchesCanRunAgain(t *testing.T) {
	seq := numbered(10).Batches(context.Background(), datasets.BatchOptions{Size: 3, Prefetch: 2})
	for range 2 {
		n := 0
		for b, err := range seq {
			if err != nil {
				t.Fatal(err)
			}
			n += b.N
		}
		if n != 10 {
			t.Fatalf("%d examples, want 10", n)
		}
	}
}

func TestBatchesRefuse(t *testing.T) {
	tests := []struct {
		set  *datasets.Set
		opt  datasets.BatchOptions
		want string
	}{
		{numbered(10), datasets.BatchOptions{}, "size 0, want at least 1"},
		{numbered(10), datasets.BatchOptions{Size: 1, Epoch: -1}, "epoch -1"},
		{numbered(10), datasets.BatchOptions{Size: 1, Prefetch: -1}, "prefetch -1"},
		{numbered(10), datasets.BatchOptions{Size: 1, Start: -1}, "start -1"},
		{numbered(10), datasets.BatchOptions{Size: 4, Start: 4}, "start 4, the epoch has 3 steps of 4 examples"},
		{nil, datasets.BatchOptions{Size: 1}, "there is none"},
		{&datasets.Set{Shape: []int{2}, X: make([]uint8, 5), Labels: make([]int32, 2)}, datasets.BatchOptions{Size: 1}, "X has 5 codes"},
		{&datasets.Set{Shape: []int{1 << 16, 1 << 16}}, datasets.BatchOptions{Size: 1}, "elements"},
		{&datasets.Set{}, datasets.BatchOptions{Size: 1}, "shape is empty"},
	}
	for _, tt := range tests {
		n := 0
		for b, err := range tt.set.Batches(context.Background(), tt.opt) {
			n++
			if err == nil || !strings.Contains(err.Error(), tt.want) || b.N != 0 {
				t.Errorf("%+v: batch of %d, error %v, want %q", tt.opt, b.N, err, tt.want)
			}
		}
		if n != 1 {
			t.Errorf("%+v: %d pairs, want only the error", tt.opt, n)
		}
	}
}

func TestBatchesCancel(t *testing.T) {
	for _, prefetch := range []int{0, 3} {
		ctx, cancel := context.WithCancel(context.Background())
		var seen int
		var last error
		for b, err := range numbered(100).Batches(ctx, datasets.BatchOptions{Size: 1, Prefetch: prefetch}) {
			if last = err; err != nil {
				if b.N != 0 {
					t.Errorf("prefetch %d: the error comes with a batch", prefetch)
				}
				continue
			}
			if seen++; seen == 5 {
				cancel()
			}
		}
		cancel()
		if seen != 5 || !errors.Is(last, context.Canceled) {
			t.Errorf("prefetch %d: %d batches and error %v, want 5 and context.Canceled", prefetch, seen, last)
		}
	}
}

// Leaving the loop in any way stops the goroutine before the range statement ends.
func TestPrefetchLeavesNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	s := numbered(1000)
	opt := datasets.BatchOptions{Size: 1, Prefetch: 4, Shuffle: true}
	for i := range 50 {
		func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			defer func() { _ = recover() }()
			n := 0
			for range s.Batches(ctx, opt) {
				n++
				switch {
				case n < 3:
				case i%3 == 0:
					return
				case i%3 == 1:
					cancel()
				default:
					panic("loop body")
				}
			}
		}()
	}
	// The goroutine has said that it is done; the runtime may need a moment to take it off its list.
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// With Prefetch, batches the goroutine prepares must not touch the one the loop body holds.
func TestBatchIsValidUntilTheNext(t *testing.T) {
	for b, err := range numbered(500).Batches(context.Background(), datasets.BatchOptions{Size: 5, Prefetch: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		x := slices.Clone(b.X)
		for range 20 {
			runtime.Gosched()
		}
		if !slices.Equal(x, b.X) {
			t.Fatal("a batch changed while the loop body held it")
		}
	}
}

func TestInlineBatchesReuseMemory(t *testing.T) {
	s := numbered(1000)
	few, many := 0.0, 0.0
	for _, c := range []struct {
		size int
		out  *float64
	}{{500, &few}, {5, &many}} {
		*c.out = testing.AllocsPerRun(5, func() {
			for _, err := range s.Batches(context.Background(), datasets.BatchOptions{Size: c.size}) {
				if err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	if many > few {
		t.Errorf("200 batches allocate %v times, 2 batches %v times", many, few)
	}
}

func BenchmarkBatches(b *testing.B) {
	s := &datasets.Set{Shape: []int{28, 28, 1}, X: make([]uint8, 10000*784), Labels: make([]int32, 10000)}
	b.SetBytes(int64(len(s.X)))
	for b.Loop() {
		for _, err := range s.Batches(context.Background(), datasets.BatchOptions{Size: 64, Shuffle: true, Prefetch: 2}) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
