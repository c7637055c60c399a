package train_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
	"github.com/narrow-ml/narrow/train"
)

// everything is all schedules at once, on a network with batch norm. Precisions fall from int8 to w2a4.
var everything = []string{
	"quant.weight={format: int2, range: lsq}", "quant.act={format: int4, range: lsq}",
	"qat.delay=0.2", "qat.lower=[{at: 0.2, precision: w8a8}, {at: 0.4, precision: w4a4}, {at: 0.6, precision: w2a4}]",
	"qat.ema=0.9", "qat.bn_reestimate=5", "qat.distill={}", "qat.oscillation={damping: 0.01, freeze_above: 0.008}", "qat.lr=0.004",
}

// followed is the same with ranges that follow batches and masters.
var followed = append(append([]string(nil), everything[2:]...), "quant.weight={format: int2, range: minmax}", "quant.act={format: int4, range: envelope}")

// squashed is the same with weights that are coded through tanh, whose oscillations are counted only.
var squashed = append(append([]string(nil), everything[2:]...), "quant.weight={format: int2, range: dorefa}", "quant.act={format: int4, range: envelope}", "qat.oscillation={}")

func TestSchedulesAreTheSameForAnyNumberOfWorkersAndResumed(t *testing.T) {
	for name, set := range map[string][]string{"learned": everything, "followed": followed, "squashed": squashed} {
		t.Run(name, func(t *testing.T) {
			c, d := small(t, "digits-cnn", set...)
			whole := t.TempDir()
			info, err := train.Run(t.Context(), c, d, train.RunOptions{Dir: whole, Workers: 2})
			if err != nil {
				t.Fatal(err)
			}
			if info.Precision != "w2a4" || info.Method != "qat" || info.Ranges == "" {
				t.Errorf("run made %+v", info)
			}
			want := contents(t, whole)
			other := t.TempDir()
			if _, err := train.Run(t.Context(), c, d, train.RunOptions{Dir: other, Workers: 3}); err != nil {
				t.Fatal(err)
			}
			same(t, "another number of workers", want, contents(t, other))
			dir, stops := t.TempDir(), 0
			for after := 30; ; after += 9 {
				ctx := &stopper{Context: t.Context(), after: after}
				_, err := train.Run(ctx, c, d, train.RunOptions{Dir: dir, Workers: 1, Resume: true, CheckpointEvery: 3})
				if err == nil {
					break
				}
				if !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				stops++
			}
			if stops < 3 {
				t.Fatalf("the run was stopped %d times, want at least 3", stops)
			}
			same(t, "resumed run", want, contents(t, dir))
			checkRun(t, whole, d, name != "squashed")
		})
	}
}

// checkRun: what the run folder holds is of the last precision, and its masters give the frozen model. freezes says whether
// oscillating weights were to be frozen.
func checkRun(t *testing.T, dir string, d *datasets.Dataset, freezes bool) {
	t.Helper()
	f, err := train.OpenRun(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := f.Model(d)
	if err != nil {
		t.Fatal(err)
	}
	refrozen, err := model.Freeze(m)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := model.Encode(&file, refrozen); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(file.Bytes(), contents(t, dir)["model.narrow"]) {
		t.Error("the masters give another model than model.narrow")
	}
	for _, w := range []string{"c1.weight", "fc1.weight"} {
		if p := m.Quant[w]; p == nil || p.Spec.Format != quant.Int2 {
			t.Errorf("%s is %v, want int2", w, p)
		}
	}
	lines := metrics(t, dir)
	var precisions []string
	for _, l := range lines {
		if l.Phase == "qat" {
			precisions = append(precisions, l.Precision)
			if l.Oscillation == nil && l.Precision != "fp32" {
				t.Errorf("no oscillation at step %d", l.Step)
			}
		}
	}
	if got := strings.Join(precisions, " "); got != "w2a4 w2a4" {
		t.Errorf("precisions of the epochs: %s", got)
	}
	if last := lines[len(lines)-1]; (last.Oscillation.Frozen > 0) != freezes || last.Oscillation.Weights == 0 {
		t.Errorf("frozen weights wanted: %t, have %+v", freezes, last.Oscillation)
	}
}

type line struct {
	Phase       string
	Step        int
	Loss        float64
	Val         float64 `json:"validation_accuracy"`
	Precision   string
	Oscillation *struct{ Oscillating, Frozen, Weights int }
}

func metrics(t *testing.T, dir string) []line {
	t.Helper()
	var out []line
	data, err := os.ReadFile(filepath.Join(dir, "metrics.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range bytes.Split(bytes.TrimSpace(data), []byte("\n")) {
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			t.Fatal(err)
		}
		out = append(out, l)
	}
	return out
}

// begun is a trained float net and its quantization-aware training, before the first step.
func begun(t *testing.T, preset string, set ...string) (*configs.Config, train.Job) {
	t.Helper()
	c, d := small(t, preset, append([]string{"train.epochs=2"}, set...)...)
	m, err := train.NewModel(c, d, c.Seed)
	if err != nil {
		t.Fatal(err)
	}
	pool := par.New(2)
	t.Cleanup(pool.Close)
	job := train.Job{Model: m, Data: d, Phase: train.FloatPhase(c), Seed: c.Seed, Pool: pool}
	if _, err := train.Fit(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	p := c.Precision()
	stages, err := train.Stages(c, m, p)
	if err != nil {
		t.Fatal(err)
	}
	float := m.Clone()
	start, _, err := train.StartQAT(t.Context(), c, m, p, d, c.Seed, 2)
	if err != nil {
		t.Fatal(err)
	}
	job.Model, job.Phase, job.Stages, job.Config, job.Teacher = start, train.QATPhase(c), stages, c, float
	return c, job
}

func fit(t *testing.T, job train.Job) *model.Model {
	t.Helper()
	r, err := train.Fit(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	return r.Model
}

func TestFreezeAfter(t *testing.T) {
	for _, row := range []struct {
		key    string
		ranges bool // that they move
		norm   bool
	}{
		{"qat.freeze_ranges_after=0", false, true},
		{"qat.freeze_bn_after=0", true, false},
		{"qat.freeze_bn_after=1", true, true},
	} {
		t.Run(row.key, func(t *testing.T) {
			_, job := begun(t, "digits-cnn", "quant.weight.range=minmax", "quant.act.range=envelope", row.key)
			before := job.Model.Clone()
			after := fit(t, job)
			if moved := before.Quant["c1"].Scale[0] != after.Quant["c1"].Scale[0]; moved != row.ranges {
				t.Errorf("ranges moved: %t", moved)
			}
			if moved := before.Params["c1.mean"].Data[0] != after.Params["c1.mean"].Data[0]; moved != row.norm {
				t.Errorf("statistics moved: %t", moved)
			}
			if before.Params["c1.weight"].Data[0] == after.Params["c1.weight"].Data[0] {
				t.Error("the weights were not trained")
			}
		})
	}
}

// Half way through the phase ranges freeze: training on with other batches moves them no more, and they have moved before.
func TestFreezeRangesHalfWay(t *testing.T) {
	scale := func(freeze string) float32 {
		_, job := begun(t, "digits-cnn", "quant.weight.range=minmax", "quant.act.range=envelope", "qat.lr=0.003", "qat.freeze_ranges_after="+freeze)
		return fit(t, job).Quant["c1"].Scale[0]
	}
	never, half, always := scale("1"), scale("0.5"), scale("0")
	if never == half || half == always {
		t.Errorf("scales %v without freezing, %v frozen half way, %v frozen from the start: want three values", never, half, always)
	}
}

func TestDelayTrainsInFloat32First(t *testing.T) {
	_, job := begun(t, "digits-cnn", "quant.weight={format: int4, range: lsq}", "quant.act={format: int4, range: lsq}", "qat.delay=0.9")
	if job.Model.Stage != model.Float {
		t.Fatalf("training begins with a %s model", job.Model.Stage)
	}
	m := fit(t, job)
	if m.Stage != model.Quantized || m.Precision.String() != "w4a4" {
		t.Errorf("training ends with a %s model at %s", m.Stage, m.Precision)
	}
	s, err := train.ScoreModel(t.Context(), m, job.Data.Val, 1)
	if err != nil || s.Accuracy() < 60 {
		t.Errorf("accuracy %.2f%% (%v)", s.Accuracy(), err)
	}
	job.Phase.Epochs = 0.05 // 1 step: the last stage would begin after it
	if _, err := train.Fit(t.Context(), job); err == nil || !strings.Contains(err.Error(), "would never be trained") {
		t.Errorf("a precision that never comes: %v", err)
	}
}

func TestStagesEndAtThePrecisionOfTheRun(t *testing.T) {
	c, d := small(t, "digits-cnn", "qat.lower=[{at: 0, precision: w8a8}, {at: 0.5, precision: w4a4}]")
	_, err := train.Run(t.Context(), c, d, train.RunOptions{Dir: t.TempDir(), Workers: 1})
	if err == nil || !strings.Contains(err.Error(), "qat.lower ends at w4a4, and the model is to be int8") {
		t.Errorf("%v", err)
	}
	full := quant.Full
	if _, err := train.Run(t.Context(), c, d, train.RunOptions{Dir: t.TempDir(), Workers: 1, Precision: &full}); err != nil {
		t.Errorf("float32 has no stages: %v", err)
	}
}

// The average takes no part in training, ships in the place of the last masters, and is made of them.
func TestEMAShipsTheAverage(t *testing.T) {
	at := func(set ...string) (train.Report, *model.Model) {
		_, job := begun(t, "digits-cnn", append(set, "qat.lr=0.003", "qat.schedule=constant", "quant.weight={format: int4, range: lsq}", "quant.act={format: int4, range: lsq}")...)
		r, err := train.Fit(t.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		return r, r.Model
	}
	plain, last := at()
	kept, none := at("qat.ema=0.000001")
	averaged, mean := at("qat.ema=0.999")
	if plain.Loss != averaged.Loss || plain.Loss != kept.Loss {
		t.Errorf("losses %v without an average, %v and %v with one", plain.Loss, kept.Loss, averaged.Loss)
	}
	for _, name := range []string{"c1.weight", "c1.gamma", "c1.var", "fc1.bias"} {
		if last.Params[name] == nil {
			continue
		}
		a, b, c := last.Params[name].Data[0], none.Params[name].Data[0], mean.Params[name].Data[0]
		if math.Abs(float64(a-b)) > 1e-5*math.Abs(float64(a)) || a == c {
			t.Errorf("%s is %v, with an average of no memory %v, with a long one %v", name, a, b, c)
		}
	}
	if a, b := last.Quant["c1.weight"].Scale[0], mean.Quant["c1.weight"].Scale[0]; a == b {
		t.Errorf("the learned scale %v was not averaged", a)
	}
}

// Re-estimated statistics are those of the shipped weights: however far the running ones were off, they come out the same.
func TestBNReestimateForgetsTheRunningStatistics(t *testing.T) {
	var got [2][]float32
	for i := range got {
		_, job := begun(t, "digits-cnn", "qat.bn_reestimate=7", "qat.freeze_bn_after=1", "quant.weight.range=minmax", "quant.act.range=envelope")
		if i == 1 {
			for k := range job.Model.Params["c1.mean"].Data {
				job.Model.Params["c1.mean"].Data[k] += 100 // never read while batch norm trains
			}
		}
		job.Data.Val = nil
		got[i] = fit(t, job).Params["c1.mean"].Data
	}
	for k := range got[0] {
		if got[0][k] != got[1][k] {
			t.Fatalf("mean of channel %d is %v, or %v after another start", k, got[0][k], got[1][k])
		}
	}
}

func TestDistillNeedsATeacher(t *testing.T) {
	_, job := begun(t, "digits-mlp", "qat.distill={}")
	job.Teacher = nil
	if _, err := train.Fit(t.Context(), job); err == nil || !strings.Contains(err.Error(), "teacher") {
		t.Errorf("%v", err)
	}
}

// Damping lowers the number of weights that oscillate, freezing ends it for those it catches.
func TestOscillationIsDamped(t *testing.T) {
	count := func(set ...string) (oscillating, frozen int) {
		c, d := small(t, "digits-cnn", append([]string{"qat.epochs=6", "qat.lr=0.003", "qat.schedule=constant",
			"quant.weight={format: int3, range: lsq}", "quant.act={format: int4, range: lsq}"}, set...)...)
		dir := t.TempDir()
		if _, err := train.Run(t.Context(), c, d, train.RunOptions{Dir: dir, Workers: 2}); err != nil {
			t.Fatal(err)
		}
		lines := metrics(t, dir)
		o := lines[len(lines)-1].Oscillation
		return o.Oscillating, o.Frozen
	}
	plain, frozen := count("qat.oscillation={}")
	if plain == 0 || frozen != 0 {
		t.Fatalf("%d weights oscillate, %d are frozen without anything against it", plain, frozen)
	}
	damped, _ := count("qat.oscillation={damping: 10}")
	stopped, frozen := count("qat.oscillation={freeze_above: 0.011}")
	t.Logf("%d oscillate, damped %d, with freezing %d (%d frozen)", plain, damped, stopped, frozen)
	if damped >= plain || stopped >= plain || frozen == 0 {
		t.Errorf("%d weights oscillate, damped %d, with freezing %d (%d frozen)", plain, damped, stopped, frozen)
	}
}
