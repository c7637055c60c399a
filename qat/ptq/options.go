package ptq

import (
	"fmt"
	"runtime"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/model"
)

// Options says how a model is calibrated. The zero value is usable: 1024 examples, method minmax.
type Options struct {
	Examples   int     // calibration examples; 0 means 1024, and never more than the set has
	Method     Method  // 0 means MinMax
	Percentile float64 // for method percentile, in (50, 100]; 0 means 99.99
	Seed       uint64  // chooses the examples
	Batch      int     // examples run at a time; 0 means 64. No effect on the result
	Workers    int     // 0 means one per CPU. No effect on the result
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
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	switch {
	case o.Examples < 0, o.Batch < 0, o.Workers < 0:
		return o, fmt.Errorf("calibration: %d examples, batch %d and %d workers must all be positive", o.Examples, o.Batch, o.Workers)
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
