package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/quant"
)

// configFlags are the flags of commands that take a CONFIG.
type configFlags struct{ set []string }

func (f *configFlags) add(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.set, "set", nil, "change a setting, `path=value`: train.lr=0.001, model.fc1.units=64; may be repeated")
}

func (f *configFlags) open(name string) (*configs.Config, error) { return configs.Open(name, f.set...) }

// dataFlags are the flags of commands that need a data set.
type dataFlags struct {
	dir      string
	download bool
}

func (f *dataFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.dir, "data", "", "`folder` with one folder per data set (default $NARROW_DATA, then the usual places)")
	c.Flags().BoolVar(&f.download, "download", false, "fetch the data set if it is not on this machine")
}

func (f *dataFlags) options(a *app) datasets.Options {
	return datasets.Options{Dir: f.dir, Download: f.download, Progress: a.downloads()}
}

// load reads the data set of a config, cut as the config says.
func (f *dataFlags) load(ctx context.Context, a *app, c *configs.Config) (*datasets.Dataset, error) {
	o := f.options(a)
	o.ValFraction, o.Limit, o.Seed = c.Dataset.ValFraction, c.Dataset.Limit, c.Seed
	return datasets.Load(ctx, c.Dataset.Name, o)
}

// downloads shows the course of downloads: a line per tenth of a file.
func (a *app) downloads() func(datasets.Progress) {
	if a.quiet {
		return nil
	}
	file, next := "", int64(0)
	return func(p datasets.Progress) {
		if p.File != file {
			file, next = p.File, 0
		}
		if p.Done < next && p.Done != p.Total {
			return
		}
		if p.Total < 0 {
			fmt.Fprintf(a.stderr, "%s: %d KiB\n", p.File, p.Done>>10)
			next = p.Done + 1<<20
			return
		}
		fmt.Fprintf(a.stderr, "%s: %d of %d KiB\n", p.File, p.Done>>10, p.Total>>10)
		next = p.Done + max(p.Total/10, 1)
	}
}

// precision reads a --precision flag; nil if it was not given.
func precision(flag string) (*quant.Precision, error) {
	if flag == "" {
		return nil, nil
	}
	p, err := quant.ParsePrecision(flag)
	if err != nil {
		return nil, usagef("--precision: %w", err)
	}
	return &p, nil
}

// list reads a flag of comma-separated words.
func list(flag string) []string {
	var out []string
	for _, s := range strings.Split(flag, ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}
