package eval

import (
	"fmt"
	"slices"
)

// view gives the same elements another shape.
func view(t *Tensor, shape []int) ([]Tensor, error) {
	if err := checkSize(shape); err != nil {
		return nil, err
	}
	if count(shape) != t.Len() {
		return nil, fmt.Errorf("%w: %v does not reshape to %v", ErrModel, t.Shape, shape)
	}
	return []Tensor{{Type: t.Type, Shape: shape, Reals: t.Reals, Ints: t.Ints}}, nil
}

func flatten(c *call) ([]Tensor, error) {
	x, err := c.arg(0)
	if err != nil {
		return nil, err
	}
	axis, err := axisOf(c.int("axis", 1), len(x.Shape), len(x.Shape))
	if err != nil {
		return nil, err
	}
	return view(x, []int{count(x.Shape[:axis]), count(x.Shape[axis:])})
}

func reshape(c *call) ([]Tensor, error) {
	x, err := c.arg(0)
	if err != nil {
		return nil, err
	}
	want, ok, err := c.list(1, "shape")
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%w: no shape", ErrModel)
	}
	shape, free, known := make([]int, len(want)), -1, 1
	for i, d := range want {
		switch {
		case d == -1 && free < 0:
			free = i
			continue
		case d == 0 && c.int("allowzero", 0) == 0:
			if i >= len(x.Shape) {
				return nil, fmt.Errorf("%w: %v does not reshape to %v", ErrModel, x.Shape, want)
			}
			shape[i] = x.Shape[i]
		case d < 0 || d > maxElements:
			return nil, fmt.Errorf("%w: shape %v", ErrModel, want)
		default:
			shape[i] = int(d)
		}
		if shape[i] > 0 && known > maxElements/shape[i] {
			return nil, fmt.Errorf("%w: shape %v", ErrModel, want)
		}
		known *= shape[i]
	}
	if free >= 0 {
		if known == 0 {
			return nil, fmt.Errorf("%w: %v does not reshape to %v", ErrModel, x.Shape, want)
		}
		shape[free] = x.Len() / known
	}
	return view(x, shape)
}

// squeeze is Squeeze and Unsqueeze.
func squeeze(c *call) ([]Tensor, error) {
	x, err := c.arg(0)
	if err != nil {
		return nil, err
	}
	axes, given, err := c.list(1, "axes")
	if err != nil {
		return nil, err
	}
	grow := c.node.Op == "Unsqueeze"
	rank := len(x.Shape)
	if grow {
		rank += len(axes)
	}
	mark := make([]bool, rank)
	for _, a := range axes {
		i, err := axisOf(a, rank, rank-1)
		if err != nil {
			return nil, err
		}
		if mark[i] {
			return nil, fmt.Errorf("%w: axis %d twice", ErrModel, a)
		}
		mark[i] = true
	}
	var shape []int
	next := 0
	for i := range rank {
		switch {
		case grow && mark[i]:
			shape = append(shape, 1)
		case grow:
			shape = append(shape, x.Shape[next])
			next++
		case mark[i] && x.Shape[i] != 1:
			return nil, fmt.Errorf("%w: axis %d of %v is not 1", ErrModel, i, x.Shape)
		case mark[i] || (!given && x.Shape[i] == 1):
		default:
			shape = append(shape, x.Shape[i])
		}
	}
	return view(x, shape)
}

func transpose(c *call) ([]Tensor, error) {
	x, err := c.arg(0)
	if err != nil {
		return nil, err
	}
	r := len(x.Shape)
	perm := make([]int, r)
	seen := make([]bool, r)
	p, ok := c.ints("perm")
	if ok && len(p) != r {
		return nil, fmt.Errorf("%w: perm %v for %v", ErrModel, p, x.Shape)
	}
	for i := range perm {
		perm[i] = r - 1 - i
		if ok {
			a, err := axisOf(p[i], r, r-1)
			if err != nil {
				return nil, err
			}
			perm[i] = a
		}
		if seen[perm[i]] {
			return nil, fmt.Errorf("%w: perm %v", ErrModel, p)
		}
		seen[perm[i]] = true
	}
	return one(permute(*x, perm), nil)
}

func concat(c *call) ([]Tensor, error) {
	first, err := c.arg(0)
	if err != nil {
		return nil, err
	}
	axis, err := axisOf(c.int("axis", 1), len(first.Shape), len(first.Shape)-1)
	if err != nil {
		return nil, err
	}
	shape := append([]int{}, first.Shape...)
	shape[axis] = 0
	for i := range c.in {
		t, err := c.arg(i)
		if err != nil {
			return nil, err
		}
		same := t.Type == first.Type && len(t.Shape) == len(shape)
		for a := 0; a < len(shape) && same; a++ {
			same = a == axis || t.Shape[a] == shape[a]
		}
		if !same {
			return nil, fmt.Errorf("%w: joining %v%v and %v%v along axis %d", ErrModel, first.Type, first.Shape, t.Type, t.Shape, axis)
		}
		shape[axis] += t.Shape[axis]
	}
	y, err := newTensor(first.Type, shape)
	if err != nil {
		return nil, err
	}
	row := count(shape[axis:])
	at := 0
	for _, t := range c.in {
		n := count(t.Shape[axis:])
		for o := range count(shape[:axis]) {
			if t.IsReal() {
				copy(y.Reals[o*row+at:], t.Reals[o*n:(o+1)*n])
			} else {
				copy(y.Ints[o*row+at:], t.Ints[o*n:(o+1)*n])
			}
		}
		at += n
	}
	return one(y, nil)
}

func slice(c *call) ([]Tensor, error) {
	x, err := c.arg(0)
	if err != nil {
		return nil, err
	}
	var lists [4][]int64
	var given [4]bool
	for i, name := range []string{"starts", "ends", "axes", "steps"} {
		if lists[i], given[i], err = c.list(i+1, name); err != nil {
			return nil, err
		}
		if given[i] && len(lists[i]) != len(lists[0]) {
			return nil, fmt.Errorf("%w: %d starts and %d %s", ErrModel, len(lists[0]), len(lists[i]), name)
		}
	}
	if !given[0] || !given[1] {
		return nil, fmt.Errorf("%w: starts or ends missing", ErrModel)
	}
	shape, step, offset := append([]int{}, x.Shape...), strides(x.Shape), 0
	var used []int
	for i := range lists[0] {
		axis, by := i, int64(1)
		if given[2] {
			if axis, err = axisOf(lists[2][i], len(x.Shape), len(x.Shape)-1); err != nil {
				return nil, err
			}
		}
		if given[3] {
			by = lists[3][i]
		}
		if axis >= len(shape) || by == 0 || by < -maxElements || slices.Contains(used, axis) {
			return nil, fmt.Errorf("%w: starts %v, axes %v, steps %v for %v", ErrModel, lists[0], lists[2], lists[3], x.Shape)
		}
		used = append(used, axis)
		first, n := span(lists[0][i], lists[1][i], by, int64(x.Shape[axis]))
		if n == 0 {
			first = 0
		}
		offset += int(first) * step[axis]
		shape[axis] = int(n)
		if n < 2 {
			by = 1
		}
		step[axis] *= int(by)
	}
	return one(gatherSteps(*x, shape, step, offset))
}

// span resolves start:end:by over n elements as numpy does.
func span(start, end, by, n int64) (first, length int64) {
	at := func(v, lo, hi int64) int64 {
		if v < 0 {
			v += n
		}
		return min(max(v, lo), hi)
	}
	if by > 0 {
		first, end = at(start, 0, n), at(end, 0, n)
		return first, max(0, (end-first-1)/by+1) * b2i(end > first)
	}
	first, end = at(start, -1, n-1), at(end, -1, n-1)
	return first, max(0, (first-end-1)/-by+1) * b2i(first > end)
}

func b2i(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// gather takes rows of x by index along an axis.
func gather(c *call) ([]Tensor, error) {
	x, err := c.arg(0)
	if err != nil {
		return nil, err
	}
	ids, err := c.codes(1)
	if err != nil {
		return nil, err
	}
	axis, err := axisOf(c.int("axis", 0), len(x.Shape), len(x.Shape)-1)
	if err != nil {
		return nil, err
	}
	shape := append(append(append([]int{}, x.Shape[:axis]...), ids.Shape...), x.Shape[axis+1:]...)
	y, err := newTensor(x.Type, shape)
	if err != nil {
		return nil, err
	}
	n, inner := int64(x.Shape[axis]), count(x.Shape[axis+1:])
	for o := range count(x.Shape[:axis]) {
		for i, id := range ids.Ints {
			if id < 0 {
				id += n
			}
			if id < 0 || id >= n {
				return nil, fmt.Errorf("%w: index %d of %d", ErrModel, ids.Ints[i], n)
			}
			to, from := (o*len(ids.Ints)+i)*inner, (o*int(n)+int(id))*inner
			if x.IsReal() {
				copy(y.Reals[to:to+inner], x.Reals[from:])
			} else {
				copy(y.Ints[to:to+inner], x.Ints[from:])
			}
		}
	}
	return one(y, nil)
}
