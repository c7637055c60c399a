package onnx

import (
	"github.com/narrow-ml/narrow/export/onnx/eval"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// isImage reports whether a tensor has the axes height, width and channels.
func isImage(s model.Shape) bool { return len(s) == 3 }

// onnxShape is the shape of one example in the file: [C, H, W] for an image [H, W, C].
func onnxShape(s model.Shape) []int64 {
	if isImage(s) {
		return []int64{int64(s[2]), int64(s[0]), int64(s[1])}
	}
	out := make([]int64, len(s))
	for i, d := range s {
		out[i] = int64(d)
	}
	return out
}

// channelsFirst reorders one example from h, w, c to c, h, w; tensors that are not images stay as they are.
func channelsFirst[T any](x []T, s model.Shape) []T {
	out := make([]T, len(x))
	if !isImage(s) {
		copy(out, x)
		return out
	}
	return permuted(out, x, s, 1)
}

// channelsFirstRows reorders the rows of a dense weight [H*W*C, units] that reads a flattened image: the file flattens
// c, h, w where the model flattens h, w, c. It is the only place where the two orders meet.
func channelsFirstRows[T any](w []T, image model.Shape, units int) []T {
	return permuted(make([]T, len(w)), w, image, units)
}

// permuted moves row (h*W+w)*C+c to row (c*H+h)*W+w, each of n elements.
func permuted[T any](dst, src []T, s model.Shape, n int) []T {
	from := 0
	for h := range s[0] {
		for w := range s[1] {
			for c := range s[2] {
				to := ((c*s[0]+h)*s[1] + w) * n
				copy(dst[to:to+n], src[from:from+n])
				from += n
			}
		}
	}
	return dst
}

// transposed turns [In, Out] into [Out, In].
func transposed[T any](w []T, units int) []T {
	if units == 0 {
		return nil
	}
	out := make([]T, len(w))
	in := len(w) / units
	for i, v := range w {
		out[i%units*in+i/units] = v
	}
	return out
}

// outputsFirst turns conv weights [KH, KW, I, O] into [O, I, KH, KW].
func outputsFirst[T any](w []T, s model.Shape) []T {
	taps, ins, outs := s[0]*s[1], s[2], s[3]
	out := make([]T, len(w))
	for i, v := range w {
		o, in, tap := i%outs, i/outs%ins, i/outs/ins
		out[(o*ins+in)*taps+tap] = v
	}
	return out
}

// InputTensor turns n examples of model input bytes (N, H, W, C) into the float32 input of the file (N, C, H, W):
// x = f32(s * (p - z)), of which the file's QuantizeLinear gives p back exactly. With a number of bytes that is not
// that of n examples the tensor contradicts its shape, which eval's Run reports.
func InputTensor(in model.Input, bytes []uint8, n int) eval.Tensor {
	var table [256]float32
	for p := range table {
		table[p] = quant.Mul32(in.Scale, float32(int32(p)-in.Zero))
	}
	shape, size := []int{n}, in.Shape.Size()
	for _, d := range onnxShape(in.Shape) {
		shape = append(shape, int(d))
	}
	values := make([]float32, 0, len(bytes))
	for len(bytes) >= size && size > 0 {
		for _, p := range channelsFirst(bytes[:size], in.Shape) {
			values = append(values, table[p])
		}
		bytes = bytes[size:]
	}
	return eval.FloatTensor(shape, values)
}
