package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/narrow-ml/narrow/export"
	"github.com/narrow-ml/narrow/export/onnx"
	"github.com/narrow-ml/narrow/internal/durable"
	"github.com/narrow-ml/narrow/model"
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
		write = export.WriteTensors
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
