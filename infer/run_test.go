package infer_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/model"
)

// TestCutsDoNotMatter runs each model with several workers, batch limits and numbers of examples.
func TestCutsDoNotMatter(t *testing.T) {
	for _, precision := range []string{"fp32", "fp16", "int8", "w2a4", "w8a16", "int16"} {
		for seed := range uint64(6) {
			rnd := rand.New(rand.NewPCG(seed, 4))
			m := randomNet(t, rnd)
			const n = 23
			x := randomBytes(rnd, n*m.Inputs[0].Shape.Size())
			m = quantized(t, m, precision, x, rnd)
			one := compile(t, m, infer.Options{Workers: 1, MaxBatch: 1})
			want := make([]float32, n*one.Classes())
			for i := range n {
				if err := one.Run(want[i*one.Classes():], x[i*one.InputSize():], 1); err != nil {
					t.Fatal(err)
				}
			}
			for _, o := range []infer.Options{{}, {Workers: 1}, {Workers: 2, MaxBatch: 5}, {Workers: 3, MaxBatch: 4}, {Workers: 8, MaxBatch: 1}, {Workers: 100}} {
				e := compile(t, m, o).ShareAlways()
				got := make([]float32, len(want))
				if err := e.Run(got, x, n); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got, want) {
					t.Fatalf("%s, seed %d, %+v: logits differ", precision, seed, o)
				}
			}
		}
	}
}

// TestConcurrentRuns lets many goroutines share one engine; under -race it also finds shared buffers.
func TestConcurrentRuns(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	m := randomNet(t, rnd)
	const n = 9
	x := randomBytes(rnd, n*m.Inputs[0].Shape.Size())
	for _, precision := range []string{"int8", "fp32"} {
		e := compile(t, quantized(t, m, precision, x, rnd), infer.Options{Workers: 2, MaxBatch: 3}).ShareAlways()
		want := make([]float32, n*e.Classes())
		if err := e.Run(want, x, n); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				got := make([]float32, len(want))
				for range 20 {
					if err := e.Run(got, x, n); err != nil || !slices.Equal(got, want) {
						t.Errorf("%s: %v, or other logits", precision, err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

// hasShortProduct reports a layer whose sums have fewer than four terms: their rows are copied into memory of the kernel.
func hasShortProduct(m *model.Model) bool {
	for i := range m.Nodes {
		if n := &m.Nodes[i]; n.Op.HasWeight() && m.Params[n.Param(model.Weight)].Shape.Size()/n.Attr.Units < 4 {
			return true
		}
	}
	return false
}

func TestRunDoesNotAllocate(t *testing.T) {
	for _, precision := range []string{"fp32", "bf16", "int8", "w4a4"} {
		for seed := range uint64(4) {
			rnd := rand.New(rand.NewPCG(seed, 6))
			m := randomNet(t, rnd)
			for hasShortProduct(m) {
				m = randomNet(t, rnd)
			}
			const n = 11
			x := randomBytes(rnd, n*m.Inputs[0].Shape.Size())
			m = quantized(t, m, precision, x, rnd)
			for _, workers := range []int{1, 3} {
				e := compile(t, m, infer.Options{Workers: workers, MaxBatch: 2}).ShareAlways()
				logits := make([]float32, n*e.Classes())
				for _, count := range []int{1, n} {
					if allocs := testing.AllocsPerRun(20, func() {
						if err := e.Run(logits, x, count); err != nil {
							t.Fatal(err)
						}
					}); allocs != 0 {
						t.Errorf("%s, seed %d, %d workers, %d examples: %v allocations", precision, seed, workers, count, allocs)
					}
				}
			}
		}
	}
}

// TestBuffersAreShared holds the plan: a chain of any length needs two buffers and the logits' memory.
func TestBuffersAreShared(t *testing.T) {
	m := model.New("chain", model.Input{Name: "x", Shape: model.Shape{8}, Scale: 1})
	for i := range 9 {
		name := fmt.Sprintf("d%d", i)
		m.Append(model.Node{Name: name, Layer: name, Op: model.Dense, Attr: model.Attr{Units: 3 + i*5%7}})
	}
	m = filled(t, m, rand.New(rand.NewPCG(1, 1)))
	if e := compile(t, m, infer.Options{}); e.Buffers() != 2 {
		t.Errorf("%d buffers", e.Buffers())
	}
}

// TestWorkersEnd drops engines and waits for their goroutines to go.
func TestWorkersEnd(t *testing.T) {
	m := randomNet(t, rand.New(rand.NewPCG(11, 11)))
	before := runtime.NumGoroutine()
	for range 5 {
		e := compile(t, m, infer.Options{Workers: 3}).ShareAlways()
		if err := e.Run(make([]float32, 4*e.Classes()), make([]uint8, 4*e.InputSize()), 4); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		runtime.GC()
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}
