package study_test

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/study"
)

const tinyConfig = `
version: 1
name: tiny
seed: 3
dataset: {name: digits, batch: 16, val_fraction: 0.2}
model:
  - dense: {name: fc1, units: 16, act: relu}
  - dense: {name: fc2, units: 10}
train: {epochs: 6, lr: 0.02}
quant:
  weight: {format: int8, scheme: symmetric, per: channel, range: minmax}
  act: {format: int8, scheme: affine, per: tensor, range: envelope}
qat: {epochs: 2, lr: 0.005}
compare: {precisions: [fp32, int8, w2a4], methods: [ptq, qat], seeds: 2}
`

func tiny(t testing.TB, set ...string) *configs.Config {
	t.Helper()
	c, err := configs.Parse("tiny.yaml", []byte(tinyConfig), set...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// blobs is ten noisy clusters in twelve dimensions. It stands in for the data set that the config names.
func blobs(t testing.TB) *datasets.Dataset {
	t.Helper()
	centres := rng.New(9, rng.Synthetic)
	var centre [10][12]int
	for c := range centre {
		for k := range centre[c] {
			centre[c][k] = 80 + centres.IntN(96)
		}
	}
	split := func(n int, seed uint64) *datasets.Set {
		s := rng.New(seed, rng.Synthetic)
		set := &datasets.Set{Shape: []int{12}, Labels: make([]int32, n)}
		for i := range n {
			label := s.IntN(10)
			set.Labels[i] = int32(label)
			for k := range 12 {
				v := centre[label][k] + int(s.Norm()*20)
				set.X = append(set.X, uint8(max(0, min(255, v))))
			}
		}
		return set
	}
	d := &datasets.Dataset{
		Name: "blobs", Classes: strings.Split("abcdefghij", ""), Scale: 1.0 / 64, Zero: 128, MaxCode: 255,
		Train: split(400, 1), Val: split(100, 2), Test: split(200, 3), Source: "synthetic", Licence: "none",
	}
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	return d
}

func compare(t testing.TB, o study.Options) *study.Result {
	t.Helper()
	if o.Workers == 0 {
		o.Workers = 1
	}
	r, err := study.Compare(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// accuracies is everything in a result that must not change between two runs.
func accuracies(r *study.Result) map[string][]float64 {
	out := map[string][]float64{}
	for _, row := range r.Rows {
		out[row.Precision+" "+row.Method] = append([]float64{float64(row.WeightBytes), float64(row.FileBytes)}, row.Values...)
	}
	return out
}

func TestCompare(t *testing.T) {
	d, dir := blobs(t), t.TempDir()
	first := compare(t, study.Options{Config: tiny(t), Data: d, Dir: dir})
	var got []string
	for _, r := range first.Rows {
		got = append(got, r.Precision+" "+r.Method)
		if len(r.Values) != 2 || !slices.Equal(r.Seeds, []uint64{3, 4}) || r.Metric != "accuracy" {
			t.Errorf("%s %s: values %v, seeds %v, metric %s", r.Precision, r.Method, r.Values, r.Seeds, r.Metric)
		}
		if mean := (r.Values[0] + r.Values[1]) / 2; math.Abs(r.Mean-mean) > 1e-9 || r.Std == nil || r.CI95 == nil {
			t.Errorf("%s %s: mean %v of %v, std %v, ci %v", r.Precision, r.Method, r.Mean, r.Values, r.Std, r.CI95)
		}
		if !(r.LatencyMicros > 0 && r.Throughput > 0 && r.TrainSeconds > 0) || r.FileBytes <= r.WeightBytes {
			t.Errorf("%s %s: latency %v, throughput %v, seconds %v, file %d, weights %d", r.Precision, r.Method, r.LatencyMicros, r.Throughput, r.TrainSeconds, r.FileBytes, r.WeightBytes)
		}
		if isQAT := r.Method == study.MethodQAT; isQAT != (r.PairedDeltaPTQ != nil) {
			t.Errorf("%s %s: paired difference to PTQ %v", r.Precision, r.Method, r.PairedDeltaPTQ)
		}
		if quantized := r.Precision != "fp32"; quantized != (len(r.PTQMethods) == 2) {
			t.Errorf("%s %s: calibration methods %v", r.Precision, r.Method, r.PTQMethods)
		}
		if r.PValue != nil || r.EnergyNanojoules != nil {
			t.Errorf("%s %s: p-value or energy is given, and neither was measured", r.Precision, r.Method)
		}
	}
	want := []string{"fp32 none", "fp32 fp32+", "int8 ptq", "int8 qat", "w2a4 ptq", "w2a4 qat"}
	if !slices.Equal(got, want) {
		t.Errorf("rows %v, want %v", got, want)
	}
	if first.Rerun != 12 || len(first.Verdict) == 0 {
		t.Errorf("%d cells were run, want 12; verdict %v", first.Rerun, first.Verdict)
	}
	if fp32 := first.Rows[0]; fp32.Mean < 80 || *fp32.DeltaFP32 != 0 {
		t.Errorf("fp32 learns %.1f %%, difference to itself %v", fp32.Mean, *fp32.DeltaFP32)
	}
	if w := first.Rows[0].WeightBytes; w != 4*(12*16+16*10) {
		t.Errorf("fp32 weights take %d bytes", w)
	}
	for _, name := range []string{study.ResultFile, study.ReportFile} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	works, err := filepath.Glob(filepath.Join(dir, "cells", "*.work"))
	if err != nil || len(works) != 0 {
		t.Errorf("working folders are left: %v, %v", works, err)
	}

	t.Run("resume trains nothing", func(t *testing.T) {
		again := compare(t, study.Options{Config: tiny(t), Data: d, Dir: dir, Resume: true})
		if again.Rerun != 0 || !reflect.DeepEqual(accuracies(again), accuracies(first)) {
			t.Errorf("%d cells were run; rows\n%v\n%v", again.Rerun, accuracies(again), accuracies(first))
		}
	})
	t.Run("another precision adds its cells", func(t *testing.T) {
		more := compare(t, study.Options{Config: tiny(t, "compare.precisions=[int8, w4a4, w2a4]"), Data: d, Dir: dir, Resume: true})
		if more.Rerun != 4 || len(more.Rows) != 8 {
			t.Errorf("%d cells were run, %d rows; want the 4 cells of w4a4 and 8 rows", more.Rerun, len(more.Rows))
		}
	})
	t.Run("another setting runs all", func(t *testing.T) {
		other := compare(t, study.Options{Config: tiny(t, "train.lr=0.03", "compare.seeds=1"), Data: d, Dir: dir, Resume: true})
		if other.Rerun != 6 {
			t.Errorf("%d cells were run, want all 6", other.Rerun)
		}
	})
	t.Run("other data run all", func(t *testing.T) {
		changed := *d
		test := *d.Test
		test.Labels = slices.Clone(test.Labels)
		test.Labels[0] = (test.Labels[0] + 1) % 10
		changed.Test = &test
		other := compare(t, study.Options{Config: tiny(t, "compare.seeds=1"), Data: &changed, Dir: dir, Resume: true})
		if other.Rerun != 6 {
			t.Errorf("%d cells were run, want all 6", other.Rerun)
		}
	})
	t.Run("a damaged cell is run again", func(t *testing.T) {
		files, err := filepath.Glob(filepath.Join(dir, "cells", "int8-qat-seed3-*", "model.narrow"))
		if err != nil || len(files) == 0 {
			t.Fatalf("cells: %v, %v", files, err)
		}
		for _, f := range files {
			if err := os.WriteFile(f, []byte("broken"), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		again := compare(t, study.Options{Config: tiny(t), Data: d, Dir: dir, Resume: true})
		if again.Rerun != 1 || !reflect.DeepEqual(accuracies(again), accuracies(first)) {
			t.Errorf("%d cells were run, want 1", again.Rerun)
		}
	})
	t.Run("without resume all is run again", func(t *testing.T) {
		again := compare(t, study.Options{Config: tiny(t), Data: d, Dir: dir})
		if again.Rerun != 12 || !reflect.DeepEqual(accuracies(again), accuracies(first)) {
			t.Errorf("%d cells were run; rows differ: %v", again.Rerun, accuracies(again))
		}
	})
	t.Run("workers and memory only", func(t *testing.T) {
		again := compare(t, study.Options{Config: tiny(t), Data: d, Workers: 3})
		if !reflect.DeepEqual(accuracies(again), accuracies(first)) {
			t.Errorf("3 workers without a folder give other models:\n%v\n%v", accuracies(again), accuracies(first))
		}
	})
}

// TestScoresAreTheEngines scores the stored models again, by hand.
func TestScoresAreTheEngines(t *testing.T) {
	d, dir := blobs(t), t.TempDir()
	r := compare(t, study.Options{Config: tiny(t, "compare.seeds=1"), Data: d, Dir: dir})
	for _, row := range r.Rows {
		pattern := row.Precision + "-" + strings.ReplaceAll(row.Method, "+", "plus") + "-seed3-*"
		files, err := filepath.Glob(filepath.Join(dir, "cells", pattern, "model.narrow"))
		if err != nil || len(files) != 1 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		e, err := infer.Load(files[0], infer.Options{Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		logits := make([]float32, d.Test.Len()*10)
		if err := e.Run(logits, d.Test.X, d.Test.Len()); err != nil {
			t.Fatal(err)
		}
		right := 0
		for i, l := range d.Test.Labels {
			if infer.ArgMax(logits[10*i:10*i+10]) == int(l) {
				right++
			}
		}
		if got := 100 * float64(right) / float64(d.Test.Len()); got != row.Mean {
			t.Errorf("%s %s: the table says %v %%, the stored model gives %v %%", row.Precision, row.Method, row.Mean, got)
		}
		if row.Std != nil || row.CI95 != nil || row.PairedCI95PTQ != nil {
			t.Errorf("%s %s: one seed has a spread", row.Precision, row.Method)
		}
	}
}

// cancelAt ends a context when a line with the text is written.
type cancelAt struct {
	text   string
	cancel context.CancelFunc
}

func (w cancelAt) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.text) {
		w.cancel()
	}
	return len(p), nil
}

func TestInterruptAndResume(t *testing.T) {
	d, dir := blobs(t), t.TempDir()
	want := compare(t, study.Options{Config: tiny(t), Data: d})
	rerun := 0
	for _, at := range []string{"epoch 3", "[2/12]", "qat    epoch 1", "[7/12]"} { // within a cell, and between two
		ctx, cancel := context.WithCancel(t.Context())
		_, err := study.Compare(ctx, study.Options{Config: tiny(t), Data: d, Dir: dir, Resume: true, Workers: 1, Progress: cancelAt{at, cancel}})
		cancel()
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "cells are finished") {
			t.Fatalf("interrupted at %s: %v", at, err)
		}
		if _, err := os.Stat(filepath.Join(dir, study.ResultFile)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("an unfinished study has a %s: %v", study.ResultFile, err)
		}
		cells, _ := filepath.Glob(filepath.Join(dir, "cells", "*", "cell.json"))
		rerun = len(cells)
	}
	got := compare(t, study.Options{Config: tiny(t), Data: d, Dir: dir, Resume: true})
	if rerun != 7 || got.Rerun != 5 {
		t.Errorf("%d cells were finished before, %d run after; want 7 and 5", rerun, got.Rerun)
	}
	if !reflect.DeepEqual(accuracies(got), accuracies(want)) {
		t.Errorf("two interruptions changed the models:\n%v\n%v", accuracies(got), accuracies(want))
	}
}

func TestMethods(t *testing.T) {
	d := blobs(t)
	names := func(r *study.Result) string {
		var out []string
		for _, row := range r.Rows {
			out = append(out, row.Precision+" "+row.Method)
		}
		return strings.Join(out, ", ")
	}
	only := compare(t, study.Options{Config: tiny(t, "compare.methods=[ptq]", "compare.seeds=1", "compare.precisions=[int8]"), Data: d})
	if got := names(only); got != "fp32 none, int8 ptq" {
		t.Errorf("ptq alone: %s", got)
	}
	only = compare(t, study.Options{Config: tiny(t, "compare.methods=[qat]", "compare.seeds=1", "compare.precisions=[int4]"), Data: d})
	if got := names(only); got != "fp32 none, fp32 fp32+, w4a4 qat" {
		t.Errorf("qat alone: %s", got)
	}
	if only.Rows[2].PairedDeltaPTQ != nil {
		t.Error("there is no PTQ to compare QAT with")
	}
}

func TestRefusedBeforeTraining(t *testing.T) {
	d := blobs(t)
	with := func(change func(*configs.Config)) *configs.Config {
		c := tiny(t)
		change(c)
		return c
	}
	noTest := *d
	noTest.Test = &datasets.Set{Shape: []int{12}}
	for _, tc := range []struct {
		name string
		o    study.Options
		want string
	}{
		{"no config", study.Options{Data: d}, "a config and a data set are needed"},
		{"no data", study.Options{Config: tiny(t)}, "a config and a data set are needed"},
		{"no test split", study.Options{Config: tiny(t), Data: &noTest}, "no test split"},
		{"workers", study.Options{Config: tiny(t), Data: d, Workers: -1}, "-1 workers"},
		{"resume nowhere", study.Options{Config: tiny(t), Data: d, Resume: true}, "resuming needs the folder"},
		{"seeds", study.Options{Config: with(func(c *configs.Config) { c.Compare.Seeds = 0 }), Data: d}, "compare.seeds is 0"},
		{"method", study.Options{Config: with(func(c *configs.Config) { c.Compare.Methods = []string{"ptx"} }), Data: d}, `unknown method "ptx" (allowed: ptq, qat`},
		{"precision", study.Options{Config: with(func(c *configs.Config) { c.Compare.Precisions = []string{"int9"} }), Data: d}, `unknown precision "int9"`},
		{"not yet", study.Options{Config: with(func(c *configs.Config) { c.Compare.Precisions = []string{"mxfp4"} }), Data: d}, "use w4a8"},
		{"no qat section", study.Options{Config: with(func(c *configs.Config) { c.QAT = nil }), Data: d}, "has no qat section"},
	} {
		tc.o.Progress = failWriter{t, tc.name}
		if _, err := study.Compare(t.Context(), tc.o); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
	}
}

// failWriter fails the test when progress is made.
type failWriter struct {
	t    *testing.T
	name string
}

func (w failWriter) Write(p []byte) (int, error) {
	w.t.Errorf("%s: training began: %s", w.name, p)
	return len(p), io.ErrClosedPipe
}

// Stages and a teacher reach the qat rows; a precision that the stages do not end at is refused before anything is trained.
func TestCompareSchedules(t *testing.T) {
	d := blobs(t)
	set := []string{"compare={precisions: [w4a4], methods: [ptq, qat], seeds: 1}", "qat.distill={}", "qat.ema=0.5", "qat.oscillation={}"}
	plain := accuracies(compare(t, study.Options{Config: tiny(t, set[0]), Data: d, Dir: t.TempDir()}))
	for _, row := range [][]string{{"qat.delay=0.3"}, {"qat.lower=[{at: 0, precision: int8}, {at: 0.5, precision: w4a4}]"}, nil} {
		got := accuracies(compare(t, study.Options{Config: tiny(t, append(row, set...)...), Data: d, Dir: t.TempDir()}))
		if !slices.Equal(got["w4a4 ptq"], plain["w4a4 ptq"]) {
			t.Errorf("%v: the ptq row is %v, without schedules %v", row, got["w4a4 ptq"], plain["w4a4 ptq"])
		}
		if v := got["w4a4 qat"]; len(v) != 3 || v[2] < 50 {
			t.Errorf("%v: the qat row is %v", row, v)
		}
	}
	_, err := study.Compare(t.Context(), study.Options{Config: tiny(t, "qat.lower=[{at: 0, precision: int8}, {at: 0.5, precision: w4a4}]"), Data: d, Dir: t.TempDir(), Workers: 1})
	if err == nil || !strings.Contains(err.Error(), "precision int8: qat.lower ends at w4a4") {
		t.Errorf("a precision off the path: %v", err)
	}
}
