package export_test

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/export"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat/ptq"
	"github.com/narrow-ml/narrow/quant"
	"github.com/narrow-ml/narrow/train"
)

// trained is a preset after a few steps of float training and of quantization-aware training.
func trained(t *testing.T, preset, precision string, set ...string) (*model.Model, *datasets.Dataset) {
	t.Helper()
	c, err := configs.Preset(preset)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Set(append([]string{"dataset.limit=300", "train.epochs=1", "qat.epochs=1"}, set...)...); err != nil {
		t.Fatal(err)
	}
	d, err := datasets.Load(t.Context(), c.Dataset.Name, datasets.Options{ValFraction: c.Dataset.ValFraction, Seed: c.Seed, Limit: c.Dataset.Limit})
	if err != nil {
		t.Fatal(err)
	}
	p, err := quant.ParsePrecision(precision)
	if err != nil {
		t.Fatal(err)
	}
	pool := par.New(2)
	defer pool.Close()
	m, err := train.NewModel(c, d, c.Seed)
	if err != nil {
		t.Fatal(err)
	}
	job := train.Job{Model: m, Data: d, Phase: train.FloatPhase(c), Seed: c.Seed, Pool: pool}
	if _, err := train.Fit(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	if p == quant.Full {
		return m, d
	}
	r, q, err := train.Calibrated(t.Context(), c, m, p, d, 2)
	if err != nil {
		t.Fatal(err)
	}
	if job.Model, err = ptq.ForTraining(r.Model, q); err != nil {
		t.Fatal(err)
	}
	job.Phase = train.QATPhase(c)
	if _, err := train.Fit(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	return job.Model, d
}

func freeze(t *testing.T, m *model.Model) *model.Model {
	t.Helper()
	f, err := model.Freeze(m)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestVerifyIntegerPrecisions(t *testing.T) {
	for _, preset := range []string{"digits-mlp", "digits-cnn"} {
		for _, precision := range []string{"int8", "w4a8", "w4a4", "w2a4", "w3a5"} {
			t.Run(preset+" "+precision, func(t *testing.T) {
				m, d := trained(t, preset, precision)
				c, err := export.Verify(t.Context(), export.Subject{Frozen: freeze(t, m), Trained: m}, d.Test, export.Options{Rows: 150, Workers: 2})
				if err != nil {
					t.Fatal(err)
				}
				if !c.Identical || len(c.Differences) > 0 {
					t.Fatalf("not identical: %+v", c)
				}
				legs := 0
				for _, l := range c.Legs {
					if l.Claimed {
						legs++
						if !l.Identical {
							t.Errorf("%s: %+v", l.Name, l.Layers)
						}
					}
				}
				if legs != 3 || c.Rows != 150 {
					t.Errorf("%d legs over %d rows", legs, c.Rows)
				}
			})
		}
	}
}

func TestVerifyLSQ(t *testing.T) {
	verifies(t, "quant.weight.range=lsq", "quant.act.range=lsq")
}

func TestVerifyDoReFa(t *testing.T) { verifies(t, "quant.weight={range: dorefa}") }

// verifies trains the small network in w4a4 and holds all its legs to each other.
func verifies(t *testing.T, set ...string) {
	t.Helper()
	m, d := trained(t, "digits-cnn", "w4a4", set...)
	c, err := export.Verify(t.Context(), export.Subject{Frozen: freeze(t, m), Trained: m}, d.Test, export.Options{Rows: 150})
	if err != nil || !c.Identical {
		t.Fatalf("%+v, %v", c, err)
	}
}

func TestVerifyFloatPrecisions(t *testing.T) {
	for _, precision := range []string{"fp32", "fp16", "bf16"} {
		m, d := trained(t, "digits-cnn", precision)
		c, err := export.Verify(t.Context(), export.Subject{Frozen: freeze(t, m), Trained: m}, d.Test, export.Options{Rows: 100})
		if err != nil {
			t.Fatalf("%s: %v", precision, err)
		}
		if !c.Identical {
			t.Errorf("%s: the graphs and the engine differ: %+v", precision, c.Legs)
		}
		last := c.Legs[len(c.Legs)-1]
		if last.Claimed {
			t.Errorf("%s: the interpreter's float reading is claimed", precision)
		}
	}
}

// TestVerifyCatches changes one number of a frozen model, as a file with a recomputed checksum would hold it.
func TestVerifyCatches(t *testing.T) {
	m, d := trained(t, "digits-cnn", "int8")
	for name, tc := range map[string]struct {
		change func(f *model.Model)
		layer  string
	}{
		"a weight code":            {func(f *model.Model) { f.Params["c2.weight"].Codes[5] ^= 1 }, "c2"},
		"a bias code":              {func(f *model.Model) { f.Params["fc1.bias"].Int32[3]++ }, "fc1"},
		"a weight scale by an ulp": {func(f *model.Model) { ulp(&f.Quant["fc1.weight"].Scale[0]) }, "fc1"},
		"an act scale by an ulp":   {func(f *model.Model) { ulp(&f.Quant["c1"].Scale[0]) }, "c1"},
		"a multiplier by an ulp":   {func(f *model.Model) { ulp(&f.Node("c2").Requant.M[1]) }, "c2"},
	} {
		t.Run(name, func(t *testing.T) {
			f := freeze(t, m)
			tc.change(f)
			for _, s := range []export.Subject{{Frozen: f, Trained: m}, {Frozen: f}} {
				c, err := export.Verify(t.Context(), s, d.Test, export.Options{Rows: 64})
				if err != nil { // a file whose own numbers contradict each other may be refused outright
					if !strings.Contains(err.Error(), tc.layer) {
						t.Errorf("the error does not name %s: %v", tc.layer, err)
					}
					continue
				}
				if s.Trained == nil && len(c.Differences) == 0 && !strings.Contains(name, "multiplier") {
					continue // without the masters, a file whose numbers fit each other is just another model
				}
				if c.Identical || !names(c, tc.layer) {
					t.Errorf("identical %t, differences %v", c.Identical, c.Differences)
				}
			}
		})
	}
}

func names(c *export.Certificate, layer string) bool {
	for _, d := range c.Differences {
		if strings.HasPrefix(d.Layer, layer) {
			return true
		}
	}
	return false
}

func ulp(x *float32) { *x = math.Nextafter32(*x, 2**x) }

func TestVerifyFileAlone(t *testing.T) {
	m, d := trained(t, "digits-mlp", "w4a8")
	var file bytes.Buffer
	if err := model.Encode(&file, freeze(t, m)); err != nil {
		t.Fatal(err)
	}
	f, err := model.Decode(file.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	c, err := export.Verify(t.Context(), export.Subject{Frozen: f}, d.Test, export.Options{})
	if err != nil || !c.Identical || c.Rows != d.Test.Len() {
		t.Fatalf("%+v, %v", c, err)
	}
	if _, err := export.Verify(t.Context(), export.Subject{Frozen: m}, d.Test, export.Options{}); err == nil {
		t.Error("a model that is not frozen was verified")
	}
}
