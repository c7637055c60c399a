package main

import (
	"fmt"
	"slices"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
	"github.com/narrow-ml/narrow/train"
)

// explainSchedule says what happens when during quantization-aware training, a line each; nothing at full
// precision. placed is the model with its quantizers.
func explainSchedule(c *configs.Config, float, placed *model.Model, p quant.Precision) ([]string, error) {
	if c.QAT == nil || p == quant.Full {
		return nil, nil
	}
	stages, err := train.Stages(c, float, p)
	if err != nil {
		return nil, err
	}
	q := c.QAT
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	percent := func(part float64) string { return fmt.Sprintf("%.4g %% of the steps", 100*part) }
	for i, s := range stages {
		switch {
		case i == 0:
			add("starts at %s", s.Precision)
		case stages[i-1].Precision == quant.Full:
			add("after %s: calibration, then %s", percent(s.At), s.Precision)
		default:
			add("after %s: %s, activations with the same ranges", percent(s.At), s.Precision)
		}
	}
	if q.FreezeBNAfter < 1 && slices.ContainsFunc(placed.Nodes, func(n model.Node) bool { return n.Attr.Norm }) {
		add("after %s: batch norm keeps its statistics", percent(q.FreezeBNAfter))
	}
	if q.FreezeRangesAfter < 1 && slices.ContainsFunc(placed.Nodes, func(n model.Node) bool {
		a := placed.Quant[n.Name]
		return n.Op.HasQuantizer() && a != nil && a.Spec.Format.IsInteger() && a.Spec.Range.Observed()
	}) {
		add("after %s: ranges that follow batches stay", percent(q.FreezeRangesAfter))
	}
	if d := q.Distill; d != nil {
		add("loss: %.4g of the labels, %.4g of the float32 model's answers at temperature %.4g", 1-d.Weight, d.Weight, d.Temperature)
	}
	if o := q.Oscillation; o != nil && p.Weight.IsInteger() {
		add("oscillating weights are counted")
		if o.Damping > 0 {
			add("damping loss, its weight growing to %.4g", o.Damping)
		}
		if o.FreezeAbove > 0 {
			add("weights that turn back in more than %s freeze", percent(o.FreezeAbove))
		}
	}
	if q.EMA > 0 {
		add("ships the average of the masters and scales, decay %.6g", q.EMA)
	}
	if q.BNReestimate > 0 {
		add("at the end: batch norm's statistics anew, over %d training batches", q.BNReestimate)
	}
	return out, nil
}
