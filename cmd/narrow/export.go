package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/narrow-ml/narrow/export/onnx"
	"github.com/narrow-ml/narrow/export/safetensors"
	"github.com/narrow-ml/narrow/internal/durable"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

type exportOptions struct {
	format, out, preset string
	packInt4, json      bool
}

// exportResult is what export prints.
type exportResult struct {
	Path      string `json:"path"`
	Format    string `json:"format"`
	Precision string `json:"precision"`
	Bytes     int64  `json:"bytes"`
	SHA256    string `json:"sha256"`
}

func (a *app) exportCommand() *cobra.Command {
	var o exportOptions
	c := &cobra.Command{
		Use:   "export RUN|FILE",
		Short: "Write a truly quantized file: onnx, safetensors or narrow",
		Args:  arguments(1, 1, "a RUN or a FILE"),
		RunE:  func(_ *cobra.Command, args []string) error { return a.export(args[0], &o) },
	}
	c.Flags().StringVarP(&o.format, "format", "f", "onnx", "`format`: onnx, safetensors or narrow")
	c.Flags().StringVarP(&o.out, "out", "o", "", "the `file` to write")
	c.Flags().StringVar(&o.preset, "preset", "", "onnx: the `consumer` to write for (default "+string(onnx.ORTx64)+")")
	c.Flags().BoolVar(&o.packInt4, "pack-int4", false, "onnx: store weights of at most 4 bits as ONNX int4 (smaller; ONNX Runtime computes them in float)")
	c.Flags().BoolVar(&o.json, "json", false, "print one JSON document")
	return c
}

func (a *app) export(name string, o *exportOptions) error {
	if o.out == "" {
		return usagef("narrow export needs --out FILE")
	}
	preset, err := onnx.ParsePreset(o.preset)
	if err != nil {
		return usagef("--preset: %w", err)
	}
	if o.format != "onnx" && (o.preset != "" || o.packInt4) {
		return usagef("--preset and --pack-int4 belong to --format onnx")
	}
	var write func(io.Writer, *model.Model) error
	switch o.format {
	case "onnx":
		write = func(w io.Writer, m *model.Model) error {
			return onnx.Write(w, m, onnx.Options{Preset: preset, PackInt4: o.packInt4})
		}
	case "safetensors":
		write = writeSafetensors
	case "narrow":
		write = model.Encode
	case "tflite", "c":
		return usagef("--format %s is not supported by this version (allowed: onnx, safetensors, narrow)", o.format)
	default:
		return usagef("--format %q is unknown%s", o.format, didYouMean(o.format, []string{"onnx", "safetensors", "narrow"}))
	}
	s, err := openSubject(name)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(o.out, func(w io.Writer) error { return write(w, s.frozen) }); err != nil {
		return err
	}
	r := exportResult{Path: o.out, Format: o.format, Precision: s.frozen.Precision.String()}
	info, err := os.Stat(o.out)
	if err != nil {
		return err
	}
	r.Bytes = info.Size()
	if r.SHA256, err = durable.Sum(o.out); err != nil {
		return err
	}
	if o.json {
		return a.writeJSON(r)
	}
	_, err = fmt.Fprintf(a.stdout, "%s  %s %s  %s bytes  sha256 %s\n", r.Path, r.Format, r.Precision, thousands(int(r.Bytes)), r.SHA256)
	return err
}

// writeSafetensors stores a frozen model's numbers under the names of its tensors: codes as I8, biases as I32, 16-bit
// floats as F16 or BF16; scales and zero points of a quantized tensor as NAME.scale and NAME.zero_point.
func writeSafetensors(w io.Writer, m *model.Model) error {
	var tensors []safetensors.Tensor
	add := func(name, dtype string, shape []int, values any) error {
		data, err := binary.Append(nil, binary.LittleEndian, values)
		tensors = append(tensors, safetensors.Tensor{Name: name, DType: dtype, Shape: shape, Data: data})
		return err
	}
	for _, name := range m.ParamNames() {
		p := m.Params[name]
		var err error
		switch {
		case p.Codes != nil:
			err = add(name, safetensors.I8, p.Shape, p.Codes)
		case p.Int32 != nil:
			err = add(name, safetensors.I32, p.Shape, p.Int32)
		case p.Half != nil:
			dtype := safetensors.F16
			if q := m.Quant[name]; q != nil && q.Spec.Format == quant.BF16 {
				dtype = safetensors.BF16
			}
			err = add(name, dtype, p.Shape, p.Half)
		default:
			err = add(name, safetensors.F32, p.Shape, p.Data)
		}
		if err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
	}
	for _, name := range m.QuantNames() {
		q := m.Quant[name]
		if len(q.Scale) == 0 {
			continue
		}
		if err := add(name+".scale", safetensors.F32, []int{len(q.Scale)}, q.Scale); err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
		if err := add(name+".zero_point", safetensors.I32, []int{len(q.Zero)}, q.Zero); err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
	}
	return safetensors.Write(w, tensors, map[string]string{"format": "narrow", "model": m.Name, "precision": m.Precision.String()})
}
