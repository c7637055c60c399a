package train_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/export/safetensors"
	"github.com/narrow-ml/narrow/train"
)

// scratch trains quantized from random weights, with all that Brevitas' recipe asks for.
const scratch = `
version: 1
name: scratch
dataset: {name: digits, batch: 50, val_fraction: 0, limit: 300, center: true}
model:
  - flatten: {}
  - dense: {name: fc1, units: 32, norm: batch, dropout: 0.2}
  - dense: {name: fc2, units: 10, norm: tensor, dropout: 0.2}
train: {epochs: 1, lr: 0.02, loss: squared_hinge, init_range: 1, weight_clip: 0.75, track_test: true}
quant:
  input: act
  weight: {format: binary, per: tensor, range: constant, max: 1}
  act: {format: binary}
qat: {start: scratch, epochs: 3, lr: 0.02, schedule: step, step_every: 1, step_gamma: 0.5, freeze_ranges_after: 1, freeze_bn_after: 1}
`

func scratchConfig(t *testing.T) (*configs.Config, *datasets.Dataset) {
	t.Helper()
	c, err := configs.Parse("scratch.yaml", []byte(scratch))
	if err != nil {
		t.Fatal(err)
	}
	d, err := datasets.Load(t.Context(), c.Dataset.Name, datasets.Options{Seed: c.Seed, Limit: c.Dataset.Limit})
	if err != nil {
		t.Fatal(err)
	}
	return c, d
}

// TestScratch: dropout, clipping and tracking give the same bytes for any number of workers and after being killed inside
// an epoch; no float phase runs; weights stay within the clip; the test scores are in the journal and the report.
func TestScratch(t *testing.T) {
	c, d := scratchConfig(t)
	var want map[string][]byte
	for workers := 1; workers <= 3; workers++ {
		dir := t.TempDir()
		info, err := train.Run(t.Context(), c, d, train.RunOptions{Dir: dir, Workers: workers})
		if err != nil {
			t.Fatal(err)
		}
		if info.Method != "qat" || info.Tracked == nil || info.Tracked.Best < info.Tracked.Last || info.Tracked.BestEpoch < 1 {
			t.Fatalf("%+v, tracked %+v", info, info.Tracked)
		}
		got := contents(t, dir)
		if want == nil {
			want = got
		}
		same(t, "more workers", want, got)
	}
	journal := string(want["metrics.jsonl"])
	if n := strings.Count(journal, `"test_accuracy"`); n != 3 || strings.Contains(journal, `"phase":"float"`) {
		t.Errorf("%d epochs with a test score, want 3 of phase qat alone:\n%s", n, journal)
	}
	tensors, _, err := safetensors.Read(want["model.safetensors"])
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range tensors {
		if s.Name != "param/fc1.weight" {
			continue
		}
		w := make([]float32, 64*32)
		if err := s.Float32s(w); err != nil {
			t.Fatal(err)
		}
		if top := max(slices.Max(w), -slices.Min(w)); top != 0.75 {
			t.Errorf("the largest weight is %v, want the clip 0.75", top)
		}
	}
	dir := t.TempDir()
	stop := &stopper{Context: t.Context(), after: 40}
	if _, err := train.Run(stop, c, d, train.RunOptions{Dir: dir, Workers: 2}); !errors.Is(err, context.Canceled) {
		t.Fatalf("stopped run: %v", err)
	}
	if _, err := train.Run(t.Context(), c, d, train.RunOptions{Dir: dir, Workers: 1, Resume: true}); err != nil {
		t.Fatal(err)
	}
	same(t, "resumed", want, contents(t, dir))
}

// TestTrackingSteersNothing: with and without scores of the test split the model is the same.
func TestTrackingSteersNothing(t *testing.T) {
	c, d := scratchConfig(t)
	with, without := t.TempDir(), t.TempDir()
	if _, err := train.Run(t.Context(), c, d, train.RunOptions{Dir: with, Workers: 1}); err != nil {
		t.Fatal(err)
	}
	if err := c.Set("train.track_test=false"); err != nil {
		t.Fatal(err)
	}
	if _, err := train.Run(t.Context(), c, d, train.RunOptions{Dir: without, Workers: 1}); err != nil {
		t.Fatal(err)
	}
	a, b := contents(t, with), contents(t, without)
	for _, name := range []string{"model.safetensors", "model.narrow"} {
		if !slices.Equal(a[name], b[name]) {
			t.Errorf("%s depends on the test scores", name)
		}
	}
}

// TestInitRange: weights are uniform in the range, biases and norms as ever.
func TestInitRange(t *testing.T) {
	c, d := scratchConfig(t)
	m, err := train.NewModel(c, d, 3)
	if err != nil {
		t.Fatal(err)
	}
	w := m.Params["fc1.weight"].Data
	sum := 0.0
	for _, v := range w {
		sum += float64(v) * float64(v)
	}
	if got := math.Sqrt(sum / float64(len(w))); math.Abs(got-1/math.Sqrt(3)) > 0.03 || slices.Max(w) > 1 || slices.Min(w) < -1 {
		t.Errorf("deviation %v in [%v, %v], want 0.577 in [-1, 1]", got, slices.Min(w), slices.Max(w))
	}
	if g := m.Params["fc2.gamma"].Data; len(g) != 1 || g[0] != 1 {
		t.Errorf("gamma of the whole tensor is %v", g)
	}
}
