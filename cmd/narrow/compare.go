package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/narrow-ml/narrow/quant"
	"github.com/narrow-ml/narrow/study"
)

type compareOptions struct {
	configFlags
	dataFlags
	precisions, methods string
	seeds               int
	out                 string
	resume              bool
	workers             int
	json                bool
}

func (a *app) compareCommand() *cobra.Command {
	var o compareOptions
	c := &cobra.Command{
		Use:   "compare CONFIG",
		Short: "FP32, PTQ and QAT over precisions and seeds, in one table and a report",
		Args:  arguments(1, 1, "a CONFIG"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.compare(c.Context(), args[0], &o, c.Flags().Changed("seeds"))
		},
	}
	o.configFlags.add(c)
	o.dataFlags.add(c)
	c.Flags().StringVarP(&o.precisions, "precisions", "p", "", "`list` such as fp32,int8,w4a8 (default: the config's)")
	c.Flags().StringVar(&o.methods, "methods", "", "`list` of ptq, qat (default: the config's)")
	c.Flags().IntVar(&o.seeds, "seeds", 0, "how many seeds (default: the config's)")
	c.Flags().StringVarP(&o.out, "out", "o", "", "`folder` for report.html, compare.json and finished cells (default runs/NAME-compare)")
	c.Flags().BoolVar(&o.resume, "resume", false, "use the finished cells in the folder")
	c.Flags().IntVar(&o.workers, "workers", 0, "goroutines, 0 = one per CPU; accuracies do not depend on it")
	c.Flags().BoolVar(&o.json, "json", false, "print one JSON document instead of the table")
	return c
}

func (a *app) compare(ctx context.Context, name string, o *compareOptions, seedsGiven bool) error {
	set := append([]string(nil), o.set...)
	if o.precisions != "" {
		for _, p := range list(o.precisions) {
			if _, err := quant.ParsePrecision(p); err != nil {
				return usagef("--precisions: %w", err)
			}
		}
		set = append(set, "compare.precisions=["+strings.Join(list(o.precisions), ", ")+"]")
	}
	if o.methods != "" {
		for _, m := range list(o.methods) {
			if m != study.MethodPTQ && m != study.MethodQAT {
				return usagef("--methods: unknown method %q (allowed: ptq, qat)", m)
			}
		}
		set = append(set, "compare.methods=["+strings.Join(list(o.methods), ", ")+"]")
	}
	if seedsGiven && o.seeds < 1 {
		return usagef("--seeds is %d; it must be at least 1", o.seeds)
	}
	if seedsGiven {
		set = append(set, fmt.Sprintf("compare.seeds=%d", o.seeds))
	}
	c, err := (&configFlags{set}).open(name)
	if err != nil {
		return err
	}
	n, err := workers(o.workers)
	if err != nil {
		return err
	}
	if o.out == "" {
		o.out = filepath.Join("runs", c.Name+"-compare")
	}
	d, err := o.load(ctx, a, c)
	if err != nil {
		return err
	}
	res, err := study.Compare(ctx, study.Options{Config: c, Data: d, Dir: o.out, Resume: o.resume, Workers: n, Progress: a.progress(), Log: a.log})
	if errors.Is(err, context.Canceled) {
		fmt.Fprintf(a.stderr, "narrow: finished cells are in %s; the same command with --resume --out %s goes on\n", o.out, o.out)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "report: %s\n", filepath.Join(o.out, study.ReportFile))
	if o.json {
		return res.WriteJSON(a.stdout)
	}
	return res.WriteTable(a.stdout)
}
