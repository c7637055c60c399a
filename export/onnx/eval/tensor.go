package eval

import (
	"errors"
	"fmt"
	"math"

	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

// Errors of this package wrap one of these.
var (
	// ErrModel marks a file that breaks the rules of ONNX: shapes that disagree, a missing input, a wrong type.
	ErrModel = errors.New("invalid model")
	// ErrUnsupported marks a correct file that needs something this interpreter does not have.
	ErrUnsupported = errors.New("not supported by the interpreter")
	// ErrNotInteger marks a group of nodes that has no reading as integers.
	ErrNotInteger = errors.New("no integer reading")
)

// maxElements bounds every tensor that is computed, so that a hostile pad or shape cannot exhaust the memory.
const maxElements = 1 << 28

// Tensor is an array in row-major order. Reals holds the elements of Float, Double, Float16 and BFloat16 tensors, each
// representable in its type; Ints those of the integer types and of Bool (0 or 1).
type Tensor struct {
	Type  onnxpb.DataType
	Shape []int
	Reals []float64
	Ints  []int64
}

// FloatTensor makes a Float tensor that holds a copy of v.
func FloatTensor(shape []int, v []float32) Tensor {
	t := Tensor{Type: onnxpb.Float, Shape: shape, Reals: make([]float64, len(v))}
	for i, x := range v {
		t.Reals[i] = float64(x)
	}
	return t
}

// IsReal tells whether the elements are in Reals.
func (t Tensor) IsReal() bool { return isReal(t.Type) }

func isReal(d onnxpb.DataType) bool {
	return d == onnxpb.Float || d == onnxpb.Double || d == onnxpb.Float16 || d == onnxpb.BFloat16
}

func isInt(d onnxpb.DataType) bool {
	_, _, ok := d.IntRange()
	return ok || d == onnxpb.Int64 || d == onnxpb.Bool
}

// Len is the number of elements.
func (t Tensor) Len() int { return count(t.Shape) }

// Float32s returns the elements of a Float tensor.
func (t Tensor) Float32s() []float32 {
	out := make([]float32, len(t.Reals))
	for i, v := range t.Reals {
		out[i] = float32(v)
	}
	return out
}

// ChannelsLast returns the tensor with axis 1 moved to the end: N, C, H, W becomes N, H, W, C. Tensors of rank below 3
// come back as they are.
func (t Tensor) ChannelsLast() Tensor {
	r := len(t.Shape)
	if r < 3 {
		return t
	}
	perm := []int{0}
	for i := 2; i < r; i++ {
		perm = append(perm, i)
	}
	return permute(t, append(perm, 1))
}

func count(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// checkSize refuses a shape that no result may have.
func checkSize(shape []int) error {
	n := 1
	for _, s := range shape {
		if s < 0 {
			return fmt.Errorf("%w: the result would have shape %v", ErrModel, shape)
		}
		if s > 0 && n > maxElements/s {
			return fmt.Errorf("%w: a result of shape %v has more than %d elements", ErrUnsupported, shape, maxElements)
		}
		n *= s
	}
	return nil
}

// newTensor allocates the result of an operator, or refuses its size.
func newTensor(d onnxpb.DataType, shape []int) (Tensor, error) {
	if err := checkSize(shape); err != nil {
		return Tensor{}, err
	}
	t := Tensor{Type: d, Shape: append([]int{}, shape...)}
	switch n := count(shape); {
	case isReal(d):
		t.Reals = make([]float64, n)
	case isInt(d):
		t.Ints = make([]int64, n)
	default:
		return Tensor{}, fmt.Errorf("%w: element type %v", ErrUnsupported, d)
	}
	return t, nil
}

// check holds a caller's tensor to its own description.
func (t Tensor) check() error {
	if !isReal(t.Type) && !isInt(t.Type) {
		return fmt.Errorf("%w: element type %v", ErrUnsupported, t.Type)
	}
	if err := checkSize(t.Shape); err != nil {
		return err
	}
	n := t.Len()
	have := len(t.Ints)
	if t.IsReal() {
		have = len(t.Reals)
	}
	if have != n {
		return fmt.Errorf("%w: %d elements for %v%v", ErrModel, have, t.Type, t.Shape)
	}
	return nil
}

// decode reads an initializer or a constant.
func decode(p *onnxpb.Tensor) (Tensor, error) {
	t := Tensor{Type: p.Type, Shape: make([]int, len(p.Dims))}
	for i, d := range p.Dims {
		if d < 0 || d > maxElements {
			return Tensor{}, fmt.Errorf("%w: initializer %q has dims %v", ErrModel, p.Name, p.Dims)
		}
		t.Shape[i] = int(d)
	}
	var err error
	switch {
	case isReal(p.Type):
		t.Reals, err = p.Reals()
	case isInt(p.Type):
		t.Ints, err = p.Ints()
	default:
		err = fmt.Errorf("%w: initializer %q has element type %v", ErrUnsupported, p.Name, p.Type)
	}
	return t, err
}

// round brings a real onto the values of its type.
func round(d onnxpb.DataType, v float64) float64 {
	switch d {
	case onnxpb.Float:
		return float64(float32(v))
	case onnxpb.Float16:
		return float64(onnxpb.Float16ToFloat32(onnxpb.Float16FromFloat32(float32(v))))
	case onnxpb.BFloat16:
		return float64(onnxpb.BFloat16ToFloat32(onnxpb.BFloat16FromFloat32(float32(v))))
	}
	return v
}

// wrap keeps the low bits of an integer, as two's complement arithmetic of the type does.
func wrap(d onnxpb.DataType, v int64) int64 {
	lo, hi, ok := d.IntRange()
	if !ok || (v >= lo && v <= hi) {
		return v
	}
	v &= hi - lo
	if v > hi {
		v -= hi - lo + 1
	}
	return v
}

func roundAll(t Tensor) Tensor {
	if t.Type != onnxpb.Double {
		for i, v := range t.Reals {
			t.Reals[i] = round(t.Type, v)
		}
	}
	return t
}

// saturate rounds half to even and limits: the last step of D1 and of every requantization. NaN is an error.
func saturate(v float64, lo, hi int64) (int64, error) {
	if v != v {
		return 0, fmt.Errorf("%w: NaN cannot be quantized", ErrModel)
	}
	v = math.RoundToEven(v)
	if v <= float64(lo) {
		return lo, nil
	}
	if v >= float64(hi) {
		return hi, nil
	}
	return int64(v), nil
}
