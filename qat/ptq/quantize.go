package ptq

import (
	"context"
	"fmt"
	"strings"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/model"
)

// Trial is one method and how the model it gives scores on the validation split.
type Trial struct {
	Method     Method
	Correct, N int
}

// Accuracy is in percent.
func (t Trial) Accuracy() float64 { return 100 * float64(t.Correct) / float64(t.N) }

// Result is a quantized model and how it was chosen.
type Result struct {
	Model  *model.Model // Quantized, ranges filled; shares the float masters unless a pass changed them
	Method Method       // the one that was used; never Auto
	Trials []Trial      // of method auto, in the order they were tried; otherwise empty

	Equalized []Equalization  // with Options.Equalize
	Rounding  Rounding        // of the weights
	Rounded   []LayerRounding // with a learned Rounding
	Shifted   []LayerShift    // with Options.BiasCorrection
}

// Passes names what was done beside calibration, in order; "" if nothing was.
func (r *Result) Passes() string {
	var names []string
	if r.Equalized != nil {
		names = append(names, "equalize")
	}
	if r.Rounded != nil {
		names = append(names, r.Rounding.String())
	}
	if r.Shifted != nil {
		names = append(names, passBias)
	}
	return strings.Join(names, ", ")
}

// Quantize is Calibrate with the passes around it: Equalize before, RoundWeights and then CorrectBias after, each as o says.
// A combination that [Options.Check] refuses is an error.
//
// Quantize knows one more method, auto: it calibrates once, fills the ranges by minmax, percentile, mse and kl, runs each
// model on val by the integer engine, and keeps the one with the most correct answers; of equals, the first in that order;
// weights are rounded to nearest for this. The test split has no part in it. val may be nil for the other methods. Where
// there is nothing to choose (FP16, BF16) auto is minmax without trials.
func Quantize(ctx context.Context, m *model.Model, q model.QuantConfig, train, val *datasets.Set, o Options) (*Result, error) {
	if err := o.Check(m, q.Precision); err != nil {
		return nil, fmt.Errorf("quantize %q for %s: %w", m.Name, q.Precision, err)
	}
	var equalized []Equalization
	if o.Equalize {
		var err error
		if m, equalized, err = Equalize(m); err != nil {
			return nil, err
		}
	}
	out, err := calibrated(ctx, m, q, train, val, o)
	if err != nil {
		return nil, err
	}
	out.Equalized, out.Rounding = equalized, max(o.Rounding, Nearest)
	if o.Rounding > Nearest {
		if out.Model, out.Rounded, err = RoundWeights(ctx, m, out.Model, train, o.Rounding, o); err != nil {
			return nil, err
		}
	}
	if o.BiasCorrection {
		if out.Model, out.Shifted, err = CorrectBias(ctx, m, out.Model, train, o); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// calibrated fills the ranges by the method of o, or by the best one.
func calibrated(ctx context.Context, m *model.Model, q model.QuantConfig, train, val *datasets.Set, o Options) (*Result, error) {
	if o.Method == Auto {
		if err := checkSet(m, val, "validation"); err != nil {
			return nil, fmt.Errorf("quantize %q by method auto: %w (set val_fraction, or name a method)", m.Name, err)
		}
	}
	c, err := prepare(ctx, m, q, train, o)
	if err != nil {
		return nil, err
	}
	method := c.opts.Method
	if c.seen == nil && method == Auto {
		method = MinMax
	}
	if method != Auto {
		filled, err := c.fill(ctx, method)
		if err != nil {
			return nil, err
		}
		return &Result{Model: filled, Method: method}, nil
	}
	out := &Result{}
	best := -1
	for _, method := range []Method{MinMax, Percentile, MSE, KL} {
		filled, err := c.fill(ctx, method)
		if err != nil {
			return nil, err
		}
		t := Trial{Method: method, N: val.Len()}
		if t.Correct, err = c.correct(ctx, filled, val); err != nil {
			return nil, c.errorf("method %s: %w", method, err)
		}
		out.Trials = append(out.Trials, t)
		if t.Correct > best {
			best, out.Model, out.Method = t.Correct, filled, method
		}
	}
	return out, nil
}

// correct counts the right answers of a quantized model.
func (c *calibration) correct(ctx context.Context, m *model.Model, set *datasets.Set) (int, error) {
	engine, err := infer.Compile(m, infer.Options{Workers: c.opts.Workers, MaxBatch: c.opts.Batch})
	if err != nil {
		return 0, err
	}
	classes, right := engine.Classes(), 0
	logits := make([]float32, c.opts.Batch*classes)
	err = batches(ctx, set, c.opts.Batch, func(first int, x []uint8, n int) error {
		if err := engine.Run(logits[:n*classes], x, n); err != nil {
			return err
		}
		for i := range n {
			if infer.ArgMax(logits[i*classes:(i+1)*classes]) == int(set.Labels[first+i]) {
				right++
			}
		}
		return nil
	})
	return right, err
}

// ForTraining is the model that quantization-aware training starts from: m, which [Calibrate] or [Quantize] made, with
// weight quantizers as q describes them. Calibration may have turned absmax weight scales into fixed mse scales; training
// follows the weights instead, or learns the scales (lsq) from where calibration left them. Activation ranges and masters
// are those of m; the masters are shared.
func ForTraining(m *model.Model, q model.QuantConfig) (*model.Model, error) {
	if m.Stage != model.Quantized {
		return nil, fmt.Errorf("model %q is %s; quantization-aware training starts from a calibrated model", m.Name, m.Stage)
	}
	want, err := model.Place(m, q)
	if err != nil {
		return nil, fmt.Errorf("model %q: %w", m.Name, err)
	}
	out := m.Clone()
	out.Params = m.Params
	for i := range out.Nodes {
		n := &out.Nodes[i]
		if !n.Op.HasWeight() {
			continue
		}
		w, spec := out.Quant[n.Param(model.Weight)], want.Quant[n.Param(model.Weight)].Spec
		if w.Spec.Format != spec.Format || w.Spec.Scheme != spec.Scheme || w.Spec.Per != spec.Per || w.Spec.Group != spec.Group {
			return nil, fmt.Errorf("%s %q: its weight was calibrated as %s, training asks for %s: calibrate again", n.Op, n.Layer, w.Spec, spec)
		}
		w.Spec = spec
		switch {
		case spec.Range.Derived():
			w.Scale, w.Zero = nil, nil
		case !w.Ready():
			return nil, fmt.Errorf("%s %q: range method %s of its weight needs a calibrated scale and there is none: calibrate with the config that is trained", n.Op, n.Layer, spec.Range)
		}
	}
	return out, nil
}
