package train

import (
	"fmt"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/quant"
)

// Phase is one stretch of training with settings of its own.
type Phase struct {
	Name           string // names the phase in files and messages: float, extra or qat
	Solver         configs.Solver
	Epochs         float64 // fractions of an epoch are allowed
	Batch          int
	Loss           string
	LabelSmoothing float64
	WeightClip     float64 // weights are limited to [-WeightClip, WeightClip] after every step; 0 = not
	TrackTest      bool    // score the test split after every epoch; the scores steer nothing
	EarlyStop      int     // epochs without gain on validation before stopping; 0 = off

	// Order makes the shuffles of two phases differ. Phases with the same Order see the same batches: fp32+ sees those
	// of quantization-aware training.
	Order uint64

	Fuse bool // one graph op for a layer with all that follows it: the same results, faster

	// Quantization-aware training only; fractions of the phase's steps, 1 = never.
	ScaleLR           float64
	ScaleStep         quant.ScaleStep
	ScaleFactor       quant.ScaleFactor
	PACTDecay         float64
	FreezeRangesAfter float64
	FreezeNormAfter   float64
	Backward          string // of layers on integers, as layers.Options says; networks in 16-bit floats have none

	EMA          float64 // decay of the average that is shipped; 0 = off
	BNReestimate int     // training batches; 0 = off
	Distill      *configs.Distill
	Oscillation  *configs.Oscillation
}

// FloatPhase is the float32 training of a config.
func FloatPhase(c *configs.Config) Phase {
	return Phase{
		Name: "float", Solver: c.Train.Solver, Epochs: float64(c.Train.Epochs), Batch: c.Dataset.Batch,
		Loss: c.Train.Loss, LabelSmoothing: c.Train.LabelSmoothing, EarlyStop: c.Train.EarlyStop, WeightClip: c.Train.WeightClip, TrackTest: c.Train.TrackTest,
		FreezeRangesAfter: 1, FreezeNormAfter: 1, Fuse: c.QAT == nil || c.QAT.Fuse,
	}
}

// QATPhase is the quantization-aware training of a config; the config must have a qat section.
func QATPhase(c *configs.Config) Phase {
	p := ExtraPhase(c)
	p.Name = "qat"
	p.ScaleLR, p.ScaleStep, p.ScaleFactor, p.PACTDecay = c.QAT.ScaleLR, c.QAT.ScaleStep, c.QAT.ScaleGradient, c.QAT.PACTDecay
	p.FreezeRangesAfter, p.Distill, p.Oscillation = c.QAT.FreezeRangesAfter, c.QAT.Distill, c.QAT.Oscillation
	p.Backward = c.QAT.Backward
	return p
}

// ExtraPhase is the control fp32+: the batches, epochs, rates, averages and batch-norm settings of quantization-aware
// training, without the quantizers and what is for them.
func ExtraPhase(c *configs.Config) Phase {
	return Phase{
		Name: "extra", Solver: c.QAT.Solver, Epochs: c.QAT.Epochs, Batch: c.Dataset.Batch,
		Loss: c.Train.Loss, LabelSmoothing: c.Train.LabelSmoothing, WeightClip: c.Train.WeightClip, TrackTest: c.Train.TrackTest,
		Order: 1, FreezeRangesAfter: 1, FreezeNormAfter: c.QAT.FreezeBNAfter, Fuse: c.QAT.Fuse,
		EMA: c.QAT.EMA, BNReestimate: c.QAT.BNReestimate,
	}
}

// Validate reports settings that cannot run.
func (p Phase) Validate() error {
	switch {
	case p.Batch < 1:
		return fmt.Errorf("phase %s: batch %d must be at least 1", p.Name, p.Batch)
	case !(p.Epochs > 0):
		return fmt.Errorf("phase %s: epochs %v must be positive", p.Name, p.Epochs)
	case !(p.Solver.LR > 0):
		return fmt.Errorf("phase %s: learning rate %v must be positive", p.Name, p.Solver.LR)
	case p.EMA > 0 && p.EarlyStop > 0:
		return fmt.Errorf("phase %s: an average of weights and early stop do not go together", p.Name)
	}
	return nil
}

// schedule is the learning-rate schedule for a phase of total steps, perEpoch to the epoch.
func (p Phase) schedule(perEpoch, total int) Schedule {
	s := p.Solver
	return Schedule{
		Kind: s.Schedule, Base: s.LR, Min: s.MinLR, Warmup: s.WarmupSteps,
		Every: s.StepEvery * perEpoch, Gamma: s.StepGamma, Total: total,
	}
}
