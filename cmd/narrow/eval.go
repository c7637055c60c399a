package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/train"
)

type evalOptions struct {
	dataFlags
	engine, split, dataset string
	workers                int
	json                   bool
}

// evalResult is what eval prints.
type evalResult struct {
	Subject   string  `json:"subject"`
	Model     string  `json:"model"`
	Precision string  `json:"precision"`
	Dataset   string  `json:"dataset"`
	Split     string  `json:"split"`
	Engine    string  `json:"engine"`
	Examples  int     `json:"examples"`
	Correct   int     `json:"correct"`
	Accuracy  float64 `json:"accuracy"`
}

func (a *app) evalCommand() *cobra.Command {
	var o evalOptions
	c := &cobra.Command{
		Use:   "eval RUN|FILE",
		Short: "Score a model on a split of its data set",
		Args:  arguments(1, 1, "a RUN or a FILE"),
		RunE:  func(c *cobra.Command, args []string) error { return a.eval(c.Context(), args[0], &o) },
	}
	o.dataFlags.add(c)
	c.Flags().StringVar(&o.engine, "engine", "integer", "what computes, an `engine`: integer (the one that ships) or graph (the training graph; runs only)")
	c.Flags().StringVar(&o.split, "split", "test", "the `split` to score: train, val or test")
	c.Flags().StringVar(&o.dataset, "dataset", "", "data set `name`, for a model file")
	c.Flags().IntVar(&o.workers, "workers", 0, "goroutines, 0 = one per CPU; the result does not depend on it")
	c.Flags().BoolVar(&o.json, "json", false, "print one JSON document")
	return c
}

func (a *app) eval(ctx context.Context, name string, o *evalOptions) error {
	n, err := workers(o.workers)
	if err != nil {
		return err
	}
	if o.engine != "integer" && o.engine != "graph" {
		return usagef("--engine %q is unknown (allowed: integer, graph)", o.engine)
	}
	s, err := openSubject(name)
	if err != nil {
		return err
	}
	if o.engine == "graph" && s.run == nil {
		return usagef("--engine graph needs a run folder: a model file has no float masters to build a graph from")
	}
	d, err := s.data(ctx, o.dataset, o.options(a))
	if err != nil {
		return err
	}
	set, err := split(d, o.split)
	if err != nil {
		return err
	}
	var score train.Score
	if o.engine == "graph" {
		score, err = scoreGraph(ctx, s.run, d, set, n)
	} else {
		score, err = train.ScoreModel(ctx, s.frozen, set, n)
	}
	if err != nil {
		return err
	}
	r := evalResult{Subject: name, Model: s.frozen.Name, Precision: s.frozen.Precision.String(), Dataset: d.Name, Split: o.split,
		Engine: o.engine, Examples: score.N, Correct: score.Correct, Accuracy: score.Accuracy()}
	if o.json {
		return a.writeJSON(r)
	}
	_, err = fmt.Fprintf(a.stdout, "%s  %s on %s %s (%s engine): accuracy %.2f %% (%d of %d)\n", r.Model, r.Precision, r.Dataset, r.Split, r.Engine, r.Accuracy, r.Correct, r.Examples)
	return err
}

// graphBatch is how many rows the evaluation graph takes.
const graphBatch = 64

// scoreGraph scores a run's model in the evaluation graph that it was trained with.
func scoreGraph(ctx context.Context, run *train.Folder, d *datasets.Dataset, set *datasets.Set, workers int) (train.Score, error) {
	m, err := run.Model(d)
	if err != nil {
		return train.Score{}, err
	}
	pool := par.New(workers)
	defer pool.Close()
	net, err := layers.Build(m, layers.Options{Batch: graphBatch, Pool: pool})
	if err != nil {
		return train.Score{}, err
	}
	defer net.Close()
	score := train.Score{N: set.Len()}
	for b, err := range set.Batches(ctx, datasets.BatchOptions{Size: graphBatch}) {
		if err != nil {
			return score, err
		}
		r, err := net.Run(b.X, b.Labels, b.N)
		if err != nil {
			return score, err
		}
		score.Correct += r.Correct
	}
	return score, nil
}
