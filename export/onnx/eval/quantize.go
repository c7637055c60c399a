package eval

import (
	"fmt"
	"math"

	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

// grid gives the position in scale and zero point of each element of a tensor: one for all, one per index of an axis,
// or one per block along the axis.
func grid(c *call, x, scale []int) (func(visit func(i, k int)), error) {
	n := count(x)
	each := func(at func(i int) int) func(visit func(i, k int)) {
		return func(visit func(i, k int)) {
			for i := range n {
				visit(i, at(i))
			}
		}
	}
	if count(scale) == 1 && len(scale) <= 1 {
		return each(func(int) int { return 0 }), nil
	}
	axis, err := axisOf(c.int("axis", 1), len(x), len(x)-1)
	if err != nil {
		return nil, err
	}
	inner := count(x[axis+1:])
	block := int(c.int("block_size", 0))
	if len(scale) == 1 && block == 0 {
		if scale[0] != x[axis] {
			return nil, fmt.Errorf("%w: %d scales along axis %d of %v", ErrModel, scale[0], axis, x)
		}
		return each(func(i int) int { return i / inner % x[axis] }), nil
	}
	bad := block < 1 || len(scale) != len(x)
	for a := 0; a < len(x) && !bad; a++ {
		want := x[a]
		if a == axis {
			want = (x[a] + block - 1) / block
		}
		bad = scale[a] != want
	}
	if bad {
		return nil, fmt.Errorf("%w: scale %v for %v with blocks of %d along axis %d", ErrModel, scale, x, block, axis)
	}
	return each(func(i int) int {
		return (i/inner/x[axis]*scale[axis]+i/inner%x[axis]/block)*inner + i%inner
	}), nil
}

// zeros returns the zero points, all 0 when the input is omitted.
func zeros(c *call, i int, scale *Tensor, typ onnxpb.DataType) ([]int64, onnxpb.DataType, error) {
	z := c.optional(i)
	if z == nil {
		return make([]int64, scale.Len()), typ, nil
	}
	if z.IsReal() || z.Len() != scale.Len() {
		return nil, 0, fmt.Errorf("%w: zero point %v%v for scale %v", ErrModel, z.Type, z.Shape, scale.Shape)
	}
	return z.Ints, z.Type, nil
}

// quantizeLinear is numerics D1: saturate(rint(x / s) + z), the division in the type of the scale.
func quantizeLinear(c *call) ([]Tensor, error) {
	x, err := c.arg(0)
	if err != nil {
		return nil, err
	}
	scale, err := c.reals(1)
	if err != nil {
		return nil, err
	}
	def := onnxpb.Uint8
	if d := c.int("output_dtype", 0); d != 0 {
		def = onnxpb.DataType(d)
	}
	zero, typ, err := zeros(c, 2, scale, def)
	if err != nil {
		return nil, err
	}
	lo, hi, ok := typ.IntRange()
	if !ok {
		return nil, fmt.Errorf("%w: quantizing to %v", ErrUnsupported, typ)
	}
	at, err := grid(c, x.Shape, scale.Shape)
	if err != nil {
		return nil, err
	}
	precision := scale.Type
	if d := c.int("precision", 0); d != 0 {
		precision = onnxpb.DataType(d)
	}
	out, err := newTensor(typ, x.Shape)
	if err != nil {
		return nil, err
	}
	at(func(i, k int) {
		v := 0.0
		if x.IsReal() {
			v = x.Reals[i]
		} else {
			v = float64(float32(x.Ints[i]))
		}
		q, fault := saturate(round(precision, v/scale.Reals[k]), lo-zero[k], hi-zero[k])
		if fault != nil && err == nil {
			err = fmt.Errorf("element %d: %w", i, fault)
		}
		out.Ints[i] = q + zero[k]
	})
	return one(out, err)
}

// dequantizeLinear is numerics D2: f32(q - z) * s.
func dequantizeLinear(c *call) ([]Tensor, error) {
	q, err := c.codes(0)
	if err != nil {
		return nil, err
	}
	scale, err := c.reals(1)
	if err != nil {
		return nil, err
	}
	zero, _, err := zeros(c, 2, scale, q.Type)
	if err != nil {
		return nil, err
	}
	at, err := grid(c, q.Shape, scale.Shape)
	if err != nil {
		return nil, err
	}
	typ := scale.Type
	if d := c.int("output_dtype", 0); d != 0 {
		typ = onnxpb.DataType(d)
		if !isReal(typ) {
			return nil, fmt.Errorf("%w: dequantizing to %v", ErrUnsupported, typ)
		}
	}
	out, err := newTensor(typ, q.Shape)
	if err != nil {
		return nil, err
	}
	at(func(i, k int) {
		out.Reals[i] = round(typ, float64(float32(q.Ints[i]-zero[k]))*scale.Reals[k])
	})
	return one(out, nil)
}

// dynamicQuantizeLinear quantizes to uint8 over the range of x extended to contain 0.
func dynamicQuantizeLinear(c *call) ([]Tensor, error) {
	x, err := c.reals(0)
	if err != nil {
		return nil, err
	}
	lo, hi := float32(0), float32(0)
	for _, v := range x.Reals {
		lo, hi = min(lo, float32(v)), max(hi, float32(v))
	}
	scale := float32(hi-lo) / 255
	zero := int64(0)
	if scale != 0 {
		z, err := saturate(float64(-lo/scale), 0, 255)
		if err != nil {
			return nil, err
		}
		zero = z
	}
	out, err := newTensor(onnxpb.Uint8, x.Shape)
	if err != nil {
		return nil, err
	}
	for i, v := range x.Reals {
		q := int64(0)
		if scale != 0 {
			if q, err = saturate(float64(float32(v)/scale), -zero, 255-zero); err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
		}
		out.Ints[i] = q + zero
	}
	return []Tensor{out, {Type: onnxpb.Float, Reals: []float64{float64(scale)}}, {Type: onnxpb.Uint8, Ints: []int64{zero}}}, nil
}

// centred subtracts zero points: one for all, or one per index of an axis.
func centred(q *Tensor, zero *Tensor, axis int) ([]int64, error) {
	if q.IsReal() || (zero != nil && zero.IsReal()) {
		return nil, fmt.Errorf("%w: an integer product of reals", ErrModel)
	}
	out := append([]int64{}, q.Ints...)
	if zero == nil {
		return out, nil
	}
	if zero.Len() == 1 {
		for i := range out {
			out[i] -= zero.Ints[0]
		}
		return out, nil
	}
	if len(zero.Shape) != 1 || axis < 0 || axis >= len(q.Shape) || zero.Shape[0] != q.Shape[axis] {
		return nil, fmt.Errorf("%w: zero point %v for %v", ErrUnsupported, zero.Shape, q.Shape)
	}
	inner := count(q.Shape[axis+1:])
	for i := range out {
		out[i] -= zero.Ints[i/inner%q.Shape[axis]]
	}
	return out, nil
}

// int32Result wraps sums as the operators with an int32 result do.
func int32Result(shape []int, acc []int64) Tensor {
	for i, v := range acc {
		acc[i] = int64(int32(v))
	}
	return Tensor{Type: onnxpb.Int32, Shape: shape, Ints: acc}
}

func convInteger(c *call) ([]Tensor, error) {
	acc, cv, err := integerConv(c, 0, 2, 1, 3, nil)
	if err != nil {
		return nil, err
	}
	return one(int32Result(cv.outShape(c.in[0].Shape), acc), nil)
}

// integerConv convolves the codes of inputs x and w, centred by their zero points.
func integerConv(c *call, ix, iz, iw, iwz int, bias []int64) ([]int64, *convolution, error) {
	x, err := c.codes(ix)
	if err != nil {
		return nil, nil, err
	}
	w, err := c.codes(iw)
	if err != nil {
		return nil, nil, err
	}
	cv, err := newConvolution(c, x.Shape, w.Shape)
	if err != nil {
		return nil, nil, err
	}
	if bias != nil && len(bias) != cv.m {
		return nil, nil, fmt.Errorf("%w: %d biases for %d channels", ErrModel, len(bias), cv.m)
	}
	if err := checkSize(cv.outShape(x.Shape)); err != nil {
		return nil, nil, err
	}
	cx, err := centred(x, c.optional(iz), -1)
	if err != nil {
		return nil, nil, err
	}
	cw, err := centred(w, c.optional(iwz), 0)
	if err != nil {
		return nil, nil, err
	}
	return convolve(cv, cx, cw, bias), cv, nil
}

// outShape is the result's shape, in as many axes as the input has.
func (cv *convolution) outShape(x []int) []int {
	out := []int{cv.n, cv.m}
	if len(x) == 4 {
		out = append(out, cv.win.out[0])
	}
	return append(out, cv.win.out[1])
}

func matMulInteger(c *call) ([]Tensor, error) {
	acc, shape, err := integerMatMul(c, 0, 2, 1, 3)
	if err != nil {
		return nil, err
	}
	return one(int32Result(shape.out, acc), nil)
}

func integerMatMul(c *call, ia, iaz, ib, ibz int) ([]int64, *matmulShape, error) {
	a, err := c.codes(ia)
	if err != nil {
		return nil, nil, err
	}
	b, err := c.codes(ib)
	if err != nil {
		return nil, nil, err
	}
	shape, err := newMatmul(a.Shape, b.Shape)
	if err != nil {
		return nil, nil, err
	}
	if err := checkSize(shape.out); err != nil {
		return nil, nil, err
	}
	ca, err := centred(a, c.optional(iaz), len(a.Shape)-2)
	if err != nil {
		return nil, nil, err
	}
	cb, err := centred(b, c.optional(ibz), len(b.Shape)-1)
	if err != nil {
		return nil, nil, err
	}
	return matmul(shape, ca, cb), shape, nil
}

// qlinearConv has inputs x, s_x, z_x, w, s_w, z_w, s_y, z_y, bias.
func qlinearConv(c *call) ([]Tensor, error) {
	var bias []int64
	if b := c.optional(8); b != nil {
		bias = b.Ints
	}
	acc, cv, err := integerConv(c, 0, 2, 3, 5, bias)
	if err != nil {
		return nil, err
	}
	return requantizeNode(c, acc, cv.outShape(c.in[0].Shape), 1, 1, 4, 6)
}

// qlinearMatMul has inputs a, s_a, z_a, b, s_b, z_b, s_y, z_y.
func qlinearMatMul(c *call) ([]Tensor, error) {
	acc, shape, err := integerMatMul(c, 0, 2, 3, 5)
	if err != nil {
		return nil, err
	}
	return requantizeNode(c, acc, shape.out, len(shape.out)-1, 1, 4, 6)
}

// requantizeNode brings sums to the output's codes with M = f32(f32(s_x * s_w[c]) / s_y), c along axis.
func requantizeNode(c *call, acc []int64, shape []int, axis, isx, isw, isy int) ([]Tensor, error) {
	var s [3]*Tensor
	for k, i := range []int{isx, isw, isy} {
		t, err := c.reals(i)
		if err != nil {
			return nil, err
		}
		s[k] = t
	}
	zero, err := c.codes(isy + 1)
	if err != nil {
		return nil, err
	}
	lo, hi, ok := zero.Type.IntRange()
	if !ok || zero.Len() != 1 || s[2].Len() != 1 || s[0].Len() != 1 {
		return nil, fmt.Errorf("%w: scales and zero points per row", ErrUnsupported)
	}
	inner, channels := 1, s[1].Len()
	if channels > 1 {
		if axis < 0 || channels != shape[axis] {
			return nil, fmt.Errorf("%w: %d weight scales for a result of shape %v", ErrModel, channels, shape)
		}
		inner = count(shape[axis+1:])
	}
	m := make([]float32, channels)
	for k := range m {
		m[k] = float32(float32(s[0].Reals[0])*float32(s[1].Reals[k])) / float32(s[2].Reals[0])
	}
	out, err := newTensor(zero.Type, shape)
	if err != nil {
		return nil, err
	}
	z := zero.Ints[0]
	for i, v := range acc {
		if v < math.MinInt32 || v > math.MaxInt32 {
			return nil, fmt.Errorf("%w: the sum %d leaves int32", ErrModel, v)
		}
		q, err := saturate(float64(float32(float32(v)*m[i/inner%channels])), lo-z, hi-z)
		if err != nil {
			return nil, err
		}
		out.Ints[i] = q + z
	}
	return one(out, nil)
}
