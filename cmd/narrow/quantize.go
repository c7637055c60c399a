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
	precision, method, out   string
	equalize, biasCorrection bool
	rounding                 string
	workers                  int
	json                     bool
}

func (a *app) quantizeCommand() *cobra.Command {
	var o quantizeOptions
	c := &cobra.Command{
		Use:   "quantize RUN",
		Short: "Post-training quantization of a float run; writes a run folder",
		Args:  arguments(1, 1, "a RUN"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.quantize(c.Context(), args[0], &o, c.Flags().Changed)
		},
	}
	o.dataFlags.add(c)
	c.Flags().StringVarP(&o.precision, "precision", "p", "", "the `precision` to quantize to (int8, w4a8, fp16, ...)")
	c.Flags().StringVarP(&o.method, "method", "m", "", "calibration `method`: minmax, percentile, mse, kl, histogram, or auto (default: the config's)")
	c.Flags().StringVar(&o.rounding, "rounding", "", "`rounding` of weights: nearest, adaround, or gptq (default: the config's)")
	c.Flags().BoolVar(&o.equalize, "equalize", false, "equalize the channels of neighbouring layers first (default: the config's)")
	c.Flags().BoolVar(&o.biasCorrection, "bias-correction", false, "take the mean shift of each layer's output back into its bias (default: the config's)")
	c.Flags().StringVarP(&o.out, "out", "o", "", "run `folder` to write (default RUN-PRECISION)")
	c.Flags().IntVar(&o.workers, "workers", 0, "goroutines, 0 = one per CPU; the result does not depend on it")
	c.Flags().BoolVar(&o.json, "json", false, "print one JSON document")
	return c
}

// quantize works on the run in dir; given reports whether a flag was.
func (a *app) quantize(ctx context.Context, dir string, o *quantizeOptions, given func(flag string) bool) error {
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
	var rounding ptq.Rounding
	if o.rounding != "" {
		if rounding, err = ptq.ParseRounding(o.rounding); err != nil {
			return usagef("--rounding: %w", err)
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
	if o.rounding != "" && f.Config.Quant != nil { // the levels of 2-bit weights depend on it
		if err := f.Config.Set("quant.calibration.rounding=" + o.rounding); err != nil {
			return err
		}
	}
	q, err := f.Config.QuantConfig(*p)
	if err != nil {
		return err
	}
	if err := f.Config.CheckPTQ(); err != nil {
		return err
	}
	calibration, err := train.CalibrationOptions(f.Config, n)
	if err != nil {
		return err
	}
	calibration = calibration.For(*p) // the config's passes; the flags below stay as they are
	if method != 0 {
		calibration.Method = method
	}
	if rounding != 0 {
		calibration.Rounding = rounding
	}
	if given("equalize") {
		calibration.Equalize = o.equalize
	}
	if given("bias-correction") {
		calibration.BiasCorrection = o.biasCorrection
	}
	calibration.Progress = func(s ptq.Step) {
		if s.Layer != "" {
			a.log.Info(s.Pass, "layer", s.Layer, "done", s.Done, "of", s.Total)
		}
	}
	r, err := ptq.Quantize(ctx, m, q, d.Train, d.Val, calibration)
	if err != nil {
		return err
	}
	for _, t := range r.Trials {
		a.log.Info("calibrated", "method", t.Method.String(), "validation accuracy", fmt.Sprintf("%.2f %%", t.Accuracy()))
	}
	for _, e := range r.Equalized {
		a.log.Info("equalized", "layers", e.From+" -> "+e.To, "ranges before", fmt.Sprintf("%.1f-fold", e.Before), "after", fmt.Sprintf("%.1f-fold", e.After))
	}
	for _, l := range r.Rounded {
		a.log.Info("rounded", "layer", l.Layer, "error", fmt.Sprintf("%.3g", l.Error), "nearest", fmt.Sprintf("%.3g", l.Nearest), "moved", l.Moved)
	}
	for _, l := range r.Shifted {
		a.log.Info("bias corrected", "layer", l.Layer, "largest shift", fmt.Sprintf("%.3g", l.Largest))
	}
	text, err := f.Config.Marshal()
	if err != nil {
		return err
	}
	info := train.Info{Precision: p.String(), Method: "ptq", Ranges: r.Method.String(), Passes: r.Passes()}
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
