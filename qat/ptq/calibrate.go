package ptq

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// Calibrate places the quantizers that q describes into the float model m and gives every activation its scale and zero
// point, from a seeded sample of set, which should be the training split. The result is ready for model.Freeze; it shares
// the float masters of m (Clone it before training one of the two).
//
// A precision without integers has no ranges: FP16 and BF16 models are run over the sample, and a value that overflows is
// an error naming its layer.
func Calibrate(ctx context.Context, m *model.Model, q model.QuantConfig, set *datasets.Set, o Options) (*model.Model, error) {
	c, err := prepare(ctx, m, q, set, o)
	if err != nil {
		return nil, err
	}
	if c.opts.Method == Auto {
		return nil, c.errorf("method auto compares methods on a validation split: call Quantize")
	}
	if c.opts.Equalize || c.opts.BiasCorrection || c.opts.Rounding != Nearest {
		return nil, c.errorf("equalization, learned rounding and bias correction are passes around calibration: call Quantize")
	}
	return c.fill(ctx, c.opts.Method)
}

// calibration is a model with its quantizers placed, and what was seen of its tensors.
type calibration struct {
	opts   Options
	model  *model.Model          // Quantized, ranges not filled
	sample *datasets.Set         // the calibration examples
	seen   map[string]*histogram // by name of the tensor; nil for formats that are not integers
}

func (c *calibration) errorf(format string, args ...any) error {
	return fmt.Errorf("calibrate %q for %s: %w", c.model.Name, c.model.Precision, fmt.Errorf(format, args...))
}

// prepare places quantizers and, for integer formats, fills the histograms.
func prepare(ctx context.Context, m *model.Model, q model.QuantConfig, set *datasets.Set, o Options) (*calibration, error) {
	o, err := o.resolve()
	if err != nil {
		return nil, err
	}
	if m.Stage != model.Float {
		return nil, fmt.Errorf("calibrate %q: the model is %s; post-training quantization starts from a float model", m.Name, m.Stage)
	}
	if q.Weight.Format == quant.FP32 && q.Act.Format == quant.FP32 && len(q.Rules) == 0 {
		return nil, fmt.Errorf("calibrate %q: precision fp32 is not quantized; use the float model as it is", m.Name)
	}
	fused, err := model.Fuse(m)
	if err != nil {
		return nil, fmt.Errorf("calibrate %q: %w", m.Name, err)
	}
	c := &calibration{opts: o}
	if c.model, err = model.Placed(fused, q); err != nil {
		return nil, fmt.Errorf("calibrate %q: %w", m.Name, err)
	}
	if err := checkSet(fused, set, "calibration"); err != nil {
		return nil, c.errorf("%w", err)
	}
	if c.sample, err = sample(set, o); err != nil {
		return nil, c.errorf("%w", err)
	}
	if q.Act.Format.IsInteger() {
		if err := c.observe(ctx, fused); err != nil {
			return nil, c.errorf("%w", err)
		}
	}
	return c, nil
}

// sample draws the calibration examples without repetition. They are put in the order of the set, so that asking for as
// many as there are gives the set itself.
func sample(set *datasets.Set, o Options) (*datasets.Set, error) {
	n := set.Len()
	if o.Examples >= n {
		return set, nil
	}
	rows := make([]int32, n)
	stream := rng.New(o.Seed, rng.Calibrate)
	stream.Perm(rows)
	rows = rows[:o.Examples]
	slices.Sort(rows)
	return set.Subset(rows)
}

// batches calls run with consecutive examples of a set until they are used up or ctx ends.
func batches(ctx context.Context, set *datasets.Set, size int, run func(first int, x []uint8, n int) error) error {
	elems := set.Elems()
	for first := 0; first < set.Len(); first += size {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(size, set.Len()-first)
		if err := run(first, set.X[first*elems:(first+n)*elems], n); err != nil {
			return err
		}
	}
	return nil
}

// observe runs the float engine over the sample and counts the values of every tensor that has an integer quantizer of
// its own. The input has its scale from the data set, the logits stay float32.
func (c *calibration) observe(ctx context.Context, float *model.Model) error {
	c.seen = map[string]*histogram{}
	for i := range c.model.Nodes {
		n := &c.model.Nodes[i]
		if q := c.model.Quant[n.Name]; q != nil && n.Op.HasQuantizer() && q.Spec.Format.IsInteger() {
			c.seen[n.Name] = newHistogram()
		}
	}
	engine, err := infer.Compile(float, infer.Options{Workers: c.opts.Workers, MaxBatch: c.opts.Batch})
	if err != nil {
		return err
	}
	return batches(ctx, c.sample, c.opts.Batch, func(first int, x []uint8, n int) error {
		return engine.Trace(x, n, func(t infer.Tensor) error {
			h := c.seen[t.Name]
			if h == nil {
				return nil
			}
			return c.locate(h.add(t.Values), t.Name, first)
		})
	})
}

// locate gives a value error the layer and the calibration example it belongs to.
func (c *calibration) locate(err error, tensor string, first int) error {
	var bad *valueError
	if !errors.As(err, &bad) {
		return err
	}
	n := c.model.Node(tensor)
	size := n.Shape.Size()
	return &ActivationError{Layer: n.Layer, Op: n.Op.String(), Example: first + bad.index/size, Index: bad.index % size, Value: bad.value}
}

// ActivationError reports an activation that no range can hold.
type ActivationError struct {
	Layer, Op string
	Example   int // of the calibration sample
	Index     int // element of the layer's output
	Value     float32
}

func (e *ActivationError) Error() string {
	return fmt.Sprintf("%s %q: output element %d of calibration example %d is %v; the float model diverged or its weights are damaged, train it again with a lower learning rate", e.Op, e.Layer, e.Index, e.Example, e.Value)
}

// fill chooses the ranges by a method and returns a new model.
func (c *calibration) fill(ctx context.Context, m Method) (*model.Model, error) {
	out := c.model.Clone()
	out.Params = c.model.Params
	for i := range out.Nodes {
		n := &out.Nodes[i]
		if n.Op.HasWeight() {
			if err := fillWeight(out.Quant[n.Param(model.Weight)], out.Params[n.Param(model.Weight)], m, c.opts.Percentile); err != nil {
				return nil, c.errorf("%s %q: weight: %w", n.Op, n.Layer, err)
			}
		}
		h := c.seen[n.Name]
		if h == nil {
			continue
		}
		q, method := out.Quant[n.Name], m
		if q.Spec.Range == quant.Constant {
			s, z := q.Spec.ConstantScale()
			q.Scale, q.Zero = []float32{s}, []int32{z}
			continue
		}
		if own, ok := named(q.Spec.Range); ok {
			method = own
		}
		s, z, err := h.choose(q.Spec, method, c.opts.Percentile)
		if err != nil {
			return nil, c.errorf("%s %q: %w", n.Op, n.Layer, err)
		}
		q.Scale, q.Zero = []float32{s}, []int32{z}
	}
	if c.seen == nil {
		if err := c.checkOverflow(ctx, out); err != nil {
			return nil, c.errorf("%w", err)
		}
	}
	return out, nil
}

// checkOverflow runs a 16-bit model over the sample; the engine reports values that do not fit.
func (c *calibration) checkOverflow(ctx context.Context, m *model.Model) error {
	engine, err := infer.Compile(m, infer.Options{Workers: c.opts.Workers, MaxBatch: c.opts.Batch})
	if err != nil {
		return err
	}
	logits := make([]float32, c.opts.Batch*engine.Classes())
	return batches(ctx, c.sample, c.opts.Batch, func(_ int, x []uint8, n int) error {
		return engine.Run(logits[:n*engine.Classes()], x, n)
	})
}
