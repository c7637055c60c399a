package train_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/quant"
	"github.com/narrow-ml/narrow/train"
)

// small is a preset cut down to a run of a second or two.
func small(t *testing.T, preset string, set ...string) (*configs.Config, *datasets.Dataset) {
	t.Helper()
	c, err := configs.Preset(preset)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Set(append([]string{"dataset.limit=800", "train.epochs=4", "qat.epochs=1.5"}, set...)...); err != nil {
		t.Fatal(err)
	}
	d, err := datasets.Load(t.Context(), c.Dataset.Name, datasets.Options{ValFraction: c.Dataset.ValFraction, Seed: c.Seed, Limit: c.Dataset.Limit})
	if err != nil {
		t.Fatal(err)
	}
	return c, d
}

// files are the deterministic files of a run folder.
var files = []string{"config.yaml", "metrics.jsonl", "model.safetensors", "model.narrow", "run.json"}

func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, name := range files {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		out[name] = data
	}
	return out
}

func same(t *testing.T, what string, want, got map[string][]byte) {
	t.Helper()
	for _, name := range files {
		if !bytes.Equal(want[name], got[name]) {
			t.Errorf("%s: %s differs", what, name)
		}
	}
}

func TestRunIsTheSameForAnyNumberOfWorkers(t *testing.T) {
	for _, tc := range []struct {
		preset string
		set    []string
	}{
		{"digits-mlp", nil},
		{"digits-cnn", []string{"quant.weight.range=lsq", "quant.act.range=lsq"}},
		{"digits-cnn", []string{"qat.backward=int16"}},
		{"digits-cnn", []string{"quant.weight={range: dorefa}"}},
	} {
		t.Run(strings.Join(append([]string{tc.preset}, tc.set...), " "), func(t *testing.T) {
			c, d := small(t, tc.preset, tc.set...)
			var want map[string][]byte
			for workers := 1; workers <= 3; workers++ {
				dir := t.TempDir()
				info, err := train.Run(t.Context(), c, d, train.RunOptions{Dir: dir, Workers: workers})
				if err != nil {
					t.Fatal(err)
				}
				if info.Method != "qat" || info.Precision != "int8" {
					t.Fatalf("run made %+v", info)
				}
				got := contents(t, dir)
				if want == nil {
					want = got
				}
				same(t, "another number of workers", want, got)
			}
		})
	}
}

// stopAfter ends a context after some writes of progress, which come once per epoch, and otherwise by steps.
type stopper struct {
	context.Context
	polls, after int
}

// Err ends the context at the given poll: a stand-in for a signal at an arbitrary step.
func (s *stopper) Err() error {
	if s.polls++; s.polls > s.after {
		return context.Canceled
	}
	return nil
}

func TestRunResumedIsTheSame(t *testing.T) {
	cut := []string{"dataset.limit=300", "train.epochs=2"} // the float phase is that of the first row
	for _, row := range []struct {
		preset string
		set    []string
	}{
		{"digits-cnn", []string{"quant.weight.range=lsq", "quant.act.range=lsq", "qat.backward=int16"}},
		{"digits-mlp", append(slices.Clip(cut), "quant.weight.range=lsq", "quant.act.range=lsq+", "quant.weight.rounding=stochastic", "qat.ema=0.9")},
		{"digits-mlp", append(slices.Clip(cut), "quant.weight.scheme=pow2", "quant.weight.range=tqt", "quant.act.scheme=pow2", "quant.act.range=tqt", "qat.ema=0.9")},
		{"digits-mlp", append(slices.Clip(cut), "quant.weight.range=lsq", "quant.act.range=pact", "qat.scale_step=linear")},
	} {
		t.Run(strings.Join(append([]string{row.preset}, row.set...), " "), func(t *testing.T) {
			c, d := small(t, row.preset, row.set...)
			whole := t.TempDir()
			if _, err := train.Run(t.Context(), c, d, train.RunOptions{Dir: whole, Workers: 2}); err != nil {
				t.Fatal(err)
			}
			want := contents(t, whole)
			dir := t.TempDir()
			stops := 0
			for after := 3; ; after += 13 {
				ctx := &stopper{Context: t.Context(), after: after}
				_, err := train.Run(ctx, c, d, train.RunOptions{Dir: dir, Workers: 2, Resume: true, CheckpointEvery: 5})
				if err == nil {
					break
				}
				if !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				stops++
			}
			if stops < 2 {
				t.Fatalf("the run was stopped %d times, want at least 2", stops)
			}
			t.Logf("stopped %d times", stops)
			same(t, "resumed run", want, contents(t, dir))
		})
	}
}

func TestRunFolder(t *testing.T) {
	c, d := small(t, "digits-mlp")
	dir := t.TempDir()
	o := train.RunOptions{Dir: dir, Workers: 2}
	if _, err := train.Run(t.Context(), c, d, o); err != nil {
		t.Fatal(err)
	}
	if _, err := train.Run(t.Context(), c, d, o); err == nil || !strings.Contains(err.Error(), "--resume") {
		t.Errorf("a second run into the folder: %v", err)
	}
	f, err := train.OpenRun(dir)
	if err != nil {
		t.Fatal(err)
	}
	trained, err := f.Model(d)
	if err != nil {
		t.Fatal(err)
	}
	frozen, err := f.Frozen()
	if err != nil {
		t.Fatal(err)
	}
	a, err := train.ScoreModel(t.Context(), trained, d.Test, 1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := train.ScoreModel(t.Context(), frozen, d.Test, 2)
	if err != nil {
		t.Fatal(err)
	}
	if a.Correct != b.Correct || a.N != d.Test.Len() {
		t.Errorf("masters score %d, the frozen file %d of %d", a.Correct, b.Correct, b.N)
	}
	if a.Accuracy() < 85 {
		t.Errorf("accuracy %.2f%% after two epochs", a.Accuracy())
	}
	float, err := f.FloatModel(d)
	if err != nil {
		t.Fatal(err)
	}
	if float.Precision != quant.Full || len(float.Quant) != 0 {
		t.Errorf("the float model is %s", float.Precision)
	}
	other, _ := small(t, "digits-mlp", "train.lr=0.1")
	if _, err := train.Run(t.Context(), other, d, train.RunOptions{Dir: dir, Resume: true}); err == nil || !strings.Contains(err.Error(), "another config") {
		t.Errorf("resuming with another config: %v", err)
	}
}

func TestOpenRunRefuses(t *testing.T) {
	if _, err := train.OpenRun(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a run folder") {
		t.Errorf("an empty folder: %v", err)
	}
	c, _ := small(t, "digits-mlp")
	dir := t.TempDir()
	text, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), text, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := train.OpenRun(dir); err == nil || !strings.Contains(err.Error(), "--resume") {
		t.Errorf("an unfinished run: %v", err)
	}
}

func TestDamagedCheckpointIsRefused(t *testing.T) {
	c, d := small(t, "digits-mlp")
	dir := t.TempDir()
	ctx := &stopper{Context: t.Context(), after: 12}
	if _, err := train.Run(ctx, c, d, train.RunOptions{Dir: dir, CheckpointEvery: 5}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "checkpoint", "float.safetensors")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data[:len(data)-3], 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := train.Run(t.Context(), c, d, train.RunOptions{Dir: dir, Resume: true}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a cut checkpoint: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || len(after) != len(data)-3 {
		t.Errorf("the damaged file was changed: %d bytes, %v", len(after), err)
	}
}

func TestPrecisionOfARun(t *testing.T) {
	c, d := small(t, "digits-mlp")
	for _, name := range []string{"fp32", "fp16", "w4a8", "w4a16", "int16"} {
		p, err := quant.ParsePrecision(name)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		info, err := train.Run(t.Context(), c, d, train.RunOptions{Dir: dir, Workers: 2, Precision: &p})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		e, err := infer.Load(filepath.Join(dir, train.FrozenFile), infer.Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s, err := train.ScoreEngine(t.Context(), e, d.Test)
		if err != nil || s.Accuracy() < 85 || info.Precision != name {
			t.Errorf("%s: %+v scores %.2f%% (%v)", name, info, s.Accuracy(), err)
		}
	}
}
