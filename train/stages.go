package train

import (
	"context"
	"fmt"
	"math"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat/ptq"
	"github.com/narrow-ml/narrow/quant"
)

// Stage is a stretch of quantization-aware training at one precision.
type Stage struct {
	At        float64         // part of the phase's steps after which it begins
	Precision quant.Precision // quant.Full: float32
}

// Stages are those of a config's quantization-aware training to precision p, from qat.delay and qat.lower; nil if it is at p
// from the first step to the last, and for float32. m is the float model; a precision that it cannot have is an error.
func Stages(c *configs.Config, m *model.Model, p quant.Precision) ([]Stage, error) {
	if c.QAT == nil || p == quant.Full || c.QAT.Delay == 0 && len(c.QAT.Lower) == 0 {
		return nil, nil
	}
	var stages []Stage
	if c.QAT.Delay > 0 {
		stages = append(stages, Stage{0, quant.Full})
	}
	for _, l := range c.QAT.Lower {
		at, err := quant.ParsePrecision(l.Precision)
		if err != nil {
			return nil, fmt.Errorf("qat.lower: %w", err)
		}
		stages = append(stages, Stage{l.At, at})
	}
	if len(c.QAT.Lower) == 0 {
		return append(stages, Stage{c.QAT.Delay, p}), nil
	}
	for _, s := range stages {
		if s.Precision == quant.Full {
			continue
		}
		if err := placeable(c, m, s.Precision); err != nil {
			return nil, fmt.Errorf("qat.lower: precision %s: %w", s.Precision, err)
		}
	}
	if last := stages[len(stages)-1].Precision; last != p {
		return nil, fmt.Errorf("qat.lower ends at %s, and the model is to be %s: end it there, or ask for %s alone", last, p, last)
	}
	return stages, nil
}

// placeable reports why a float model cannot have a precision.
func placeable(c *configs.Config, m *model.Model, p quant.Precision) error {
	q, err := c.QuantConfig(p)
	if err != nil {
		return err
	}
	placed, err := model.Place(m, q)
	if err != nil {
		return err
	}
	if placed, err = model.Share(placed); err != nil {
		return err
	}
	return model.Check(placed)
}

// StartQAT is the model that quantization-aware training of the float model m to precision p begins with: m calibrated at
// the precision of the first stage or, under a delay, m itself; the result of calibration is nil then. Masters are m's own
// unless a pass of the calibration changes them.
func StartQAT(ctx context.Context, c *configs.Config, m *model.Model, p quant.Precision, d *datasets.Dataset, seed uint64, workers int) (*model.Model, *ptq.Result, error) {
	stages, err := Stages(c, m, p)
	if err != nil {
		return nil, nil, err
	}
	if len(stages) > 0 {
		p = stages[0].Precision
	}
	if p == quant.Full {
		return m, nil, nil
	}
	r, q, err := calibrated(ctx, c, m, p, d, seed, workers)
	if err != nil {
		return nil, nil, err
	}
	start, err := ptq.ForTraining(r.Model, q)
	return start, r, err
}

// begins is the step at which a stage begins.
func (f *fit) begins(stage int) int {
	if stage == 0 {
		return 0
	}
	return int(math.Round(f.Stages[stage].At * float64(f.pos.Total)))
}

// checkStages reports stages that would never come.
func (f *fit) checkStages() error {
	last := len(f.Stages) - 1
	switch {
	case last < 1:
		return nil
	case f.Config == nil:
		return fmt.Errorf("%d stages need the config that says how each is quantized", last+1)
	case f.begins(last) >= f.pos.Total:
		return fmt.Errorf("precision %s begins at step %d of %d and would never be trained: lower qat.delay or qat.lower, or train for more epochs", f.Stages[last].Precision, f.begins(last), f.pos.Total)
	}
	return nil
}

// stageModel is the model of a stage as a checkpoint finds it: its masters, scales and zero points are still to be read.
func (f *fit) stageModel(stage int) (*model.Model, error) {
	if stage == 0 {
		return f.Job.Model, nil
	}
	q, err := f.Config.QuantConfig(f.Stages[stage].Precision)
	if err != nil {
		return nil, err
	}
	m, err := model.Place(f.Job.Model, q)
	if err != nil {
		return nil, err
	}
	return model.Share(m)
}

// enter goes on to the stages that begin at this step: out of float32 by calibration, from grid to grid with the same
// ranges of activations. The optimizer starts anew, since its moments belong to other gradients.
func (f *fit) enter(ctx context.Context) error {
	for f.pos.Stage+1 < len(f.Stages) && f.pos.Step >= f.begins(f.pos.Stage+1) {
		to := f.Stages[f.pos.Stage+1].Precision
		m, err := f.requantized(ctx, to)
		if err != nil {
			return fmt.Errorf("step %d: on to precision %s: %w", f.pos.Step, to, err)
		}
		f.pos.Stage++
		f.model = m
		if err := f.build(); err != nil {
			return fmt.Errorf("step %d: at precision %s: %w", f.pos.Step, to, err)
		}
		f.Log.Info("precision", "phase", f.Phase.Name, "step", f.pos.Step, "now", to.String())
	}
	return nil
}

// requantized is the model at the next precision.
func (f *fit) requantized(ctx context.Context, to quant.Precision) (*model.Model, error) {
	if f.model.Stage == model.Float {
		r, q, err := calibrated(ctx, f.Config, f.model, to, f.Data, f.Seed, f.Pool.Workers())
		if err != nil {
			return nil, err
		}
		f.pos.Ranges = r.Method.String()
		return ptq.ForTraining(r.Model, q)
	}
	q, err := f.Config.QuantConfig(to)
	if err != nil {
		return nil, err
	}
	return ptq.Regrid(f.model, q)
}
