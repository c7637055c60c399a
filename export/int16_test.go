package export_test

import (
	"testing"

	"github.com/narrow-ml/narrow/export"
	"github.com/narrow-ml/narrow/quant"
)

// TestVerifyInt16 trains and verifies networks of 16-bit integers: with pools and batch norm, with everything that has
// branches and limits, learned and observed ranges, and 16 and fewer bits in one network.
func TestVerifyInt16(t *testing.T) {
	const residual = `model=[
		{conv: {name: stem, filters: 8, kernel: 3, norm: batch, act: relu6}},
		{conv: {name: dw, filters: 8, kernel: 3, groups: depthwise, norm: batch}},
		{add: {name: sum1, from: [dw, stem], act: relu}},
		{conv: {name: down, filters: 8, kernel: 3, stride: 2, groups: depthwise, norm: batch, act: relu6}},
		{conv: {name: point, filters: 12, kernel: 1, norm: batch}},
		{conv: {name: short, from: sum1, filters: 12, kernel: 1, stride: 2}},
		{add: {name: sum2, from: [point, short], act: relu6}},
		{maxpool: {size: 2, stride: 1}}, {relu: {cap: 0.7}}, {gap: {name: mean}}, {dense: {name: fc, units: 10}}]`
	for _, tt := range []struct {
		name string
		set  []string
	}{
		{"cnn minmax", []string{"quant.weight.range=minmax", "quant.act.range=envelope"}},
		{"cnn lsq", nil},
		{"cnn separate", []string{"qat.fuse=false"}},
		{"cnn mixed", []string{`quant.rules=[
			{layer: c1, act: {format: int8}}, {layer: c2, weight: {format: int4}}, {layer: fc1, weight: {format: int8}, act: {format: int8}}]`}},
		{"residual minmax", []string{residual, "quant.weight.range=minmax", "quant.act.range=envelope"}},
		{"residual lsq", []string{residual}},
		{"residual mixed", []string{residual, `quant.rules=[{layer: dw, act: {format: int8}}, {layer: sum2, act: {format: int4}}]`}},
	} {
		if testing.Short() && tt.name != "cnn mixed" && tt.name != "residual lsq" {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			m, d := trained(t, "digits-cnn", "int16", append(tt.set, "train.lr=0.01")...)
			subject := export.Subject{Frozen: freeze(t, m), Trained: m}
			c, err := export.Verify(t.Context(), subject, d.Test, export.Options{Rows: 150, Workers: 2})
			if err != nil {
				t.Fatal(err)
			}
			if !c.Identical || len(c.Differences) > 0 {
				for _, leg := range c.Legs {
					t.Logf("%s: %t %+v", leg.Name, leg.Identical, leg.Layers)
				}
				t.Errorf("not identical: %v", c.Differences)
			}
			if len(c.Legs) != 4 {
				t.Errorf("%d legs, want two graphs and two readings", len(c.Legs))
			}
		})
	}
	m, d := trained(t, "digits-mlp", "int16")
	f := freeze(t, m)
	if q := f.Quant["fc1"]; q.Spec.Format != quant.Int16 || q.Zero[0] != 0 || f.Params["fc1.weight"].Codes16 == nil {
		t.Errorf("%+v", q)
	}
	f.Params["fc1.weight"].Codes16[5]++
	if c, err := export.Verify(t.Context(), export.Subject{Frozen: f, Trained: m}, d.Test, export.Options{Rows: 20}); err != nil || c.Identical {
		t.Errorf("another code: %v, %+v", err, c)
	}
}
