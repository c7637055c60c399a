package export_test

import (
	"testing"

	"github.com/narrow-ml/narrow/export"
)

// TestVerifyResidual trains and verifies a network with everything that branches and has no weights: an identity and a
// strided shortcut, depthwise layers, ReLU6, a limited ReLU of its own, the global average.
func TestVerifyResidual(t *testing.T) {
	const layers = `model=[
		{conv: {name: stem, filters: 8, kernel: 3, norm: batch, act: relu6}},
		{conv: {name: dw, filters: 8, kernel: 3, groups: depthwise, norm: batch}},
		{add: {name: sum1, from: [dw, stem], act: relu}},
		{conv: {name: down, filters: 8, kernel: 3, stride: 2, groups: depthwise, norm: batch, act: relu6}},
		{conv: {name: point, filters: 12, kernel: 1, norm: batch}},
		{conv: {name: short, from: sum1, filters: 12, kernel: 1, stride: 2}},
		{add: {name: sum2, from: [point, short], act: relu6}},
		{maxpool: {size: 2, stride: 1}}, {relu: {cap: 0.7}}, {gap: {name: mean}}, {dense: {name: fc, units: 10}}]`
	for _, precision := range []string{"int8", "w4a8", "w4a4", "w2a4"} {
		for _, rule := range []string{"minmax", "lsq"} {
			t.Run(precision+" "+rule, func(t *testing.T) {
				act := rule
				if rule == "minmax" {
					act = "envelope"
				}
				m, d := trained(t, "digits-cnn", precision, layers, "train.lr=0.01", "quant.weight.range="+rule, "quant.act.range="+act)
				c, err := export.Verify(t.Context(), export.Subject{Frozen: freeze(t, m), Trained: m}, d.Test, export.Options{Rows: 150, Workers: 2})
				if err != nil {
					t.Fatal(err)
				}
				if !c.Identical || len(c.Differences) > 0 {
					for _, leg := range c.Legs {
						t.Logf("%s: %t %+v", leg.Name, leg.Identical, leg.Layers)
					}
					t.Errorf("not identical: %v", c.Differences)
				}
				if len(c.Layers) != len(m.Nodes) {
					t.Errorf("%d layers compared, the model has %d", len(c.Layers), len(m.Nodes))
				}
			})
		}
	}
	m, d := trained(t, "digits-cnn", "bf16", layers, "train.lr=0.01")
	c, err := export.Verify(t.Context(), export.Subject{Frozen: freeze(t, m), Trained: m}, d.Test, export.Options{Rows: 100})
	if err != nil || !c.Identical {
		t.Errorf("bf16: %v, %+v", err, c)
	}
	f := freeze(t, m)
	f.Node("sum2").Attr.Cap = 5
	if c, err = export.Verify(t.Context(), export.Subject{Frozen: f, Trained: m}, d.Test, export.Options{Rows: 50}); err != nil || c.Identical {
		t.Errorf("a file with another limit: %v, identical %t", err, c.Identical)
	}
}
