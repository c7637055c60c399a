package onnxpb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// ErrTensor is wrapped by errors about a tensor whose elements do not fit its type and dims, or whose type has no
// codec here.
var ErrTensor = errors.New("bad tensor")

// Len is the number of elements that the dims announce.
func (t *Tensor) Len() (int, error) {
	n := int64(1)
	for _, d := range t.Dims {
		if d < 0 {
			return 0, fmt.Errorf("tensor %q: %w: dimension %d", t.Name, ErrTensor, d)
		}
		if d > 0 && n > math.MaxInt32/d {
			return 0, fmt.Errorf("tensor %q: %w: dims %v hold more than 2^31 elements", t.Name, ErrTensor, t.Dims)
		}
		n *= d
	}
	return int(n), nil
}

// stored checks the number of elements present against the dims, before anything is allocated for them.
func (t *Tensor) stored() (n int, raw bool, err error) {
	if t.External {
		return 0, false, fmt.Errorf("tensor %q: %w: its data is in another file, which is not read", t.Name, ErrTensor)
	}
	if n, err = t.Len(); err != nil {
		return 0, false, err
	}
	bits := t.Type.Bits()
	if bits == 0 {
		return 0, false, fmt.Errorf("tensor %q: %w: type %v has no numeric elements", t.Name, ErrTensor, t.Type)
	}
	typed := 0
	switch t.Type {
	case Float:
		typed = len(t.Floats)
	case Double:
		typed = len(t.Doubles)
	case Int64:
		typed = len(t.Int64s)
	case Uint64, Uint32:
		typed = len(t.Uint64s)
	default:
		typed = len(t.Int32s)
	}
	if t.hasRaw || len(t.Raw) > 0 {
		if want := (n*bits + 7) / 8; len(t.Raw) != want {
			return 0, false, fmt.Errorf("tensor %q: %w: %d bytes of raw data for %v%v, want %d",
				t.Name, ErrTensor, len(t.Raw), t.Type, t.Dims, want)
		}
		if typed > 0 {
			return 0, false, fmt.Errorf("tensor %q: %w: raw and typed data at once", t.Name, ErrTensor)
		}
		return n, true, nil
	}
	want := n
	if bits < 8 {
		want = (n*bits + 7) / 8 // int32_data holds one packed byte per entry
	}
	if typed != want {
		return 0, false, fmt.Errorf("tensor %q: %w: %d elements for %v%v, want %d", t.Name, ErrTensor, typed, t.Type, t.Dims, want)
	}
	return n, false, nil
}

// Ints returns the elements of an integer or bool tensor. Uint64 elements above MaxInt64 are an error.
func (t *Tensor) Ints() ([]int64, error) {
	n, raw, err := t.stored()
	if err != nil {
		return nil, err
	}
	switch t.Type {
	case Uint2, Int2, Uint4, Int4:
		b := t.Raw
		if !raw {
			b = make([]byte, len(t.Int32s))
			for i, v := range t.Int32s {
				b[i] = byte(v)
			}
		}
		return unpack(b, n, t.Type.Bits(), t.Type == Int2 || t.Type == Int4), nil
	case Int64:
		if !raw {
			return append([]int64{}, t.Int64s...), nil
		}
	case Uint32, Uint64:
		if !raw {
			return t.unsigned(n, func(i int) uint64 { return t.Uint64s[i] })
		}
		if t.Type == Uint64 {
			return t.unsigned(n, func(i int) uint64 { return binary.LittleEndian.Uint64(t.Raw[8*i:]) })
		}
	case Uint8, Int8, Uint16, Int16, Int32, Bool:
	default:
		return nil, fmt.Errorf("tensor %q: %w: %v is not an integer type", t.Name, ErrTensor, t.Type)
	}
	out := make([]int64, n)
	for i := range out {
		if !raw {
			out[i] = int64(t.Int32s[i])
			continue
		}
		switch t.Type {
		case Uint8, Bool:
			out[i] = int64(t.Raw[i])
		case Int8:
			out[i] = int64(int8(t.Raw[i]))
		case Uint16:
			out[i] = int64(binary.LittleEndian.Uint16(t.Raw[2*i:]))
		case Int16:
			out[i] = int64(int16(binary.LittleEndian.Uint16(t.Raw[2*i:])))
		case Int32:
			out[i] = int64(int32(binary.LittleEndian.Uint32(t.Raw[4*i:])))
		case Uint32:
			out[i] = int64(binary.LittleEndian.Uint32(t.Raw[4*i:]))
		case Int64:
			out[i] = int64(binary.LittleEndian.Uint64(t.Raw[8*i:]))
		}
	}
	return out, t.inRange(out)
}

func (t *Tensor) unsigned(n int, at func(i int) uint64) ([]int64, error) {
	out := make([]int64, n)
	for i := range out {
		v := at(i)
		if v > math.MaxInt64 {
			return nil, fmt.Errorf("tensor %q: %w: element %d is %d, above the signed 64-bit range", t.Name, ErrTensor, i, v)
		}
		out[i] = int64(v)
	}
	return out, t.inRange(out)
}

// inRange refuses typed data outside the element type, such as 300 in a uint8 tensor.
func (t *Tensor) inRange(v []int64) error {
	lo, hi, ok := t.Type.IntRange()
	if t.Type == Bool {
		lo, hi, ok = 0, 1, true
	}
	for i, x := range v {
		if ok && (x < lo || x > hi) {
			return fmt.Errorf("tensor %q: %w: element %d is %d, outside %v", t.Name, ErrTensor, i, x, t.Type)
		}
	}
	return nil
}

// Reals returns the elements of a Float, Double, Float16 or BFloat16 tensor, widened exactly.
func (t *Tensor) Reals() ([]float64, error) {
	n, raw, err := t.stored()
	if err != nil {
		return nil, err
	}
	out := make([]float64, n)
	half := func(i int) uint16 {
		if raw {
			return binary.LittleEndian.Uint16(t.Raw[2*i:])
		}
		return uint16(t.Int32s[i])
	}
	for i := range out {
		switch {
		case t.Type == Float && raw:
			out[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(t.Raw[4*i:])))
		case t.Type == Float:
			out[i] = float64(t.Floats[i])
		case t.Type == Double && raw:
			out[i] = math.Float64frombits(binary.LittleEndian.Uint64(t.Raw[8*i:]))
		case t.Type == Double:
			out[i] = t.Doubles[i]
		case t.Type == Float16:
			out[i] = float64(Float16ToFloat32(half(i)))
		case t.Type == BFloat16:
			out[i] = float64(BFloat16ToFloat32(half(i)))
		default:
			return nil, fmt.Errorf("tensor %q: %w: %v is not a floating type with a codec", t.Name, ErrTensor, t.Type)
		}
	}
	return out, nil
}

// FloatTensor stores float32 values as raw data of type Float, Float16 or BFloat16 (rounded half to even).
func FloatTensor(name string, typ DataType, dims []int64, v []float32) (*Tensor, error) {
	t := &Tensor{Name: name, Type: typ, Dims: dims, hasRaw: true}
	if err := t.wantLen(len(v)); err != nil {
		return nil, err
	}
	switch typ {
	case Float:
		t.Raw = make([]byte, 0, 4*len(v))
		for _, x := range v {
			t.Raw = binary.LittleEndian.AppendUint32(t.Raw, math.Float32bits(x))
		}
	case Float16, BFloat16:
		t.Raw = make([]byte, 0, 2*len(v))
		for _, x := range v {
			h := Float16FromFloat32(x)
			if typ == BFloat16 {
				h = BFloat16FromFloat32(x)
			}
			t.Raw = binary.LittleEndian.AppendUint16(t.Raw, h)
		}
	default:
		return nil, fmt.Errorf("tensor %q: %w: FloatTensor does not make %v", name, ErrTensor, typ)
	}
	return t, nil
}

// IntTensor stores integers as raw data of an integer type; a value outside the type is an error.
func IntTensor[T int8 | uint8 | int16 | int32 | int64 | int](name string, typ DataType, dims []int64, v []T) (*Tensor, error) {
	t := &Tensor{Name: name, Type: typ, Dims: dims, hasRaw: true}
	if err := t.wantLen(len(v)); err != nil {
		return nil, err
	}
	wide := make([]int64, len(v))
	for i, x := range v {
		wide[i] = int64(x)
	}
	if _, _, ok := typ.IntRange(); !ok && typ != Int64 && typ != Bool {
		return nil, fmt.Errorf("tensor %q: %w: IntTensor does not make %v", name, ErrTensor, typ)
	}
	if err := t.inRange(wide); err != nil {
		return nil, err
	}
	bits := typ.Bits()
	if bits < 8 {
		t.Raw = pack(wide, bits)
		return t, nil
	}
	t.Raw = make([]byte, 0, len(v)*bits/8)
	for _, x := range wide {
		switch bits {
		case 8:
			t.Raw = append(t.Raw, byte(x))
		case 16:
			t.Raw = binary.LittleEndian.AppendUint16(t.Raw, uint16(x))
		case 32:
			t.Raw = binary.LittleEndian.AppendUint32(t.Raw, uint32(x))
		default:
			t.Raw = binary.LittleEndian.AppendUint64(t.Raw, uint64(x))
		}
	}
	return t, nil
}

func (t *Tensor) wantLen(got int) error {
	n, err := t.Len()
	if err == nil && n != got {
		err = fmt.Errorf("tensor %q: %w: %d elements for dims %v", t.Name, ErrTensor, got, t.Dims)
	}
	return err
}
