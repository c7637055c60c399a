package eval

import (
	"fmt"
	"runtime"
	"sync"
)

// strides of a row-major shape.
func strides(shape []int) []int {
	s := make([]int, len(shape))
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		s[i] = n
		n *= shape[i]
	}
	return s
}

// broadcast gives the common shape of two tensors by the rule of ONNX and numpy.
func broadcast(a, b []int) ([]int, error) {
	r := max(len(a), len(b))
	out := make([]int, r)
	for i := range out {
		da, db := 1, 1
		if j := i - r + len(a); j >= 0 {
			da = a[j]
		}
		if j := i - r + len(b); j >= 0 {
			db = b[j]
		}
		switch {
		case da == db || db == 1:
			out[i] = da
		case da == 1:
			out[i] = db
		default:
			return nil, fmt.Errorf("%w: shapes %v and %v do not broadcast", ErrModel, a, b)
		}
	}
	return out, nil
}

// walk visits the elements of shape in row-major order, with the offset of each into a tensor of shape from, which
// broadcasts to it.
func walk(shape, from []int, visit func(i, j int)) {
	step := make([]int, len(shape))
	src := strides(from)
	for i := range from {
		if from[i] != 1 {
			step[len(shape)-len(from)+i] = src[i]
		}
	}
	walkSteps(shape, step, 0, visit)
}

// walkSteps visits the elements of shape in row-major order, j moving by step[a] along axis a from start.
func walkSteps(shape, step []int, start int, visit func(i, j int)) {
	n := count(shape)
	if n == 0 {
		return
	}
	at := make([]int, len(shape))
	for i, j := 0, start; ; {
		visit(i, j)
		if i++; i == n {
			return
		}
		for a := len(shape) - 1; ; a-- {
			at[a]++
			j += step[a]
			if at[a] < shape[a] {
				break
			}
			j -= step[a] * shape[a]
			at[a] = 0
		}
	}
}

// gatherSteps copies by walkSteps, whichever kind of element the tensor has.
func gatherSteps(t Tensor, shape, step []int, start int) (Tensor, error) {
	out, err := newTensor(t.Type, shape)
	if err != nil {
		return Tensor{}, err
	}
	if t.IsReal() {
		walkSteps(shape, step, start, func(i, j int) { out.Reals[i] = t.Reals[j] })
	} else {
		walkSteps(shape, step, start, func(i, j int) { out.Ints[i] = t.Ints[j] })
	}
	return out, nil
}

// permute reorders axes: axis a of the result is axis perm[a] of t. The perm is a permutation.
func permute(t Tensor, perm []int) Tensor {
	src := strides(t.Shape)
	shape, step := make([]int, len(perm)), make([]int, len(perm))
	for i, p := range perm {
		shape[i], step[i] = t.Shape[p], src[p]
	}
	out := Tensor{Type: t.Type, Shape: shape}
	if t.IsReal() {
		out.Reals = make([]float64, len(t.Reals))
		walkSteps(shape, step, 0, func(i, j int) { out.Reals[i] = t.Reals[j] })
	} else {
		out.Ints = make([]int64, len(t.Ints))
		walkSteps(shape, step, 0, func(i, j int) { out.Ints[i] = t.Ints[j] })
	}
	return out
}

// axisOf resolves a possibly negative axis against a rank; limit is the greatest legal value.
func axisOf(axis int64, rank, limit int) (int, error) {
	a := axis
	if a < 0 {
		a += int64(rank)
	}
	if a < 0 || a > int64(limit) {
		return 0, fmt.Errorf("%w: axis %d of a tensor of rank %d", ErrModel, axis, rank)
	}
	return int(a), nil
}

// parallel runs do(0..n-1) on all processors. Each call owns its own part of the result, so the order is free.
func parallel(n int, do func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	if workers < 2 {
		for i := range n {
			do(i)
		}
		return
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := w; i < n; i += workers {
				do(i)
			}
		}()
	}
	wg.Wait()
}
