package eval

import (
	"fmt"
	"math"

	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

// finite refuses factors whose product with a skipped zero would not be zero.
func finite(what string, v []float64) error {
	for i, x := range v {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("%w: %s[%d] is %v", ErrUnsupported, what, i, x)
		}
	}
	return nil
}

// conv is Conv over one or two spatial axes.
func conv(c *call) ([]Tensor, error) {
	x, err := c.reals(0)
	if err != nil {
		return nil, err
	}
	w, err := c.reals(1)
	if err != nil {
		return nil, err
	}
	cv, err := newConvolution(c, x.Shape, w.Shape)
	if err != nil {
		return nil, err
	}
	var bias []float64
	if b := c.optional(2); b != nil {
		if bias = b.Reals; len(bias) != cv.m {
			return nil, fmt.Errorf("%w: bias %v%v for %d channels", ErrModel, b.Type, b.Shape, cv.m)
		}
	}
	shape := cv.outShape(x.Shape)
	if err := checkSize(shape); err != nil {
		return nil, err
	}
	if err := finite("weight", w.Reals); err != nil {
		return nil, err
	}
	return one(roundAll(Tensor{Type: x.Type, Shape: shape, Reals: convolve(cv, x.Reals, w.Reals, bias)}), nil)
}

// gemm is alpha * A' * B' + beta * C.
func gemm(c *call) ([]Tensor, error) {
	a, err := c.reals(0)
	if err != nil {
		return nil, err
	}
	b, err := c.reals(1)
	if err != nil {
		return nil, err
	}
	if len(a.Shape) != 2 || len(b.Shape) != 2 {
		return nil, fmt.Errorf("%w: Gemm of %v and %v", ErrModel, a.Shape, b.Shape)
	}
	ta, tb := *a, *b
	if c.int("transA", 0) != 0 {
		ta = permute(ta, []int{1, 0})
	}
	if c.int("transB", 0) != 0 {
		tb = permute(tb, []int{1, 0})
	}
	n, k, m := ta.Shape[0], ta.Shape[1], tb.Shape[1]
	shape := []int{n, m}
	if tb.Shape[0] != k {
		return nil, fmt.Errorf("%w: Gemm of %v and %v", ErrModel, a.Shape, b.Shape)
	}
	if err := checkSize(shape); err != nil {
		return nil, err
	}
	if err := finite("B", tb.Reals); err != nil {
		return nil, err
	}
	y := Tensor{Type: a.Type, Shape: shape, Reals: multiply(ta.Reals, tb.Reals, n, k, m)}
	alpha, beta := c.float("alpha", 1), c.float("beta", 1)
	for i, v := range y.Reals {
		y.Reals[i] = float64(alpha * v)
	}
	if bias := c.optional(2); bias != nil {
		if got, err := broadcast(shape, bias.Shape); err != nil || !bias.IsReal() || count(got) != n*m || len(got) != 2 {
			return nil, fmt.Errorf("%w: Gemm's C is %v%v for a result of %v", ErrModel, bias.Type, bias.Shape, shape)
		}
		walk(shape, bias.Shape, func(i, j int) { y.Reals[i] += float64(beta * bias.Reals[j]) })
	}
	return one(roundAll(y), nil)
}

func matMul(c *call) ([]Tensor, error) {
	a, err := c.arg(0)
	if err != nil {
		return nil, err
	}
	b, err := c.arg(1)
	if err != nil {
		return nil, err
	}
	if a.Type != b.Type {
		return nil, fmt.Errorf("%w: MatMul of %v and %v", ErrModel, a.Type, b.Type)
	}
	shape, err := newMatmul(a.Shape, b.Shape)
	if err != nil {
		return nil, err
	}
	if err := checkSize(shape.out); err != nil {
		return nil, err
	}
	if !a.IsReal() {
		y := Tensor{Type: a.Type, Shape: shape.out, Ints: matmul(shape, a.Ints, b.Ints)}
		for i, v := range y.Ints {
			y.Ints[i] = wrap(y.Type, v)
		}
		return one(y, nil)
	}
	if err := finite("B", b.Reals); err != nil {
		return nil, err
	}
	return one(roundAll(Tensor{Type: a.Type, Shape: shape.out, Reals: matmul(shape, a.Reals, b.Reals)}), nil)
}

// batchNormalization is scale * (x - mean) / sqrt(var + epsilon) + bias; in training mode with the batch's statistics.
func batchNormalization(c *call) ([]Tensor, error) {
	x, err := c.reals(0)
	if err != nil {
		return nil, err
	}
	if len(x.Shape) < 2 {
		return nil, fmt.Errorf("%w: input %v has no channel axis", ErrModel, x.Shape)
	}
	channels, inner := x.Shape[1], count(x.Shape[2:])
	var p [4][]float64 // scale, bias, mean, variance
	for k := range p {
		t, err := c.reals(k + 1)
		if err != nil {
			return nil, err
		}
		if p[k] = t.Reals; len(p[k]) != channels {
			return nil, fmt.Errorf("%w: input %d has %d values for %d channels", ErrModel, k+1, len(p[k]), channels)
		}
	}
	eps, training := c.float("epsilon", 1e-5), c.int("training_mode", 0) != 0
	mean, variance := p[2], p[3]
	if training {
		mean, variance = moments(x, channels, inner)
	}
	y, err := newTensor(x.Type, x.Shape)
	if err != nil {
		return nil, err
	}
	for i, v := range x.Reals {
		k := i / inner % channels
		y.Reals[i] = float64((v-mean[k])/math.Sqrt(variance[k]+eps)*p[0][k]) + p[1][k]
	}
	out := []Tensor{roundAll(y)}
	if training {
		momentum := c.float("momentum", 0.9)
		for k, batch := range [][]float64{mean, variance} {
			running := Tensor{Type: x.Type, Shape: []int{channels}, Reals: make([]float64, channels)}
			for j := range running.Reals {
				running.Reals[j] = float64(p[2+k][j]*momentum) + float64(batch[j]*(1-momentum))
			}
			out = append(out, roundAll(running))
		}
	}
	return out, nil
}

// moments are mean and variance (over N) per channel.
func moments(x *Tensor, channels, inner int) (mean, variance []float64) {
	mean, variance = make([]float64, channels), make([]float64, channels)
	n := float64(max(1, x.Shape[0]*inner))
	for i, v := range x.Reals {
		mean[i/inner%channels] += v
	}
	for k := range mean {
		mean[k] /= n
	}
	for i, v := range x.Reals {
		d := v - mean[i/inner%channels]
		variance[i/inner%channels] += float64(d * d)
	}
	for k := range variance {
		variance[k] /= n
	}
	return mean, variance
}

// maxPool takes the first maximum of each window in row-major order; padding never wins.
func maxPool(c *call) ([]Tensor, error) {
	x, err := c.arg(0)
	if err != nil {
		return nil, err
	}
	if len(x.Shape) < 3 {
		return nil, fmt.Errorf("%w: a pool over %v", ErrModel, x.Shape)
	}
	w, err := newWindow(c, x.Shape[2:], nil)
	if err != nil {
		return nil, err
	}
	y, err := newTensor(x.Type, append(append([]int{}, x.Shape[:2]...), w.out...))
	if err != nil {
		return nil, err
	}
	where, err := newTensor(onnxpb.Int64, y.Shape)
	if err != nil {
		return nil, err
	}
	cells, size := count(w.in), count(w.out)
	best := make([]int, size)
	for p := range x.Shape[0] * x.Shape[1] {
		for i := range best {
			best[i] = -1
		}
		base := p * cells
		w.cells(func(o, i int) {
			if i < 0 {
				return
			}
			b := best[o]
			if b < 0 || (x.Reals != nil && x.Reals[base+i] > x.Reals[base+b]) || (x.Ints != nil && x.Ints[base+i] > x.Ints[base+b]) {
				best[o] = i
			}
		})
		for o, b := range best {
			if b < 0 {
				return nil, fmt.Errorf("%w: a pool window lies wholly in padding", ErrModel)
			}
			if x.IsReal() {
				y.Reals[p*size+o] = x.Reals[base+b]
			} else {
				y.Ints[p*size+o] = x.Ints[base+b]
			}
			where.Ints[p*size+o] = int64(base + order(b, w.in, c.int("storage_order", 0) != 0))
		}
	}
	if len(c.node.Outputs) < 2 {
		return one(y, nil)
	}
	return []Tensor{y, where}, nil
}

// order turns a row-major index into a column-major one if asked.
func order(i int, shape []int, columns bool) int {
	if !columns {
		return i
	}
	out, step := 0, count(shape)
	for a := len(shape) - 1; a >= 0; a-- {
		step /= shape[a]
		out += i % shape[a] * step
		i /= shape[a]
	}
	return out
}

// averagePool is the mean over the real cells, or over all cells with count_include_pad.
func averagePool(c *call) ([]Tensor, error) {
	x, err := c.reals(0)
	if err != nil {
		return nil, err
	}
	sum, n, err := poolSums(c, x.Shape, func(p, i int) float64 { return x.Reals[p+i] })
	if err != nil {
		return nil, err
	}
	y, err := newTensor(x.Type, sum.shape)
	if err != nil {
		return nil, err
	}
	for i := range y.Reals {
		y.Reals[i] = sum.at[i] / float64(n[i%len(n)])
	}
	return one(roundAll(y), nil)
}

// sums holds the totals of pool windows.
type sums[T number] struct {
	shape []int
	at    []T
}

// poolSums adds up the windows of AveragePool; n is the divisor of each output position, the same for all channels.
func poolSums[T number](c *call, shape []int, at func(plane, i int) T) (sums[T], []int, error) {
	var s sums[T]
	if len(shape) < 3 {
		return s, nil, fmt.Errorf("%w: a pool over %v", ErrModel, shape)
	}
	w, err := newWindow(c, shape[2:], nil)
	if err != nil {
		return s, nil, err
	}
	s.shape = append(append([]int{}, shape[:2]...), w.out...)
	if err := checkSize(s.shape); err != nil {
		return s, nil, err
	}
	cells, size := count(w.in), count(w.out)
	n := make([]int, size)
	padded := c.int("count_include_pad", 0) != 0
	w.cells(func(o, i int) {
		if i >= 0 || padded {
			n[o]++
		}
	})
	for _, k := range n {
		if k == 0 {
			return s, nil, fmt.Errorf("%w: a pool window lies wholly in padding", ErrModel)
		}
	}
	s.at = make([]T, count(s.shape))
	for p := range shape[0] * shape[1] {
		w.cells(func(o, i int) {
			if i >= 0 {
				s.at[p*size+o] += at(p*cells, i)
			}
		})
	}
	return s, n, nil
}

func globalAveragePool(c *call) ([]Tensor, error) {
	x, err := c.reals(0)
	if err != nil {
		return nil, err
	}
	if len(x.Shape) < 3 || count(x.Shape[2:]) == 0 {
		return nil, fmt.Errorf("%w: a pool over %v", ErrModel, x.Shape)
	}
	y, err := newTensor(x.Type, globalShape(x.Shape))
	if err != nil {
		return nil, err
	}
	n := count(x.Shape[2:])
	for i, v := range x.Reals {
		y.Reals[i/n] += v
	}
	for i := range y.Reals {
		y.Reals[i] /= float64(n)
	}
	return one(roundAll(y), nil)
}

func globalShape(x []int) []int {
	out := append([]int{}, x[:2]...)
	for range x[2:] {
		out = append(out, 1)
	}
	return out
}
