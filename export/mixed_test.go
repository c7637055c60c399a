package export_test

import (
	"testing"

	"github.com/narrow-ml/narrow/export"
	"github.com/narrow-ml/narrow/quant"
)

// TestVerifyMixedWidths: rules give layers grids of their own, weights and activations apart, and every integer of the
// network is still the same in graphs, engine and exported file.
func TestVerifyMixedWidths(t *testing.T) {
	const rules = `quant.rules=[
		{layer: c1, weight: {format: int8}, act: {format: int8}},
		{layer: fc1, weight: {format: int2, range: lsq}, act: {format: int3}},
		{layer: fc2, weight: {format: int8, per: tensor}}]`
	m, d := trained(t, "digits-cnn", "w4a4", rules, "train.lr=0.01")
	f := freeze(t, m)
	for name, want := range map[string]quant.Format{
		"c1.weight": quant.Int8, "c1": quant.Int8, "c2.weight": quant.Int4, "c2": quant.Int4, "fc1.weight": quant.Int2, "fc1": quant.Int3, "fc2.weight": quant.Int8,
	} {
		if got := f.Quant[name].Spec.Format; got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	c, err := export.Verify(t.Context(), export.Subject{Frozen: f, Trained: m}, d.Test, export.Options{Rows: 150, Workers: 2})
	if err != nil || !c.Identical {
		t.Errorf("%v, %+v", err, c)
	}

	// Weights alone in integers, each layer with its own width and granularity.
	const only = `quant.rules=[{layer: c1, weight: {format: int8, per: channel}}, {layer: fc1, weight: {format: int3, per: group, group: 128}}]`
	m, d = trained(t, "digits-cnn", "w4a16", only, "quant.act={format: fp16}", "train.lr=0.01")
	if c, err = export.Verify(t.Context(), export.Subject{Frozen: freeze(t, m), Trained: m}, d.Test, export.Options{Rows: 100}); err != nil || !c.Identical {
		t.Errorf("%v, %+v", err, c)
	}
}
