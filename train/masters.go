package train

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/narrow-ml/narrow/export/safetensors"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// The names of tensors in model.safetensors and in checkpoints.
const (
	paramPrefix = "param/" // a float32 master
	scalePrefix = "scale/" // the scales of a quantized tensor
	zeroPrefix  = "zero/"  // its zero points

	learnedPrefix = "learned/" // what its range method trains beside or instead of the scales
)

// masters lists everything that a Float or Quantized model has learned: parameters, running statistics, and the scales
// and zero points of its quantizers.
func masters(m *model.Model) []safetensors.Tensor {
	var out []safetensors.Tensor
	for _, name := range m.ParamNames() {
		p := m.Params[name]
		out = append(out, safetensors.Float32(paramPrefix+name, p.Shape, p.Data))
	}
	for _, name := range m.QuantNames() {
		q := m.Quant[name]
		if len(q.Scale) == 0 {
			continue
		}
		out = append(out,
			safetensors.Float32(scalePrefix+name, []int{len(q.Scale)}, q.Scale),
			safetensors.Int32(zeroPrefix+name, []int{len(q.Zero)}, q.Zero))
		if len(q.Learned) > 0 {
			out = append(out, safetensors.Float32(learnedPrefix+name, []int{len(q.Learned)}, q.Learned))
		}
	}
	return out
}

// setMasters copies what masters listed into m, in place: graphs that hold m's slices see the values. Tensors without one
// of the prefixes are left to the caller. Every parameter of m must be there.
func setMasters(m *model.Model, tensors []safetensors.Tensor) error {
	missing := map[string]bool{}
	for name := range m.Params {
		missing[name] = true
	}
	for _, t := range tensors {
		kind, name, ok := strings.Cut(t.Name, "/")
		if !ok {
			continue
		}
		switch kind + "/" {
		case paramPrefix:
			p := m.Params[name]
			if p == nil {
				return fmt.Errorf("parameter %q is not in model %q: the file belongs to another config", name, m.Name)
			}
			if err := t.Float32s(p.Data); err != nil {
				return err
			}
			delete(missing, name)
		case scalePrefix, zeroPrefix, learnedPrefix:
			q := m.Quant[name]
			if q == nil || len(t.Shape) != 1 {
				return fmt.Errorf("quantizer %q is not in model %q: the file belongs to another config or precision", name, m.Name)
			}
			if err := setRange(q, kind+"/", t); err != nil {
				return err
			}
		}
	}
	for _, name := range m.ParamNames() {
		if missing[name] {
			return fmt.Errorf("parameter %q of model %q is missing in the file", name, m.Name)
		}
	}
	return nil
}

// setRange copies scales, zero points or learned numbers into a quantizer, in place if it has as many.
func setRange(q *quant.Params, prefix string, t safetensors.Tensor) error {
	n := t.Shape[0]
	if prefix == zeroPrefix {
		q.Zero = sized(q.Zero, n)
		return t.Int32s(q.Zero)
	}
	numbers := &q.Scale
	if prefix == learnedPrefix {
		numbers = &q.Learned
	}
	*numbers = sized(*numbers, n)
	return t.Float32s(*numbers)
}

func sized[T any](s []T, n int) []T {
	if len(s) == n {
		return s
	}
	return make([]T, n)
}

// The keys of model.safetensors' metadata.
const (
	formatKey = "format"
	specsKey  = "specs" // JSON: tensor name -> quant.Spec; only in files of Quantized models
	precKey   = "precision"
)

const mastersFormat = "narrow masters 1"

// WriteMasters writes model.safetensors: what a Float or Quantized model has learned, and how it is quantized.
func WriteMasters(w io.Writer, m *model.Model) error {
	metadata := map[string]string{formatKey: mastersFormat, "model": m.Name, precKey: m.Precision.String()}
	if m.Stage == model.Quantized {
		specs := map[string]quant.Spec{}
		for name, q := range m.Quant {
			specs[name] = q.Spec
		}
		text, err := json.Marshal(specs)
		if err != nil {
			return err
		}
		metadata[specsKey] = string(text)
	}
	return safetensors.Write(w, masters(m), metadata)
}

// ReadMasters makes the model that WriteMasters was given out of m, the float model of the same config.
func ReadMasters(data []byte, m *model.Model) (*model.Model, error) {
	tensors, metadata, err := safetensors.Read(data)
	if err != nil {
		return nil, err
	}
	if got := metadata[formatKey]; got != mastersFormat {
		return nil, fmt.Errorf("%w: it holds %q, not %q", safetensors.ErrFormat, got, mastersFormat)
	}
	out := m.Clone()
	if text, ok := metadata[specsKey]; ok {
		var specs map[string]quant.Spec
		if err := json.Unmarshal([]byte(text), &specs); err != nil {
			return nil, fmt.Errorf("%w: specs: %w", safetensors.ErrFormat, err)
		}
		out.Stage = model.Quantized
		if out.Precision, err = quant.ParsePrecision(metadata[precKey]); err != nil {
			return nil, err
		}
		for name, spec := range specs {
			channels := 0 // of an activation, which has one scale
			if w := out.Params[name]; w != nil {
				channels = w.Shape.Channels()
			}
			out.Quant[name] = quant.NewParams(spec, channels)
		}
		if out, err = model.Share(out); err != nil {
			return nil, err
		}
		if err := model.Check(out); err != nil {
			return nil, err
		}
	}
	if err := setMasters(out, tensors); err != nil {
		return nil, err
	}
	return out, nil
}
