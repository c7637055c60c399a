package model

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/narrow-ml/narrow/quant"
)

// What is wrong with a model file; [Decode] wraps them with the place.
var (
	ErrNotModelFile = errors.New("not a Narrow model file")
	ErrFileVersion  = errors.New("unknown model file version")
	ErrFileLength   = errors.New("model file is cut off or has extra bytes")
	ErrChecksum     = errors.New("model file is damaged: its checksum does not fit")
	ErrBadModelFile = errors.New("model file has contradictory contents")
)

// Decode reads a model file. It accepts exactly what [Encode] writes: every other sequence of bytes is an error that
// wraps one of the errors above. Memory in use stays within a small multiple of len(data) plus the header's bound.
func Decode(data []byte) (*Model, error) {
	if len(data) < prefixBytes || string(data[:len(fileMagic)]) != fileMagic {
		return nil, fmt.Errorf("%w: it does not start with the magic number; model.narrow in a run folder is one", ErrNotModelFile)
	}
	if v := binary.LittleEndian.Uint32(data[8:]); v != fileVersion {
		return nil, fmt.Errorf("%w %d: this program reads version %d; use the program that wrote it, or freeze the run again", ErrFileVersion, v, fileVersion)
	}
	textBytes, total := int(binary.LittleEndian.Uint32(data[12:])), binary.LittleEndian.Uint64(data[16:])
	if total != uint64(len(data)) {
		return nil, fmt.Errorf("%w: its prefix says %d bytes, there are %d; copy or download it again", ErrFileLength, total, len(data))
	}
	end := len(data) - checksumBytes
	if textBytes > maxHeader || align(prefixBytes+textBytes) > end || len(data) > maxFile {
		return nil, fmt.Errorf("%w: header of %d bytes in a file of %d", ErrFileLength, textBytes, len(data))
	}
	if sum := sha256.Sum256(data[:end]); !bytes.Equal(sum[:], data[end:]) {
		return nil, fmt.Errorf("%w; copy or download it again", ErrChecksum)
	}
	text := data[prefixBytes : prefixBytes+textBytes]
	m, err := decodeBody(text, data[align(prefixBytes+textBytes):end])
	if err == nil {
		err = Validate(m)
	}
	if err == nil {
		// Writing it again must give the same bytes: that finds doubled keys, other spellings, gaps and set padding.
		err = encode(&sameBytes{want: data}, m)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadModelFile, err)
	}
	return m, nil
}

// decodeBody builds the model from the header's text and the blobs, without the checks of Validate.
func decodeBody(text, blobs []byte) (*Model, error) {
	var h header
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&h); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	m := &Model{Name: h.Name, Stage: Frozen, Outputs: h.Outputs, Params: map[string]*Param{}, Quant: map[string]*quant.Params{}}
	var err error
	if m.Precision.Weight, err = quant.ParseFormat(h.Weight); err != nil {
		return nil, fmt.Errorf("header: weight: %w", err)
	}
	if m.Precision.Act, err = quant.ParseFormat(h.Act); err != nil {
		return nil, fmt.Errorf("header: act: %w", err)
	}
	if m.Target, err = quant.ParseTarget(h.Target); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	for _, in := range h.Inputs {
		m.Inputs = append(m.Inputs, Input{Name: in.Name, Shape: in.Shape, Scale: in.Scale.float(), Zero: in.Zero, Labels: in.Labels})
	}
	for i := range h.Nodes {
		n, err := h.Nodes[i].node()
		if err != nil {
			return nil, fmt.Errorf("node %q: %w", h.Nodes[i].Name, err)
		}
		m.Nodes = append(m.Nodes, n)
	}
	for i := range h.Quant {
		if err := m.addQuant(&h.Quant[i]); err != nil {
			return nil, err
		}
	}
	return m, m.readBlobs(h.Tensors, blobs)
}

func (m *Model) addQuant(h *quantHeader) error {
	if len(h.Tensors) == 0 {
		return fmt.Errorf("a quantizer names no tensor")
	}
	spec, err := h.spec()
	if err != nil {
		return fmt.Errorf("quantizer of %q: %w", h.Tensors[0], err)
	}
	p := &quant.Params{Spec: spec}
	if spec.Format.IsInteger() && spec.Per == quant.PerTensor {
		p.Scale, p.Zero = []float32{h.Scale.float()}, []int32{h.Zero}
	}
	for _, name := range h.Tensors {
		if m.Quant[name] != nil {
			return fmt.Errorf("tensor %q has two quantizers", name)
		}
		m.Quant[name] = p
	}
	return nil
}

// readBlobs gives each blob of the directory to its parameter, quantizer or node.
func (m *Model) readBlobs(directory []tensorHeader, data []byte) error {
	next := 0 // blobs follow each other, so that together they never hold more than the file
	for i := range directory {
		t := &directory[i]
		size, err := t.checkedBytes()
		if err != nil {
			return fmt.Errorf("%s %q: %w", t.Kind, t.Name, err)
		}
		if t.Offset != align(next) || size > len(data) || t.Offset > len(data)-size {
			return fmt.Errorf("%s %q: %d bytes at offset %d of the blobs; it must start at %d and end within %d", t.Kind, t.Name, size, t.Offset, align(next), len(data))
		}
		next = t.Offset + size
		if err := m.addBlob(t, data[t.Offset:next]); err != nil {
			return fmt.Errorf("%s %q: %w", t.Kind, t.Name, err)
		}
	}
	return nil
}

func (m *Model) addBlob(t *tensorHeader, data []byte) error {
	switch t.Kind {
	case kindParam:
		if m.Params[t.Name] != nil {
			return fmt.Errorf("is stored twice")
		}
		p, err := m.readParam(t, data)
		if err != nil {
			return err
		}
		m.Params[t.Name] = p
		return nil
	case kindScale, kindMultiplier:
		rank := 1
		if p := m.Quant[t.Name]; t.Kind == kindScale && p != nil && p.Spec.Per == quant.PerGroup {
			rank = 2
		}
		if t.Type != "f32" || len(t.Shape) != rank {
			return fmt.Errorf("has type %q and shape %v; it must be f32 with %d extents", t.Type, t.Shape, rank)
		}
	}
	switch t.Kind {
	case kindScale:
		p := m.Quant[t.Name]
		if p == nil || p.Scale != nil || !p.Spec.Format.IsInteger() {
			return fmt.Errorf("no quantizer per channel waits for it")
		}
		p.Scale = readF32(data)
		p.Zero = make([]int32, len(p.Scale))
		if p.Spec.Per == quant.PerGroup {
			p.Channels = t.Shape[1]
		}
		return nil
	case kindMultiplier:
		n := m.Node(t.Name)
		if n == nil || n.Requant == nil || n.Requant.M != nil {
			return fmt.Errorf("no node with requantization waits for it")
		}
		n.Requant.M = readF32(data)
		return nil
	}
	return fmt.Errorf("unknown kind of blob (allowed: %s, %s, %s)", kindParam, kindScale, kindMultiplier)
}

func (m *Model) readParam(t *tensorHeader, data []byte) (*Param, error) {
	p := &Param{Shape: t.Shape}
	var spec quant.Spec
	if q := m.Quant[t.Name]; q != nil {
		spec = q.Spec
	}
	format := spec.Format
	switch t.Type {
	case "f32":
		p.Data = readF32(data)
	case "i32":
		p.Int32 = make([]int32, len(data)/4)
		for i := range p.Int32 {
			p.Int32[i] = int32(binary.LittleEndian.Uint32(data[4*i:]))
		}
	case "f16", "bf16":
		if !format.Rounds16() || (format == quant.BF16) != (t.Type == "bf16") {
			return nil, fmt.Errorf("type %q contradicts the quantizer's format %s", t.Type, format)
		}
		p.Half = make([]uint16, len(data)/2)
		for i := range p.Half {
			p.Half[i] = binary.LittleEndian.Uint16(data[2*i:])
		}
	default:
		if !format.IsInteger() || t.Type != codeType(spec) {
			return nil, fmt.Errorf("type %q contradicts the quantizer's format %s", t.Type, format)
		}
		if format == quant.Int16 {
			p.Codes16 = make([]int16, len(data)/2)
			for i := range p.Codes16 {
				p.Codes16[i] = int16(binary.LittleEndian.Uint16(data[2*i:]))
			}
			return p, nil
		}
		p.Codes = make([]int8, Shape(t.Shape).Size())
		unpackCodes(p.Codes, data, format.Bits())
		fromLevels(p.Codes, t.Type)
	}
	return p, nil
}

func readF32(data []byte) []float32 {
	out := make([]float32, len(data)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return out
}

// checkedBytes is bytes for an entry that is not trusted.
func (t *tensorHeader) checkedBytes() (int, error) {
	if blobBits(t.Type) == 0 {
		var names []string
		for _, b := range blobTypes {
			names = append(names, b.name)
		}
		return 0, fmt.Errorf("unknown type %q (allowed: %s)", t.Type, names)
	}
	if len(t.Shape) == 0 || len(t.Shape) > maxRank || slices.Min(t.Shape) < 1 {
		return 0, fmt.Errorf("shape %v must have 1 to %d positive extents", t.Shape, maxRank)
	}
	if !boundedSize(t.Shape) {
		return 0, fmt.Errorf("shape %v has more than %d elements", t.Shape, maxElements)
	}
	return t.bytes(), nil
}

// sameBytes is a writer that compares.
type sameBytes struct {
	want []byte
	at   int
}

func (s *sameBytes) Write(p []byte) (int, error) {
	rest := s.want[min(s.at, len(s.want)):]
	for i, v := range p {
		if i >= len(rest) || rest[i] != v {
			return i, fmt.Errorf("offset %d: not in the canonical form of docs/format.md", s.at+i)
		}
	}
	s.at += len(p)
	return len(p), nil
}

var _ io.Writer = (*sameBytes)(nil)
