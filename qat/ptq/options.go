package ptq

import (
	"fmt"
	"runtime"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// Options says how a model is calibrated and which passes follow. The zero value is usable: 1024 examples, method minmax,
// weights rounded to nearest.
type Options struct {
	Examples   int     // calibration examples; 0 means 1024, and never more than the set has
	Method     Method  // 0 means MinMax
	Percentile float64 // for method percentile, in (50, 100]; 0 means 99.99
	Seed       uint64  // chooses the examples
	Batch      int     // examples run at a time; 0 means 64. No effect on the result
	Workers    int     // 0 means one per CPU. No effect on the result

	Equalize       bool       // Equalize before calibration
	Rounding       Rounding   // of weights; 0 means Nearest
	BiasCorrection bool       // CorrectBias at the end
	Iterations     int        // of AdaRound in each layer; 0 means 1500
	Progress       func(Step) // called as the passes go on; may be nil
}

// Step is how far a pass has come. Layer is the one it is at, "" at the end.
type Step struct {
	Pass, Layer string
	Done, Total int // layers
}

// The pass that is not a Rounding, in a Step.
const passBias = "bias correction"

func (o *Options) progress(s Step) {
	if o.Progress != nil {
		o.Progress(s)
	}
}

// For is o for a precision: the passes that choose codes (learned rounding, bias correction) are left out for weights in
// 16-bit floats, which have none, and in 16-bit integers, where there is nothing to win. It is for callers that run one configuration at several precisions; [Quantize] itself refuses
// passes that cannot apply.
func (o Options) For(p quant.Precision) Options {
	if !chooses(p) {
		o.Rounding, o.BiasCorrection = Nearest, false
	}
	return o
}

// chooses reports whether a precision leaves a choice of codes worth making.
func chooses(p quant.Precision) bool { return p.Weight.IsInteger() && p.Weight.Bits() <= 8 }

// Check reports a pass of o that cannot be applied to the float model m at a precision: equalization without a pair of
// layers, or through a capped ReLU; learned rounding or bias correction without integers; a layer without a bias to
// correct. The weights do not matter, so that it can be asked before training.
func (o Options) Check(m *model.Model, p quant.Precision) error {
	if !chooses(p) && (o.Rounding > Nearest || o.BiasCorrection) {
		pass := passBias
		if o.Rounding > Nearest {
			pass = "rounding " + o.Rounding.String()
		}
		return fmt.Errorf("%s is for integer weights and has nothing to work on here: leave it out, or quantize to int8 or below", pass)
	}
	if !o.Equalize && !o.BiasCorrection {
		return nil
	}
	fused, err := model.Fuse(m)
	if err != nil {
		return err
	}
	if o.Equalize {
		pairs, err := pairable(fused)
		if err != nil {
			return err
		}
		if len(pairs) == 0 {
			return errNoPair
		}
	}
	if o.BiasCorrection {
		for _, i := range weighted(fused) {
			if _, err := correctable(&fused.Nodes[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o Options) resolve() (Options, error) {
	if o.Examples == 0 {
		o.Examples = 1024
	}
	if o.Method == 0 {
		o.Method = MinMax
	}
	if o.Percentile == 0 {
		o.Percentile = 99.99
	}
	if o.Batch == 0 {
		o.Batch = 64
	}
	if o.Rounding == 0 {
		o.Rounding = Nearest
	}
	if o.Iterations == 0 {
		o.Iterations = defaultIterations
	}
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	switch {
	case o.Examples < 0, o.Batch < 0, o.Workers < 0, o.Iterations < 0:
		return o, fmt.Errorf("calibration: %d examples, batch %d, %d workers and %d iterations must all be positive", o.Examples, o.Batch, o.Workers, o.Iterations)
	case o.Rounding > GPTQ:
		return o, fmt.Errorf("calibration: unknown rounding %s", o.Rounding)
	case o.Method > Auto:
		return o, fmt.Errorf("calibration: unknown method %s", o.Method)
	case !(o.Percentile > 50 && o.Percentile <= 100):
		return o, fmt.Errorf("calibration: percentile is %v; it must be above 50 and at most 100, for example 99.99", o.Percentile)
	}
	return o, nil
}

// checkSet reports a set that cannot be run through m.
func checkSet(m *model.Model, set *datasets.Set, what string) error {
	if set == nil || set.Len() == 0 {
		return fmt.Errorf("the %s set is empty; there is nothing to measure ranges or accuracy on", what)
	}
	if err := set.Validate(); err != nil {
		return fmt.Errorf("the %s set: %w", what, err)
	}
	if len(m.Inputs) != 1 {
		return fmt.Errorf("model %q has %d inputs; calibration needs exactly 1", m.Name, len(m.Inputs))
	}
	if got, want := set.Elems(), m.Inputs[0].Shape.Size(); got != want {
		return fmt.Errorf("the %s set has %d values per example, input %q of model %q has %d (shape %v)", what, got, m.Inputs[0].Name, m.Name, want, m.Inputs[0].Shape)
	}
	return nil
}
