package export

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/narrow-ml/narrow/export/safetensors"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// packedKey is the metadata key that says how packed tensors are unpacked.
const packedKey = "narrow.packed"

// packing is what a reader of packed codes needs beside their bytes.
type packing struct {
	Type  string `json:"type"` // "s4": two's complement, 4 bits, one little-endian bit stream
	Shape []int  `json:"shape"`
}

// WriteTensors stores a frozen model's numbers as safetensors, under the names of its tensors: codes of 8 bits as I8 and
// narrower ones packed as U8 (docs/format.md), biases as I32, 16-bit floats as F16 or BF16; scales and zero points of a
// quantized tensor as NAME.scale and NAME.zero_point. The metadata's narrow.packed names type and shape of what is packed.
func WriteTensors(w io.Writer, m *model.Model) error {
	if m.Stage != model.Frozen {
		return fmt.Errorf("safetensors of %q: the model is %s; freeze it first", m.Name, m.Stage)
	}
	t := tensorWriter{packed: map[string]packing{}}
	for _, name := range m.ParamNames() {
		if err := t.param(m, name); err != nil {
			return fmt.Errorf("safetensors of %q: tensor %q: %w", m.Name, name, err)
		}
	}
	for _, name := range m.QuantNames() {
		q := m.Quant[name]
		if len(q.Scale) == 0 {
			continue
		}
		shape := []int{len(q.Scale)}
		if q.Spec.Per == quant.PerGroup {
			shape = []int{len(q.Scale) / q.Channels, q.Channels}
		}
		t.add(safetensors.Float32(name+".scale", shape, q.Scale))
		t.add(safetensors.Int32(name+".zero_point", shape, q.Zero))
	}
	meta := map[string]string{"format": "narrow", "model": m.Name, "precision": m.Precision.String()}
	if len(t.packed) > 0 {
		text, err := json.Marshal(t.packed) // sorts the keys
		if err != nil {
			return fmt.Errorf("safetensors of %q: %w", m.Name, err)
		}
		meta[packedKey] = string(text)
	}
	return safetensors.Write(w, t.tensors, meta)
}

type tensorWriter struct {
	tensors []safetensors.Tensor
	packed  map[string]packing
}

func (t *tensorWriter) add(s safetensors.Tensor) { t.tensors = append(t.tensors, s) }

func (t *tensorWriter) param(m *model.Model, name string) error {
	p := m.Params[name]
	switch {
	case p.Codes != nil:
		typ, data := m.Packed(name)
		if m.Quant[name].Spec.Format.Bits() == 8 {
			t.add(safetensors.Tensor{Name: name, DType: safetensors.I8, Shape: p.Shape, Data: data})
			return nil
		}
		t.add(safetensors.Tensor{Name: name, DType: safetensors.U8, Shape: []int{len(data)}, Data: data})
		t.packed[name] = packing{typ, p.Shape}
	case p.Codes16 != nil:
		data, err := binary.Append(nil, binary.LittleEndian, p.Codes16)
		t.add(safetensors.Tensor{Name: name, DType: safetensors.I16, Shape: p.Shape, Data: data})
		return err
	case p.Int32 != nil:
		t.add(safetensors.Int32(name, p.Shape, p.Int32))
	case p.Half != nil:
		dtype := safetensors.F16
		if m.Quant[name].Spec.Format == quant.BF16 {
			dtype = safetensors.BF16
		}
		data, err := binary.Append(nil, binary.LittleEndian, p.Half)
		t.add(safetensors.Tensor{Name: name, DType: dtype, Shape: p.Shape, Data: data})
		return err
	default:
		t.add(safetensors.Float32(name, p.Shape, p.Data))
	}
	return nil
}

// ReadCodes returns the weight codes of tensor name and their shape from what safetensors.Read gave for a file of
// [WriteTensors].
func ReadCodes(tensors []safetensors.Tensor, metadata map[string]string, name string) ([]int8, []int, error) {
	at := slices.IndexFunc(tensors, func(t safetensors.Tensor) bool { return t.Name == name })
	if at < 0 {
		return nil, nil, fmt.Errorf("the file has no tensor %q", name)
	}
	t, how := tensors[at], packing{}
	if t.DType == safetensors.I8 {
		how = packing{"s8", t.Shape}
	} else {
		packed := map[string]packing{}
		if text := metadata[packedKey]; text != "" {
			if err := json.Unmarshal([]byte(text), &packed); err != nil {
				return nil, nil, fmt.Errorf("metadata %s: %w", packedKey, err)
			}
		}
		var ok bool
		if how, ok = packed[name]; !ok || t.DType != safetensors.U8 {
			return nil, nil, fmt.Errorf("tensor %q (%s %v) holds no weight codes: they are I8, or U8 and named in the metadata's %s", name, t.DType, t.Shape, packedKey)
		}
	}
	n := 1
	for _, d := range how.Shape {
		if d < 1 || n > 8*len(t.Data)/d {
			return nil, nil, fmt.Errorf("tensor %q: shape %v does not fit %d bytes", name, how.Shape, len(t.Data))
		}
		n *= d
	}
	codes, err := model.Unpack(how.Type, n, t.Data)
	if err != nil {
		return nil, nil, fmt.Errorf("tensor %q: %w", name, err)
	}
	return codes, how.Shape, nil
}
