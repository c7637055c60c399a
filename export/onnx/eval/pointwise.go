package eval

import (
	"fmt"
	"math"

	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

func unary(c *call) ([]Tensor, error) {
	x, err := c.arg(0)
	if err != nil {
		return nil, err
	}
	y, err := newTensor(x.Type, x.Shape)
	if err != nil {
		return nil, err
	}
	if !x.IsReal() {
		if c.node.Op != "Relu" {
			return nil, fmt.Errorf("%w: %s of %v", ErrUnsupported, c.node.Op, x.Type)
		}
		for i, v := range x.Ints {
			y.Ints[i] = max(0, v)
		}
		return one(y, nil)
	}
	f := func(v float64) float64 { return max(0, v) }
	switch c.node.Op {
	case "Exp":
		f = exp
	case "Sigmoid":
		f = sigmoid
	case "Tanh":
		f = tanh
	case "Round":
		f = math.RoundToEven
	}
	for i, v := range x.Reals {
		y.Reals[i] = round(y.Type, f(v))
	}
	return one(y, nil)
}

// clip limits to [min, max], the upper limit last; before opset 11 the limits are attributes.
func clip(c *call) ([]Tensor, error) {
	x, err := c.arg(0)
	if err != nil {
		return nil, err
	}
	lo, hi := math.Inf(-1), math.Inf(1)
	for i, limit := range []*float64{&lo, &hi} {
		if c.opset < 11 {
			*limit = c.float([]string{"min", "max"}[i], float32(*limit))
			continue
		}
		t := c.optional(i + 1)
		if t == nil {
			continue
		}
		if t.Type != x.Type || t.Len() != 1 {
			return nil, fmt.Errorf("%w: limit %v%v for %v", ErrModel, t.Type, t.Shape, x.Type)
		}
		if t.IsReal() {
			*limit = t.Reals[0]
		} else {
			*limit = float64(t.Ints[0])
		}
	}
	y, err := newTensor(x.Type, x.Shape)
	if err != nil {
		return nil, err
	}
	for i, v := range x.Reals {
		y.Reals[i] = min(max(v, lo), hi)
	}
	for i, v := range x.Ints {
		y.Ints[i] = int64(min(max(float64(v), lo), hi))
	}
	return one(y, nil)
}

// softmax along one axis; before opset 13 over all axes from it on.
func softmax(c *call) ([]Tensor, error) {
	x, err := c.reals(0)
	if err != nil {
		return nil, err
	}
	def := int64(-1)
	if c.opset < 13 {
		def = 1
	}
	axis, err := axisOf(c.int("axis", def), len(x.Shape), len(x.Shape)-1)
	if err != nil {
		return nil, err
	}
	n, inner := x.Shape[axis], count(x.Shape[axis+1:])
	if c.opset < 13 {
		n, inner = n*inner, 1
	}
	y, err := newTensor(x.Type, x.Shape)
	if err != nil || y.Len() == 0 {
		return one(y, err)
	}
	for outer := range y.Len() / (n * inner) {
		for j := range inner {
			base := outer*n*inner + j
			top, sum := math.Inf(-1), 0.0
			for k := range n {
				top = max(top, x.Reals[base+k*inner])
			}
			for k := range n {
				e := exp(x.Reals[base+k*inner] - top)
				y.Reals[base+k*inner] = e
				sum += e
			}
			for k := range n {
				y.Reals[base+k*inner] = round(y.Type, y.Reals[base+k*inner]/sum)
			}
		}
	}
	return one(y, nil)
}

// legacyBroadcast gives b the shape that opsets before 7 mean by broadcast=1 and axis.
func legacyBroadcast(c *call, a, b *Tensor) (*Tensor, error) {
	if c.opset >= 7 || c.int("broadcast", 0) == 0 || len(b.Shape) == 0 {
		return b, nil
	}
	axis, err := axisOf(c.int("axis", int64(len(a.Shape)-len(b.Shape))), len(a.Shape), len(a.Shape)-len(b.Shape))
	if err != nil {
		return nil, err
	}
	shape := append([]int{}, b.Shape...)
	for len(shape)+axis < len(a.Shape) {
		shape = append(shape, 1)
	}
	return &Tensor{Type: b.Type, Shape: shape, Reals: b.Reals, Ints: b.Ints}, nil
}

// elementwise is Add, Sub, Mul, Div of two tensors, Min and Max of any number, with broadcasting.
func elementwise(c *call) ([]Tensor, error) {
	a, err := c.arg(0)
	if err != nil {
		return nil, err
	}
	acc := *a
	for i := 1; i < len(c.in); i++ {
		b, err := c.arg(i)
		if err != nil {
			return nil, err
		}
		if b, err = legacyBroadcast(c, &acc, b); err != nil {
			return nil, err
		}
		if acc, err = combine(c.node.Op, &acc, b); err != nil {
			return nil, err
		}
	}
	if len(c.in) != 2 && c.node.Op != "Min" && c.node.Op != "Max" {
		return nil, fmt.Errorf("%w: %d inputs", ErrModel, len(c.in))
	}
	return one(acc, nil)
}

func combine(op string, a, b *Tensor) (Tensor, error) {
	if a.Type != b.Type {
		return Tensor{}, fmt.Errorf("%w: %s of %v and %v", ErrModel, op, a.Type, b.Type)
	}
	shape, err := broadcast(a.Shape, b.Shape)
	if err != nil {
		return Tensor{}, err
	}
	y, err := newTensor(a.Type, shape)
	if err != nil {
		return Tensor{}, err
	}
	from := make([]int, y.Len())
	walk(shape, a.Shape, func(i, j int) { from[i] = j })
	if a.IsReal() {
		f := realOps(op)
		walk(shape, b.Shape, func(i, j int) { y.Reals[i] = round(y.Type, f(a.Reals[from[i]], b.Reals[j])) })
		return y, nil
	}
	f := intOps(op)
	walk(shape, b.Shape, func(i, j int) {
		if op == "Div" && b.Ints[j] == 0 {
			err = fmt.Errorf("%w: element %d: integer division by zero", ErrModel, i)
			return
		}
		y.Ints[i] = wrap(y.Type, f(a.Ints[from[i]], b.Ints[j]))
	})
	return y, err
}

func realOps(op string) func(a, b float64) float64 {
	switch op {
	case "Add":
		return func(a, b float64) float64 { return a + b }
	case "Sub":
		return func(a, b float64) float64 { return a - b }
	case "Mul":
		return func(a, b float64) float64 { return a * b }
	case "Div":
		return func(a, b float64) float64 { return a / b }
	case "Min":
		return func(a, b float64) float64 { return min(a, b) }
	}
	return func(a, b float64) float64 { return max(a, b) }
}

func intOps(op string) func(a, b int64) int64 {
	switch op {
	case "Add":
		return func(a, b int64) int64 { return a + b }
	case "Sub":
		return func(a, b int64) int64 { return a - b }
	case "Mul":
		return func(a, b int64) int64 { return a * b }
	case "Div":
		return func(a, b int64) int64 { return a / b }
	case "Min":
		return func(a, b int64) int64 { return min(a, b) }
	}
	return func(a, b int64) int64 { return max(a, b) }
}

// reduceExtreme is ReduceMin and ReduceMax over all axes, the form that function bodies use.
func reduceExtreme(c *call) ([]Tensor, error) {
	x, err := c.reals(0)
	if err != nil {
		return nil, err
	}
	if axes, ok, err := c.list(1, "axes"); err != nil || ok {
		return nil, fmt.Errorf("%w: reduction over axes %v only (%v)", ErrUnsupported, axes, err)
	}
	var shape []int
	if c.int("keepdims", 1) != 0 {
		for range x.Shape {
			shape = append(shape, 1)
		}
	}
	if len(x.Reals) == 0 {
		return nil, fmt.Errorf("%w: the extreme of no elements", ErrModel)
	}
	v := x.Reals[0]
	for _, r := range x.Reals {
		if c.node.Op == "ReduceMin" {
			v = min(v, r)
		} else {
			v = max(v, r)
		}
	}
	return one(Tensor{Type: x.Type, Shape: shape, Reals: []float64{v}}, nil)
}

// cast converts elements: to reals by rounding, to integers by truncation and keeping the low bits.
func cast(c *call) ([]Tensor, error) {
	x, err := c.arg(0)
	if err != nil {
		return nil, err
	}
	to := onnxpb.DataType(c.int("to", 0))
	y, err := newTensor(to, x.Shape)
	if err != nil {
		return nil, err
	}
	for i := range y.Len() {
		switch {
		case x.IsReal() && y.IsReal():
			y.Reals[i] = round(to, x.Reals[i])
		case y.IsReal():
			y.Reals[i] = round(to, float64(x.Ints[i]))
		case to == onnxpb.Bool:
			if (x.IsReal() && x.Reals[i] != 0) || (!x.IsReal() && x.Ints[i] != 0) {
				y.Ints[i] = 1
			}
		case x.IsReal():
			v := x.Reals[i]
			if !(math.Abs(v) < 1<<62) {
				return nil, fmt.Errorf("%w: element %d: %v has no integer", ErrUnsupported, i, v)
			}
			y.Ints[i] = wrap(to, int64(v))
		default:
			y.Ints[i] = wrap(to, x.Ints[i])
		}
	}
	return one(y, nil)
}

func identity(c *call) ([]Tensor, error) {
	x, err := c.arg(0)
	if err != nil {
		return nil, err
	}
	return []Tensor{*x}, nil
}

func constant(c *call) ([]Tensor, error) {
	for _, a := range c.node.Attrs {
		switch {
		case a.Name == "value" && a.Tensor != nil:
			return one(decode(a.Tensor))
		case a.Name == "value_float":
			return one(Tensor{Type: onnxpb.Float, Reals: []float64{float64(a.Float)}}, nil)
		case a.Name == "value_floats":
			return one(FloatTensor([]int{len(a.Floats)}, a.Floats), nil)
		case a.Name == "value_int":
			return one(Tensor{Type: onnxpb.Int64, Ints: []int64{a.Int}}, nil)
		case a.Name == "value_ints":
			return one(Tensor{Type: onnxpb.Int64, Shape: []int{len(a.Ints)}, Ints: append([]int64{}, a.Ints...)}, nil)
		}
	}
	return nil, fmt.Errorf("%w: a constant without a numeric value", ErrUnsupported)
}
