// Package safetensors reads and writes the safetensors container: an 8-byte little-endian header length, a JSON header,
// and the tensors' bytes. It carries Narrow's float masters and checkpoints, and weights and codes to other tools.
//
// The same tensors and metadata always give the same bytes: tensors are stored in name order without gaps, the header's
// keys are sorted, and the header is padded with spaces to a multiple of 8. The format is that of the safetensors
// project (github.com/huggingface/safetensors, README, "Format").
package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// The element types Narrow uses, with their sizes in bytes.
const (
	F32  = "F32"
	F16  = "F16"
	BF16 = "BF16"
	I8   = "I8"
	U8   = "U8"
	I32  = "I32"
	I64  = "I64"
	F64  = "F64"
	I16  = "I16"
	U16  = "U16"
	U32  = "U32"
	U64  = "U64"
	BOOL = "BOOL"
)

var sizes = map[string]int{F32: 4, F16: 2, BF16: 2, I8: 1, U8: 1, I32: 4, I64: 8, F64: 8, I16: 2, U16: 2, U32: 4, U64: 8, BOOL: 1}

// MaxHeader is the largest header accepted, as in the reference implementation.
const MaxHeader = 100 << 20

// ErrFormat is wrapped by every error about a file's content.
var ErrFormat = errors.New("not a valid safetensors file")

// Tensor is one named array in row-major order; Data is little-endian.
type Tensor struct {
	Name  string
	DType string
	Shape []int
	Data  []byte
}

// Float32 is an F32 tensor of the values.
func Float32(name string, shape []int, values []float32) Tensor {
	data := make([]byte, 4*len(values))
	for i, v := range values {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(v))
	}
	return Tensor{Name: name, DType: F32, Shape: shape, Data: data}
}

// Int32 is an I32 tensor of the values.
func Int32(name string, shape []int, values []int32) Tensor {
	data := make([]byte, 4*len(values))
	for i, v := range values {
		binary.LittleEndian.PutUint32(data[4*i:], uint32(v))
	}
	return Tensor{Name: name, DType: I32, Shape: shape, Data: data}
}

// Float32s copies the values of an F32 tensor into dst, whose length must be theirs.
func (t Tensor) Float32s(dst []float32) error {
	if t.DType != F32 || len(t.Data) != 4*len(dst) {
		return fmt.Errorf("tensor %q is %s %v; want %d F32 values", t.Name, t.DType, t.Shape, len(dst))
	}
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
	}
	return nil
}

// Int32s copies the values of an I32 tensor into dst, whose length must be theirs.
func (t Tensor) Int32s(dst []int32) error {
	if t.DType != I32 || len(t.Data) != 4*len(dst) {
		return fmt.Errorf("tensor %q is %s %v; want %d I32 values", t.Name, t.DType, t.Shape, len(dst))
	}
	for i := range dst {
		dst[i] = int32(binary.LittleEndian.Uint32(t.Data[4*i:]))
	}
	return nil
}

type entry struct {
	DType   string `json:"dtype"`
	Shape   []int  `json:"shape"`
	Offsets [2]int `json:"data_offsets"`
}

const metadataKey = "__metadata__"

// Write stores tensors and metadata. Tensors are sorted by name; names must be unique and not "__metadata__".
func Write(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	sorted := slices.Clone(tensors)
	slices.SortFunc(sorted, func(a, b Tensor) int { return strings.Compare(a.Name, b.Name) })
	header := map[string]any{}
	if len(metadata) > 0 {
		header[metadataKey] = metadata
	}
	offset := 0
	for _, t := range sorted {
		if _, dup := header[t.Name]; dup || t.Name == "" || t.Name == metadataKey {
			return fmt.Errorf("safetensors: tensor name %q is empty, reserved or used twice", t.Name)
		}
		n, err := byteSize(t.DType, t.Shape)
		if err != nil {
			return fmt.Errorf("safetensors: tensor %q: %w", t.Name, err)
		}
		if n != len(t.Data) {
			return fmt.Errorf("safetensors: tensor %q: %s %v takes %d bytes, has %d", t.Name, t.DType, t.Shape, n, len(t.Data))
		}
		shape := t.Shape
		if shape == nil {
			shape = []int{}
		}
		header[t.Name] = entry{DType: t.DType, Shape: shape, Offsets: [2]int{offset, offset + n}}
		offset += n
	}
	text, err := json.Marshal(header) // sorts the keys
	if err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	var length [8]byte
	binary.LittleEndian.PutUint64(length[:], uint64(len(text)))
	for _, part := range [][]byte{length[:], text} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	for _, t := range sorted {
		if _, err := w.Write(t.Data); err != nil {
			return err
		}
	}
	return nil
}

func byteSize(dtype string, shape []int) (int, error) {
	n, ok := sizes[dtype]
	if !ok {
		return 0, fmt.Errorf("element type %q is unknown", dtype)
	}
	for _, d := range shape {
		if d < 0 || (d > 0 && n > math.MaxInt/d) {
			return 0, fmt.Errorf("shape %v is out of range", shape)
		}
		n *= d
	}
	return n, nil
}

// Read parses a whole file. The tensors, in name order, share the memory of data. Offsets must cover the data exactly,
// without gaps or overlaps.
func Read(data []byte) ([]Tensor, map[string]string, error) {
	fail := func(format string, args ...any) ([]Tensor, map[string]string, error) {
		return nil, nil, fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
	}
	if len(data) < 8 {
		return fail("%d bytes is too short for the header length", len(data))
	}
	size := binary.LittleEndian.Uint64(data)
	if size > MaxHeader || size > uint64(len(data)-8) {
		return fail("header length %d exceeds the file (%d bytes)", size, len(data))
	}
	text, body := data[8:8+size], data[8+size:]
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return fail("header: %v", err)
	}
	var metadata map[string]string
	if m, ok := raw[metadataKey]; ok {
		if err := json.Unmarshal(m, &metadata); err != nil {
			return fail("metadata: %v", err)
		}
		delete(raw, metadataKey)
	}
	type placed struct {
		Tensor
		begin, end int
	}
	tensors := make([]placed, 0, len(raw))
	for name, value := range raw {
		var e entry
		dec := json.NewDecoder(bytes.NewReader(value))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&e); err != nil {
			return fail("tensor %q: %v", name, err)
		}
		n, err := byteSize(e.DType, e.Shape)
		if err != nil {
			return fail("tensor %q: %v", name, err)
		}
		b, end := e.Offsets[0], e.Offsets[1]
		if b < 0 || end < b || end > len(body) || end-b != n {
			return fail("tensor %q: offsets %d..%d do not hold %s %v within %d bytes", name, b, end, e.DType, e.Shape, len(body))
		}
		tensors = append(tensors, placed{Tensor{name, e.DType, e.Shape, body[b:end:end]}, b, end})
	}
	slices.SortFunc(tensors, func(a, b placed) int {
		if a.begin != b.begin {
			return a.begin - b.begin
		}
		return a.end - b.end
	})
	at := 0
	for _, t := range tensors {
		if t.begin != at {
			return fail("tensor %q starts at %d, the one before it ends at %d", t.Name, t.begin, at)
		}
		at = t.end
	}
	if at != len(body) {
		return fail("%d bytes follow the last tensor", len(body)-at)
	}
	out := make([]Tensor, len(tensors))
	for i, t := range tensors {
		out[i] = t.Tensor
	}
	slices.SortFunc(out, func(a, b Tensor) int { return strings.Compare(a.Name, b.Name) })
	return out, metadata, nil
}
