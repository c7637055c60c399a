package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/narrow-ml/narrow/export"
)

type verifyOptions struct {
	dataFlags
	rows, dataset string
	workers       int
	json          bool
}

func (a *app) verifyCommand() *cobra.Command {
	var o verifyOptions
	c := &cobra.Command{
		Use:   "verify RUN|FILE",
		Short: "Prove that what was trained, what runs and what is exported are the same integers",
		Long: `Verify runs test examples through the training framework's graphs, the integer engine, and an independent
interpreter of the exported ONNX file, and compares every tensor of every layer. It exits with 1 when a single integer
differs.`,
		Args: arguments(1, 1, "a RUN or a FILE"),
		RunE: func(c *cobra.Command, args []string) error { return a.verify(c.Context(), args[0], &o) },
	}
	o.dataFlags.add(c)
	c.Flags().StringVar(&o.rows, "rows", "256", "how many test examples, a `number` or all")
	c.Flags().StringVar(&o.dataset, "dataset", "", "data set `name`, for a model file")
	c.Flags().IntVar(&o.workers, "workers", 0, "goroutines, 0 = one per CPU; the result does not depend on it")
	c.Flags().BoolVar(&o.json, "json", false, "print one JSON document")
	return c
}

func (a *app) verify(ctx context.Context, name string, o *verifyOptions) error {
	n, err := workers(o.workers)
	if err != nil {
		return err
	}
	rows := 0
	if o.rows != "all" {
		if rows, err = strconv.Atoi(o.rows); err != nil || rows < 1 {
			return usagef("--rows is %q (allowed: a number from 1, or all)", o.rows)
		}
	}
	s, err := openSubject(name)
	if err != nil {
		return err
	}
	d, err := s.data(ctx, o.dataset, o.options(a))
	if err != nil {
		return err
	}
	subject := export.Subject{Frozen: s.frozen}
	if s.run != nil {
		if subject.Trained, err = s.run.Model(d); err != nil {
			return err
		}
	}
	if rows > d.Test.Len() {
		rows = 0
	}
	cert, err := export.Verify(ctx, subject, d.Test, export.Options{Rows: rows, Workers: n})
	if err != nil {
		return err
	}
	if o.json {
		err = a.writeJSON(cert)
	} else {
		err = a.writeCertificate(cert)
	}
	if err == nil && !cert.Identical {
		return fmt.Errorf("%s: %w", name, errNotIdentical)
	}
	return err
}

func (a *app) writeCertificate(cert *export.Certificate) error {
	fmt.Fprintf(a.stdout, "%s, %s, %s examples\n\n", cert.Model, cert.Precision, thousands(cert.Rows))
	t := newTable("layer", ">elements", ">equal", ">off by one", ">largest difference")
	for _, l := range cert.Layers {
		t.add(l.Name, l.Elements, l.Equal, l.OffByOne, l.MaxDiff)
	}
	if err := t.write(a.stdout); err != nil {
		return err
	}
	fmt.Fprintln(a.stdout)
	for _, leg := range cert.Legs {
		verdict := "identical"
		if !leg.Identical {
			verdict = "NOT identical"
		}
		if !leg.Claimed {
			verdict += " (reported, not claimed)"
		}
		fmt.Fprintf(a.stdout, "%s: %s", leg.Name, verdict)
		if leg.Note != "" {
			fmt.Fprintf(a.stdout, "; %s", leg.Note)
		}
		fmt.Fprintln(a.stdout)
	}
	for _, d := range cert.Differences {
		fmt.Fprintln(a.stdout, d)
	}
	verdict := "identical"
	if !cert.Identical {
		verdict = "NOT identical"
	}
	_, err := fmt.Fprintln(a.stdout, verdict)
	return err
}
