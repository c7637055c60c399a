package export_test

import (
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/export"
	"github.com/narrow-ml/narrow/train"
)

// signs is a network whose hidden outputs may be signs, trained from scratch as Brevitas trains.
const signs = `
version: 1
name: signs
dataset: {name: digits, batch: 32, val_fraction: 0, limit: 300, center: true}
model:
  - conv: {name: c1, filters: 8, kernel: 3, norm: batch}
  - maxpool: {size: 2}
  - conv: {name: c2, filters: 6, kernel: 3, pad: valid}
  - flatten: {}
  - dense: {name: fc1, units: 24, norm: batch, dropout: 0.1}
  - dense: {name: fc2, units: 10, norm: tensor, dropout: 0.1}
train: {epochs: 1, lr: 0.02, loss: squared_hinge, init_range: 1, weight_clip: 1}
quant:
  input: act
  weight: {format: binary, per: tensor, range: constant, max: 1}
  act: {format: binary}
qat: {start: scratch, epochs: 2, lr: 0.02, freeze_ranges_after: 1, freeze_bn_after: 1}
`

// TestVerifySigns: every way of quantizing it agrees, legs and all, to the bit, the ONNX file included.
func TestVerifySigns(t *testing.T) {
	narrow := "quant.act={format: int2, scheme: symmetric, levels: narrow, range: constant, max: 1}"
	for _, set := range [][]string{
		nil,
		{narrow},
		{narrow, "quant.weight={format: ternary, per: tensor, range: constant, max: 1}"},
		{"quant.input=bytes", "quant.weight={format: binary}"},
		{"quant.input=bytes", "quant.weight={format: int2, levels: even, range: lsq}", "quant.act={format: int4}"},
		{"quant.weight={format: binary, range: lsq, estimator: approx-sign}", "quant.act={format: binary, max: 2, estimator: swish-sign}"},
		{"quant.rules=[{layer: fc*, weight: {format: int8}, act: {format: int8}}]", "quant.input=bytes"},
	} {
		t.Run(strings.Join(set, " "), func(t *testing.T) {
			c, err := configs.Parse("signs.yaml", []byte(signs), set...)
			if err != nil {
				t.Fatal(err)
			}
			d, err := datasets.Load(t.Context(), c.Dataset.Name, datasets.Options{Seed: c.Seed, Limit: c.Dataset.Limit})
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if _, err := train.Run(t.Context(), c, d, train.RunOptions{Dir: dir, Workers: 2}); err != nil {
				t.Fatal(err)
			}
			f, err := train.OpenRun(dir)
			if err != nil {
				t.Fatal(err)
			}
			frozen, err := f.Frozen()
			if err != nil {
				t.Fatal(err)
			}
			m, err := f.Model(d)
			if err != nil {
				t.Fatal(err)
			}
			cert, err := export.Verify(t.Context(), export.Subject{Frozen: frozen, Trained: m}, d.Test, export.Options{Rows: 150, Workers: 2})
			if err != nil {
				t.Fatal(err)
			}
			if !cert.Identical || len(cert.Differences) > 0 {
				t.Fatalf("not identical: %+v", cert)
			}
			claimed := 0
			for _, l := range cert.Legs {
				if l.Claimed {
					claimed++
				}
			}
			if claimed != 3 {
				t.Errorf("%d claimed legs, want two graphs and the interpreter", claimed)
			}
			if _, err := f.FloatModel(d); err == nil || !strings.Contains(err.Error(), "from scratch") {
				t.Errorf("a run from scratch has a float model: %v", err)
			}
		})
	}
}
