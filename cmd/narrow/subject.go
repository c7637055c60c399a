package main

import (
	"context"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/train"
)

// subject is what a RUN|FILE argument means.
type subject struct {
	name   string
	frozen *model.Model
	run    *train.Folder // nil for a file
}

// openSubject reads a run folder or a frozen model file.
func openSubject(name string) (*subject, error) {
	if isFolder(name) {
		f, err := train.OpenRun(name)
		if err != nil {
			return nil, err
		}
		m, err := f.Frozen()
		if err != nil {
			return nil, err
		}
		return &subject{name: name, frozen: m, run: f}, nil
	}
	for _, preset := range append(configs.Presets(), "digits") {
		if name == preset {
			return nil, usagef("%q is a config; train it first (narrow train %s) and give the run folder", name, name)
		}
	}
	m, err := train.ReadFrozen(name)
	if err != nil {
		return nil, err
	}
	return &subject{name: name, frozen: m}, nil
}

// data loads the subject's data set: that of the run, or the one named by the --dataset flag.
func (s *subject) data(ctx context.Context, name string, o datasets.Options) (*datasets.Dataset, error) {
	switch {
	case s.run != nil && name != "" && name != s.run.Config.Dataset.Name:
		return nil, usagef("%s was trained on %s; --dataset is for model files", s.name, s.run.Config.Dataset.Name)
	case s.run != nil:
		return s.run.Data(ctx, o)
	case name == "":
		return nil, usagef("%s does not say what it was trained on: add --dataset NAME, or give its run folder", s.name)
	}
	return datasets.Load(ctx, name, o)
}

// split is one part of a data set, by name.
func split(d *datasets.Dataset, name string) (*datasets.Set, error) {
	switch name {
	case "train":
		return d.Train, nil
	case "val":
		if d.Val == nil {
			return nil, usagef("--split val: there is no validation split (val_fraction is 0)")
		}
		return d.Val, nil
	case "test":
		return d.Test, nil
	}
	return nil, usagef("--split %q is unknown (allowed: train, val, test)", name)
}
