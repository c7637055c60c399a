package onnxpb

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrFormat is wrapped by every error of Unmarshal.
var ErrFormat = errors.New("malformed ONNX protobuf")

// maxDepth bounds graphs inside attributes inside graphs; real files stay below 4.
const maxDepth = 16

// field is one tag-value pair of a message.
type field struct {
	num  protowire.Number
	typ  protowire.Type
	bits uint64 // varint, fixed32, fixed64
	body []byte // length-delimited
	all  []byte // tag and value, to keep what is unknown
}

// fields calls visit for each field of a message.
func fields(b []byte, message string, visit func(f field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%s: %w: bad tag: %w", message, ErrFormat, protowire.ParseError(n))
		}
		f := field{num: num, typ: typ}
		m := 0
		switch typ {
		case protowire.VarintType:
			f.bits, m = protowire.ConsumeVarint(b[n:])
		case protowire.Fixed32Type:
			var v uint32
			v, m = protowire.ConsumeFixed32(b[n:])
			f.bits = uint64(v)
		case protowire.Fixed64Type:
			f.bits, m = protowire.ConsumeFixed64(b[n:])
		case protowire.BytesType:
			f.body, m = protowire.ConsumeBytes(b[n:])
		default:
			return fmt.Errorf("%s: %w: field %d has wire type %d (groups do not occur in ONNX)", message, ErrFormat, num, typ)
		}
		if m < 0 {
			return fmt.Errorf("%s: %w: field %d: %w", message, ErrFormat, num, protowire.ParseError(m))
		}
		f.all = b[:n+m]
		if err := visit(f); err != nil {
			return fmt.Errorf("%s: %w", message, err)
		}
		b = b[n+m:]
	}
	return nil
}

func (f field) want(typ protowire.Type) error {
	if f.typ != typ {
		return fmt.Errorf("%w: field %d has wire type %d, want %d", ErrFormat, f.num, f.typ, typ)
	}
	return nil
}

func (f field) str(dst *string) error {
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	*dst = string(f.body)
	return nil
}

func (f field) bytes(dst *[]byte) error {
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	*dst = append([]byte{}, f.body...)
	return nil
}

func (f field) int64(dst *int64) error {
	if err := f.want(protowire.VarintType); err != nil {
		return err
	}
	*dst = int64(f.bits)
	return nil
}

func (f field) enum(dst *int32) error {
	if err := f.want(protowire.VarintType); err != nil {
		return err
	}
	v := int64(f.bits)
	if v < math.MinInt32 || v > math.MaxInt32 {
		return fmt.Errorf("%w: field %d: enum value %d", ErrFormat, f.num, v)
	}
	*dst = int32(v)
	return nil
}

func (f field) float(dst *float32) error {
	if err := f.want(protowire.Fixed32Type); err != nil {
		return err
	}
	*dst = math.Float32frombits(uint32(f.bits))
	return nil
}

// varints appends a repeated integer field, packed or not.
func varints[T int32 | int64 | uint64](f field, dst *[]T) error {
	if f.typ == protowire.VarintType {
		*dst = append(*dst, T(f.bits))
		return nil
	}
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	for b := f.body; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return fmt.Errorf("%w: field %d: %w", ErrFormat, f.num, protowire.ParseError(n))
		}
		*dst = append(*dst, T(v))
		b = b[n:]
	}
	return nil
}

func (f field) floats(dst *[]float32) error {
	if f.typ == protowire.Fixed32Type {
		*dst = append(*dst, math.Float32frombits(uint32(f.bits)))
		return nil
	}
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	if len(f.body)%4 != 0 {
		return fmt.Errorf("%w: field %d: %d bytes of packed floats", ErrFormat, f.num, len(f.body))
	}
	for b := f.body; len(b) > 0; b = b[4:] {
		v, _ := protowire.ConsumeFixed32(b)
		*dst = append(*dst, math.Float32frombits(v))
	}
	return nil
}

func (f field) doubles(dst *[]float64) error {
	if f.typ == protowire.Fixed64Type {
		*dst = append(*dst, math.Float64frombits(f.bits))
		return nil
	}
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	if len(f.body)%8 != 0 {
		return fmt.Errorf("%w: field %d: %d bytes of packed doubles", ErrFormat, f.num, len(f.body))
	}
	for b := f.body; len(b) > 0; b = b[8:] {
		v, _ := protowire.ConsumeFixed64(b)
		*dst = append(*dst, math.Float64frombits(v))
	}
	return nil
}

// message reads one embedded message with read.
func message[T any](f field, read func(b []byte) (*T, error)) (*T, error) {
	if err := f.want(protowire.BytesType); err != nil {
		return nil, err
	}
	return read(f.body)
}

// list appends one embedded message.
func list[T any](f field, dst *[]*T, read func(b []byte) (*T, error)) error {
	v, err := message(f, read)
	if err != nil {
		return err
	}
	*dst = append(*dst, v)
	return nil
}

// encoder appends fields; the zero values of optional fields are left out, as proto3 does.
type encoder struct{ b []byte }

func (e *encoder) str(num protowire.Number, s string) {
	if s != "" {
		e.elem(num, s)
	}
}

// elem writes a string even when it is empty (list elements, omitted optional inputs).
func (e *encoder) elem(num protowire.Number, s string) {
	e.b = protowire.AppendTag(e.b, num, protowire.BytesType)
	e.b = protowire.AppendString(e.b, s)
}

func (e *encoder) bytes(num protowire.Number, p []byte) {
	e.b = protowire.AppendTag(e.b, num, protowire.BytesType)
	e.b = protowire.AppendBytes(e.b, p)
}

func (e *encoder) int(num protowire.Number, v int64) {
	if v != 0 {
		e.present(num, v)
	}
}

func (e *encoder) present(num protowire.Number, v int64) {
	e.b = protowire.AppendTag(e.b, num, protowire.VarintType)
	e.b = protowire.AppendVarint(e.b, uint64(v))
}

// fixed32 writes an unpacked float even when it is zero (an attribute's value).
func (e *encoder) fixed32(num protowire.Number, v float32) {
	e.b = protowire.AppendTag(e.b, num, protowire.Fixed32Type)
	e.b = protowire.AppendFixed32(e.b, math.Float32bits(v))
}

func (e *encoder) embed(num protowire.Number, write func(e *encoder)) {
	var in encoder
	write(&in)
	e.bytes(num, in.b)
}

func (e *encoder) floats(num protowire.Number, v []float32) {
	if len(v) == 0 {
		return
	}
	e.b = protowire.AppendTag(e.b, num, protowire.BytesType)
	e.b = protowire.AppendVarint(e.b, uint64(4*len(v)))
	for _, x := range v {
		e.b = protowire.AppendFixed32(e.b, math.Float32bits(x))
	}
}

func (e *encoder) doubles(num protowire.Number, v []float64) {
	if len(v) == 0 {
		return
	}
	e.b = protowire.AppendTag(e.b, num, protowire.BytesType)
	e.b = protowire.AppendVarint(e.b, uint64(8*len(v)))
	for _, x := range v {
		e.b = protowire.AppendFixed64(e.b, math.Float64bits(x))
	}
}

func packed[T int32 | int64 | uint64](e *encoder, num protowire.Number, v []T) {
	if len(v) == 0 {
		return
	}
	var in []byte
	for _, x := range v {
		in = protowire.AppendVarint(in, uint64(x))
	}
	e.bytes(num, in)
}

// unpacked writes one tag per element: what ONNX files do with attribute lists, declared without packing.
func unpacked[T int32 | int64 | uint64](e *encoder, num protowire.Number, v []T) {
	for _, x := range v {
		e.present(num, int64(x))
	}
}
