package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/narrow-ml/narrow/internal/durable"
	"github.com/narrow-ml/narrow/qat/ptq"
	"github.com/narrow-ml/narrow/quant"
	"github.com/narrow-ml/narrow/train"
)

type quantizeOptions struct {
	dataFlags
	precision, method, out string
	workers                int
	json                   bool
}

func (a *app) quantizeCommand() *cobra.Command {
	var o quantizeOptions
	c := &cobra.Command{
		Use:   "quantize RUN",
		Short: "Post-training quantization of a float run; writes a run folder",
		Args:  arguments(1, 1, "a RUN"),
		RunE:  func(c *cobra.Command, args []string) error { return a.quantize(c.Context(), args[0], &o) },
	}
	o.dataFlags.add(c)
	c.Flags().StringVarP(&o.precision, "precision", "p", "", "the `precision` to quantize to (int8, w4a8, fp16, ...)")
	c.Flags().StringVarP(&o.method, "method", "m", "", "calibration `method`: minmax, percentile, mse, or auto (default: the config's)")
	c.Flags().StringVarP(&o.out, "out", "o", "", "run `folder` to write (default RUN-PRECISION)")
	c.Flags().IntVar(&o.workers, "workers", 0, "goroutines, 0 = one per CPU; the result does not depend on it")
	c.Flags().BoolVar(&o.json, "json", false, "print one JSON document")
	return c
}

func (a *app) quantize(ctx context.Context, dir string, o *quantizeOptions) error {
	p, err := precision(o.precision)
	if err != nil {
		return err
	}
	if p == nil || *p == quant.Full {
		return usagef("narrow quantize needs --precision with less than 32 bits, for example int8 or w4a8")
	}
	n, err := workers(o.workers)
	if err != nil {
		return err
	}
	var method ptq.Method
	if o.method != "" {
		if method, err = ptq.ParseMethod(o.method); err != nil {
			return usagef("--method: %w", err)
		}
	}
	if o.out == "" {
		o.out = strings.TrimRight(dir, `/\`) + "-" + p.String()
	}
	if _, err := os.Stat(o.out); err == nil {
		return usagef("%s exists already; choose another --out", o.out)
	}
	f, err := train.OpenRun(dir)
	if err != nil {
		return err
	}
	d, err := f.Data(ctx, o.options(a))
	if err != nil {
		return err
	}
	m, err := f.FloatModel(d)
	if err != nil {
		return err
	}
	q, err := f.Config.QuantConfig(*p)
	if err != nil {
		return err
	}
	calibration, err := train.CalibrationOptions(f.Config, n)
	if err != nil {
		return err
	}
	if method != 0 {
		calibration.Method = method
	}
	r, err := ptq.Quantize(ctx, m, q, d.Train, d.Val, calibration)
	if err != nil {
		return err
	}
	for _, t := range r.Trials {
		a.log.Info("calibrated", "method", t.Method.String(), "validation accuracy", fmt.Sprintf("%.2f %%", t.Accuracy()))
	}
	text, err := f.Config.Marshal()
	if err != nil {
		return err
	}
	info := train.Info{Precision: p.String(), Method: "ptq", Ranges: r.Method.String()}
	err = durable.WriteDir(o.out, func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, train.ConfigFile), text, 0o666); err != nil {
			return err
		}
		info, err = train.WriteRun(dir, r.Model, info)
		return err
	})
	if err != nil {
		return err
	}
	return a.scoreRun(ctx, o.out, info, n, o.json, &o.dataFlags)
}
