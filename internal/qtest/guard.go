package qtest

import (
	"fmt"
	"math"
	"unsafe"
)

// guardLen is the number of guard elements on each side of a Guard's data:
// more than the widest vector store.
const guardLen = 72

// Number is an element type of the kernels.
type Number interface {
	~int8 | ~uint8 | ~int32 | ~float32 | ~float64
}

// Guard is a slice with guard values on both sides, to catch stores outside.
type Guard[T Number] struct {
	Data []T // the slice to pass to a kernel; its capacity ends at its length
	full []T
	lead int // index of Data in full
	mark T
}

// Guarded returns a guarded slice of n elements, misaligned by shift elements
// against a 64-byte boundary.
func Guarded[T Number](n, shift int) *Guard[T] {
	var zero T
	size := int(unsafe.Sizeof(zero))
	line := 64 / size
	lead := line*((guardLen+line-1)/line) + shift
	buf := make([]T, line+lead+n+guardLen)
	skip := 0
	if r := int(uintptr(unsafe.Pointer(unsafe.SliceData(buf))) % 64); r != 0 {
		skip = (64 - r) / size
	}
	g := &Guard[T]{full: buf[skip:], lead: lead, mark: T(93)}
	for i := range g.full {
		g.full[i] = g.mark
	}
	g.Data = g.full[lead : lead+n : lead+n]
	clear(g.Data)
	return g
}

// Check returns an error when a guard value has changed.
func (g *Guard[T]) Check() error {
	for i, v := range g.full {
		if i >= g.lead && i < g.lead+len(g.Data) {
			continue
		}
		if v != g.mark {
			return fmt.Errorf("store outside the slice: element %d of [0,%d) became %v", i-g.lead, len(g.Data), v)
		}
	}
	return nil
}

// GradCheck compares the gradient of f at x with central differences
// (f(x+h)-f(x-h))/2h, h = step*max(1,|x|), at every element. f must not keep
// x. The tolerance is tol*max(1, |difference|).
func GradCheck(f func(x []float64) float64, x, grad []float64, step, tol float64) error {
	if len(grad) != len(x) {
		return fmt.Errorf("gradient has %d elements, x has %d", len(grad), len(x))
	}
	p := append([]float64(nil), x...)
	for i := range p {
		h := step * math.Max(1, math.Abs(x[i]))
		p[i] = x[i] + h
		up := f(p)
		p[i] = x[i] - h
		down := f(p)
		p[i] = x[i]
		want := (up - down) / (2 * h)
		if d := math.Abs(grad[i] - want); !(d <= tol*math.Max(1, math.Abs(want))) {
			return fmt.Errorf("gradient[%d] = %g, finite difference %g (step %g)", i, grad[i], want, h)
		}
	}
	return nil
}
