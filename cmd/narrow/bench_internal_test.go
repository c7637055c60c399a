package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

func TestBench(t *testing.T) {
	t.Chdir(t.TempDir())
	good(t, "train", "digits", "--set", "train.epochs=1", "--set", "qat.epochs=0.1", "--precision", "w4a8", "--out", "qat", "-q")
	good(t, "train", "digits", "--set", "train.epochs=1", "--precision", "fp32", "--out", "float", "-q")
	good(t, "quantize", "float", "--precision", "w2a4", "--method", "minmax", "--out", "ptq", "-q")
	quick := []string{"--seconds", "0.002", "--batch", "1,8", "--threads", "1"}
	for _, c := range []struct {
		args       string
		precisions []string
		weights    string
	}{
		{"digits", []string{"fp32", "int8"}, "fresh"},
		{"digits --precision w4a4", []string{"fp32", "w4a4"}, "fresh"},
		{"qat", []string{"fp32", "w4a8"}, "the run's"},
		{"ptq", []string{"fp32", "w2a4"}, "the run's"},
		{"float", []string{"fp32", "int8"}, "the run's"},
		{"float --precision fp16", []string{"fp32", "fp16"}, "the run's"},
		{filepath.Join("qat", "model.narrow"), []string{"w4a8"}, "the file's"},
	} {
		var r benchResult
		goodJSON(t, &r, slices.Concat([]string{"bench"}, strings.Fields(c.args), quick)...)
		if r.Weights != c.weights || r.Tier == "" || len(r.Rows) != 2*len(c.precisions) {
			t.Fatalf("bench %s: %+v, want %s weights and rows for %v at 2 batch sizes", c.args, r, c.weights, c.precisions)
		}
		for i, row := range r.Rows {
			at := i % len(c.precisions)
			if want := []int{1, 8}[i/len(c.precisions)]; row.Precision != c.precisions[at] || row.Batch != want || row.Threads != 1 {
				t.Errorf("bench %s, row %d: %+v, want %s at batch %d", c.args, i, row, c.precisions[at], want)
			}
			l := row.LatencyUs
			if !(0 < l.Min && l.Min <= l.Median && l.Median <= l.Max) {
				t.Errorf("bench %s, row %d: latency %+v", c.args, i, l)
			}
			if rate := float64(row.Batch) / l.Median * 1e6; row.Throughput < 0.999*rate || row.Throughput > 1.001*rate {
				t.Errorf("bench %s, row %d: throughput %v of calls of %v us", c.args, i, row.Throughput, l.Median)
			}
			if (row.Speedup != nil) != (at > 0) {
				t.Errorf("bench %s, row %d: speed-up %v: fp32 has none, the others have one", c.args, i, row.Speedup)
			}
		}
	}
	text := good(t, append([]string{"bench", "qat"}, quick...)...)
	for _, want := range []string{"digits-mlp, the run's weights", "instruction tier", "fp32", "w4a8", "speed-up over fp32"} {
		if !strings.Contains(text, want) {
			t.Errorf("bench qat lacks %q:\n%s", want, text)
		}
	}
	for args, want := range map[string]string{
		"bench qat --precision int8":                         "quantized to w4a8 already",
		"bench qat --set train.lr=1":                         "--set is for a CONFIG",
		"bench qat/model.narrow --precision int8":            "is frozen",
		"bench digits --precision fp32":                      "fp32 is what the others are measured against",
		"bench digits --batch 0":                             `--batch: "0" is not a whole number from 1`,
		"bench digits --batch ,":                             "--batch is empty",
		"bench digits --threads 4096":                        `--threads: "4096" is not`,
		"bench digits --seconds 0":                           "--seconds 0 must be above 0",
		"bench digts":                                        `did you mean "digits-mlp"?`,
		"bench float --set train.lr=1 --seconds 0.01 --json": "--set is for a CONFIG",
	} {
		if _, stderr, code := narrow(t, strings.Fields(args)...); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("narrow %s: exit code %d, %q; want %d and %q", args, code, stderr, exitUsage, want)
		}
	}
}

// A float twin computes what the masters say, and not what the codes do.
func TestFloatTwin(t *testing.T) {
	m := model.New("twin", model.Input{Name: "x", Shape: model.Shape{2}, Scale: 1.0 / 255})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: 2}})
	m, err := model.Shapes(m)
	if err != nil {
		t.Fatal(err)
	}
	copy(m.Params["fc.weight"].Data, []float32{1, 0.3, -1, 0.1})
	q, err := model.Place(m, model.DefaultQuant(quant.Precision{Weight: quant.Int2, Act: quant.Int8}))
	if err != nil {
		t.Fatal(err)
	}
	logits := func(m *model.Model) []float32 {
		e, err := infer.Compile(m, infer.Options{Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		out := make([]float32, 2)
		if err := e.Run(out, []uint8{255, 51}, 1); err != nil {
			t.Fatal(err)
		}
		return out
	}
	want, twin, quantized := logits(m), logits(floatTwin(q)), logits(q)
	if !slices.Equal(twin, want) || slices.Equal(quantized, want) {
		t.Errorf("float %v, twin %v, quantized %v: the twin must be the float model", want, twin, quantized)
	}
	if q.Stage != model.Quantized || q.Quant == nil {
		t.Error("making a twin changed the model")
	}
}

func TestSummary(t *testing.T) {
	if got := summary([]float64{9, 1, 4}); got != (spread{4, 1, 9}) {
		t.Errorf("%v, want a median of 4", got)
	}
	if got := summary([]float64{8, 1, 2, 4}); got != (spread{3, 1, 8}) {
		t.Errorf("%v, want a median of 3", got)
	}
	if got := over([]float64{6, 8}, []float64{3, 2}); !slices.Equal(got, []float64{2, 4}) {
		t.Errorf("%v, want 2 and 4: half the time is twice the speed", got)
	}
}
