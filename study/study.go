package study

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/internal/cpu"
	"github.com/narrow-ml/narrow/internal/durable"
	"github.com/narrow-ml/narrow/internal/par"
)

// Options says what to compare and where to keep it.
type Options struct {
	Config   *configs.Config
	Data     *datasets.Dataset
	Dir      string // for compare.json, report.html and finished cells; "" keeps nothing
	Resume   bool   // use the finished cells in Dir
	Workers  int    // 0 means one per CPU. No effect on accuracies
	Progress io.Writer
	Log      *slog.Logger
}

func (o Options) resolve() (Options, error) {
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Config == nil || o.Data == nil:
		return o, errors.New("compare: a config and a data set are needed")
	case o.Workers < 0:
		return o, fmt.Errorf("compare: %d workers; use at least 1, or 0 for one per CPU", o.Workers)
	case o.Resume && o.Dir == "":
		return o, errors.New("compare: resuming needs the folder of the first run")
	}
	if err := o.Data.Validate(); err != nil {
		return o, fmt.Errorf("compare: %w", err)
	}
	if set := o.scored(); set == nil || set.Len() == 0 {
		return o, fmt.Errorf("compare: data set %q has no %s split to score on", o.Data.Name, o.Config.Compare.Split)
	}
	return o, nil
}

// scored is the split that the models are scored on.
func (o *Options) scored() *datasets.Set {
	if o.Config.Compare.Split == splitValidation {
		return o.Data.Val
	}
	return o.Data.Test
}

// splitValidation is the split for settings that are still being chosen.
const splitValidation = "validation"

// Result is a finished comparison; its JSON form is compare.json.
type Result struct {
	Config  string   `json:"config"`
	Dataset string   `json:"dataset"`
	Rows    []Row    `json:"rows"`
	Verdict []string `json:"verdict"`

	Seeds     []uint64 `json:"seeds"`
	Split     string   `json:"split"` // what was scored: test or validation
	Examples  int      `json:"examples"`
	Tier      string   `json:"instruction_tier"`
	GoVersion string   `json:"go_version"`
	Workers   int      `json:"workers"` // of the speed measurement
	Rerun     int      `json:"-"`       // cells that were run, not taken from the folder
}

// Row is one precision and method over all seeds. A nil number was not measured.
type Row struct {
	Precision        string   `json:"precision"`
	Method           string   `json:"method"`            // none, fp32+, ptq, qat
	Variant          string   `json:"variant,omitempty"` // of the config; "" is the config itself
	Metric           string   `json:"metric"`
	Mean             float64  `json:"mean"`
	Std              *float64 `json:"std"`
	CI95             *float64 `json:"ci95"`
	DeltaFP32        *float64 `json:"delta_fp32"`
	DeltaFP32Plus    *float64 `json:"delta_fp32plus"`
	PairedDeltaPTQ   *float64 `json:"paired_delta_ptq"`
	PValue           *float64 `json:"p_value"`
	WeightBytes      int      `json:"weight_bytes"`
	FileBytes        int      `json:"file_bytes"`
	LatencyMicros    float64  `json:"latency_us"`
	Throughput       float64  `json:"throughput"`
	EnergyNanojoules *float64 `json:"energy_nj_modelled"`
	TrainSeconds     float64  `json:"train_seconds"`
	Seeds            []uint64 `json:"seeds"`

	Values        []float64 `json:"values"`                // accuracy of each seed
	PairedCI95PTQ *float64  `json:"paired_ci95_ptq"`       // half width, on qat rows
	PTQMethods    []string  `json:"ptq_methods,omitempty"` // calibration method of each seed
	Rules         bool      `json:"rules,omitempty"`       // rules of the config change the formats of some layers
	EvenLevels    bool      `json:"even_levels,omitempty"` // weights have as many levels above zero as below, and none at it
	WeightBits    int       `json:"weight_bits"`
	ActBits       int       `json:"act_bits"`
}

// name is the method, with the variant behind it.
func (r *Row) name() string {
	if r.Variant == "" {
		return r.Method
	}
	return r.Method + " " + r.Variant
}

// The methods of a row.
const (
	MethodNone  = "none"
	MethodExtra = "fp32+"
	MethodPTQ   = "ptq"
	MethodQAT   = "qat"
)

// accuracyMetric is the one metric of classification.
const accuracyMetric = "accuracy"

// The files of a study's folder.
const (
	ResultFile = "compare.json"
	ReportFile = "report.html"
	cellsDir   = "cells"
)

// Compare runs every cell that the config asks for, measures speed, and judges. When ctx ends it returns ctx's error;
// cells that were finished stay in Dir.
func Compare(ctx context.Context, o Options) (*Result, error) {
	o, err := o.resolve()
	if err != nil {
		return nil, err
	}
	p, err := newPlan(o.Config, o.Data)
	if err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	s, err := openStore(o, p)
	if err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	pool := par.New(o.Workers)
	defer pool.Close()
	r := &runner{Options: o, plan: p, store: s, pool: pool, report: newCellProgress(o.Progress, p.cells)}
	if err := r.runAll(ctx); err != nil {
		return nil, r.explain(ctx, err)
	}
	speeds, err := r.measure(ctx)
	if err != nil {
		return nil, r.explain(ctx, fmt.Errorf("measuring speed: %w", err))
	}
	res := &Result{
		Config: o.Config.Name, Dataset: o.Data.Name, Seeds: p.seeds, Split: o.Config.Compare.Split, Examples: o.scored().Len(),
		Tier: cpu.Active().String(), GoVersion: runtime.Version(), Workers: o.Workers, Rerun: r.rerun,
	}
	if res.Rows, err = p.rows(r.outcomes, speeds); err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	res.Verdict = res.judge()
	return res, res.save(o.Dir)
}

// explain adds how to go on after an interruption.
func (r *runner) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil && r.Dir != "" {
		return fmt.Errorf("compare: %w; %d of %d cells are finished in %s, resume to go on with the rest", err, len(r.outcomes), len(r.plan.cells), r.Dir)
	}
	return fmt.Errorf("compare: %w", err)
}

func (res *Result) save(dir string) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(dir, ResultFile), res.WriteJSON); err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(dir, ReportFile), res.WriteHTML); err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	return nil
}
