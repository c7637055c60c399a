package ptq

import (
	"context"
	"fmt"
	"math"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// LayerShift is what bias correction did to one layer: the largest |E[W_q x_q] - E[W x]| over its output channels, in
// units of the layer's output.
type LayerShift struct {
	Layer   string
	Largest float64
}

// CorrectBias moves the bias of every layer of the quantized model q (the beta, where batch norm follows) against the
// shift that quantization gives the layer's mean output on the calibration examples (arXiv:1906.04721, section 4.2):
//
//	b[c] -= F[c] * (E[W_q x_q] - E[W x])[c]
//
// x are the layer's inputs in the float model m, x_q those in q, after the correction of the layers before it; the mean is
// over examples and positions, and F is the factor of batch norm. Both products are linear, so the mean inputs are enough.
// The result has parameters of its own.
func CorrectBias(ctx context.Context, m, q *model.Model, set *datasets.Set, o Options) (*model.Model, []LayerShift, error) {
	fail := func(err error) (*model.Model, []LayerShift, error) {
		return nil, nil, fmt.Errorf("correct the biases of %q: %w", q.Name, err)
	}
	o, float, sampled, err := passes(m, q, set, o)
	if err != nil {
		return fail(err)
	}
	out := q.Clone()
	var report []LayerShift
	layers := weighted(out)
	for done, i := range layers {
		n := &out.Nodes[i]
		o.progress(Step{Pass: passBias, Layer: n.Layer, Done: done, Total: len(layers)})
		s, err := correctLayer(ctx, float, out, i, sampled, o)
		if err != nil {
			return fail(err)
		}
		report = append(report, s)
	}
	o.progress(Step{Pass: passBias, Done: len(layers), Total: len(layers)})
	return out, report, nil
}

// correctable is the role of the parameter that takes the correction of a layer.
func correctable(n *model.Node) (role string, err error) {
	switch {
	case n.Attr.Norm && n.Attr.Whole:
		return "", fmt.Errorf("%s %q: bias correction shifts each channel, and norm over the whole tensor has one shift for all: set norm: batch, or bias_correction: false", n.Op, n.Layer)
	case n.Attr.Norm:
		return model.Beta, nil
	case n.Attr.Bias:
		return model.Bias, nil
	}
	return "", fmt.Errorf("%s %q: bias correction finds neither bias nor batch norm to go into: set bias: true, or bias_correction: false", n.Op, n.Layer)
}

// correctLayer corrects one layer of out in place.
func correctLayer(ctx context.Context, float, out *model.Model, i int, set *datasets.Set, o Options) (LayerShift, error) {
	n := &out.Nodes[i]
	report := LayerShift{Layer: n.Layer}
	wrap := func(err error) error { return fmt.Errorf("%s %q: %w", n.Op, n.Layer, err) }
	role, err := correctable(n)
	if err != nil {
		return report, err
	}
	if s := out.Quant[n.Param(model.Weight)].Spec; s.Range == quant.DoReFa {
		return report, wrap(fmt.Errorf("weight %s: its values are not to come close to the float model's: leave bias correction out", s))
	}
	in, ok := out.ShapeOf(n.In[0])
	if !ok {
		return report, wrap(fmt.Errorf("input %q has no shape", n.In[0]))
	}
	g := newWindow(n, in)
	want, err := meanPatch(ctx, &g, float, n.In[0], set, o)
	if err != nil {
		return report, wrap(err)
	}
	have, err := meanPatch(ctx, &g, out, n.In[0], set, o)
	if err != nil {
		return report, wrap(err)
	}
	q, err := coded(out, n)
	if err != nil {
		return report, wrap(err)
	}
	affine, err := out.Affine(n)
	if err != nil {
		return report, wrap(err)
	}
	master, bias := float.Params[n.Param(model.Weight)].Data, out.Params[n.Param(role)].Data
	per := g.units / g.groups
	for c := range g.units {
		group, shift := c/per*g.depth, 0.0
		for k := range g.depth {
			at := k*g.units + c
			w := float64(float64(q.at(at)) * float64(q.codes[at]))
			shift += float64(w*have[group+k]) - float64(float64(master[at])*want[group+k])
		}
		if affine.F != nil {
			shift *= affine.F[c]
		}
		if math.IsNaN(shift) || math.IsInf(shift, 0) {
			return report, wrap(fmt.Errorf("the mean of output channel %d is %v: the float model diverged or its weights are damaged", c, shift))
		}
		report.Largest = max(report.Largest, math.Abs(shift))
		bias[c] = float32(float64(bias[c]) - shift)
	}
	return report, nil
}

// meanPatch is the mean over examples and output positions of the inputs that one output multiplies.
func meanPatch(ctx context.Context, g *window, m *model.Model, input string, set *datasets.Set, o Options) ([]float64, error) {
	mean, patch := make([]float64, g.width()), make([]float32, g.width())
	size := g.h * g.w * g.c
	total := make([]float64, size) // per cell over the examples first: a patch is a choice of cells
	err := tap(ctx, m, input, set, o, func(_, n int, x []float32) error {
		for e := range n {
			for i, v := range x[e*size:][:size] {
				total[i] += float64(v)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	cells := make([]float32, size)
	for i, v := range total {
		cells[i] = float32(v / float64(set.Len()))
	}
	for pos := range g.outputs {
		g.patch(patch, cells, pos)
		for i, v := range patch {
			mean[i] += float64(v) / float64(g.outputs)
		}
	}
	return mean, nil
}
