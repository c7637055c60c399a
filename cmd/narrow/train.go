package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/narrow-ml/narrow/train"
)

type trainOptions struct {
	configFlags
	dataFlags
	precision, out string
	resume         bool
	workers        int
	checkpoint     int
	json           bool
}

// runResult is what train and quantize print.
type runResult struct {
	Run       string  `json:"run"`
	Precision string  `json:"precision"`
	Method    string  `json:"method"`
	Ranges    string  `json:"ranges,omitempty"`
	Split     string  `json:"split"`
	Examples  int     `json:"examples"`
	Correct   int     `json:"correct"`
	Accuracy  float64 `json:"accuracy"`

	Tracked *train.Tracked `json:"tracked_test,omitempty"`
}

func (a *app) trainCommand() *cobra.Command {
	var o trainOptions
	c := &cobra.Command{
		Use:   "train CONFIG",
		Short: "Train, with quantization-aware training where the config has it; writes a run folder",
		Args:  arguments(1, 1, "a CONFIG"),
		RunE:  func(c *cobra.Command, args []string) error { return a.train(c.Context(), args[0], &o) },
	}
	o.configFlags.add(c)
	o.dataFlags.add(c)
	c.Flags().StringVarP(&o.precision, "precision", "p", "", "train for this `precision` instead of the config's (fp32, int8, w4a8, ...)")
	c.Flags().StringVarP(&o.out, "out", "o", "", "run `folder` (default runs/NAME, or runs/NAME-PRECISION)")
	c.Flags().BoolVar(&o.resume, "resume", false, "go on with the run in the folder")
	c.Flags().IntVar(&o.workers, "workers", 0, "goroutines, 0 = one per CPU; the result does not depend on it")
	c.Flags().IntVar(&o.checkpoint, "checkpoint-every", 0, "`steps` between checkpoints, besides those after every epoch; 0 = every 20 seconds")
	c.Flags().BoolVar(&o.json, "json", false, "print one JSON document")
	return c
}

func (a *app) train(ctx context.Context, name string, o *trainOptions) error {
	c, err := o.open(name)
	if err != nil {
		return err
	}
	p, err := precision(o.precision)
	if err != nil {
		return err
	}
	n, err := workers(o.workers)
	if err != nil {
		return err
	}
	if o.checkpoint < 0 {
		return usagef("--checkpoint-every is %d (allowed: 0 or more steps)", o.checkpoint)
	}
	if o.out == "" {
		o.out = filepath.Join("runs", c.Name)
		if p != nil {
			o.out += "-" + p.String()
		}
	}
	d, err := o.load(ctx, a, c)
	if err != nil {
		return err
	}
	info, err := train.Run(ctx, c, d, train.RunOptions{
		Dir: o.out, Resume: o.resume, Precision: p, Workers: n, CheckpointEvery: o.checkpoint, Progress: a.progress(), Log: a.log,
	})
	if errors.Is(err, context.Canceled) {
		fmt.Fprintf(a.stderr, "narrow: progress is saved in %s; the same command with --resume --out %s goes on\n", o.out, o.out)
	}
	if err != nil {
		return err
	}
	return a.scoreRun(ctx, o.out, info, n, o.json, &o.dataFlags)
}

// scoreRun scores the frozen model of a finished run on the test split and prints the run's result.
func (a *app) scoreRun(ctx context.Context, dir string, info train.Info, workers int, asJSON bool, data *dataFlags) error {
	f, err := train.OpenRun(dir)
	if err != nil {
		return err
	}
	d, err := f.Data(ctx, data.options(a))
	if err != nil {
		return err
	}
	m, err := f.Frozen()
	if err != nil {
		return err
	}
	s, err := train.ScoreModel(ctx, m, d.Test, workers)
	if err != nil {
		return err
	}
	r := runResult{Run: dir, Precision: info.Precision, Method: info.Method, Ranges: info.Ranges, Split: "test", Examples: s.N, Correct: s.Correct, Accuracy: s.Accuracy(), Tracked: info.Tracked}
	if asJSON {
		return a.writeJSON(r)
	}
	_, err = fmt.Fprintf(a.stdout, "%s  %s %s  test accuracy %.2f %% (%d of %d)\n", r.Run, r.Precision, methodText(r.Method), r.Accuracy, r.Correct, r.Examples)
	if t := r.Tracked; err == nil && t != nil {
		_, err = fmt.Fprintf(a.stdout, "best test accuracy of any epoch %.2f %% (epoch %d): the best of many scores, for comparison with recipes that report it\n", t.Best, t.BestEpoch)
	}
	return err
}

// methodText is how a method is called in sentences.
func methodText(method string) string {
	switch method {
	case "none":
		return "trained"
	case "ptq":
		return "post-training quantized"
	case "qat":
		return "quantization-aware trained"
	}
	return method
}
