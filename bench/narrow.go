package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"time"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/internal/cpu"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat/ptq"
	"github.com/narrow-ml/narrow/quant"
	"github.com/narrow-ml/narrow/train"
)

// seed of everything random on Narrow's side.
const seed = 1

// load reads prepared examples as a data set. Its validation split is a part of the training examples: it only serves
// calibration methods that want one.
func (d Data) load() (*datasets.Dataset, error) {
	x, err := os.ReadFile(d.Codes)
	if err != nil {
		return nil, err
	}
	y, err := os.ReadFile(d.Labels)
	if err != nil {
		return nil, err
	}
	set := &datasets.Set{Shape: d.Shape[:], X: x, Labels: make([]int32, len(y))}
	for i, l := range y {
		set.Labels[i] = int32(l)
	}
	part := min(valExamples, set.Len())
	val := &datasets.Set{Shape: d.Shape[:], X: x[:part*d.Elems()], Labels: set.Labels[:part]}
	out := &datasets.Dataset{Name: d.Name, Scale: d.Scale, Zero: d.Zero, MaxCode: math.MaxUint8, Train: set, Val: val, Test: val}
	for c := range d.Classes {
		out.Classes = append(out.Classes, fmt.Sprint(c))
	}
	return out, out.Validate()
}

const valExamples = 1024

var int8Precision = quant.Precision{Weight: quant.Int8, Act: quant.Int8}

// narrowTrain trains a net with package train, as the command line does.
type narrowTrain struct {
	job      train.Job
	perEpoch int
	stepTime time.Duration // of the last run
}

// warmSteps of training are taken before anything is measured.
const warmSteps = 20

func loadNarrowTrain(ctx context.Context, s Spec) (runner, Ready, error) {
	d, err := s.Data.load()
	if err != nil {
		return nil, Ready{}, err
	}
	return newNarrowTrain(ctx, s, d)
}

// newNarrowTrain trains for the first steps; d's validation split serves calibration only.
func newNarrowTrain(ctx context.Context, s Spec, d *datasets.Dataset) (*narrowTrain, Ready, error) {
	c, err := configs.Open(s.Config)
	if err != nil {
		return nil, Ready{}, err
	}
	m, err := train.NewModel(c, d, seed)
	if err != nil {
		return nil, Ready{}, err
	}
	batch := s.Batches[0]
	phase := train.FloatPhase(c)
	detail := "train.Fit"
	if s.Precision == precInt8 {
		r, q, err := train.Calibrated(ctx, c, m, int8Precision, d, s.Threads)
		if err != nil {
			return nil, Ready{}, err
		}
		if m, err = ptq.ForTraining(r.Model, q); err != nil {
			return nil, Ready{}, err
		}
		phase = train.QATPhase(c)
		phase.FreezeRangesAfter, phase.FreezeNormAfter = 1, 1 // the dearest part of QAT throughout, as the peers measure it
		detail = fmt.Sprintf("train.Fit, weights %s, activations %s", q.Weight.Range, q.Act.Range)
	}
	phase.Batch, phase.EarlyStop = batch, 0
	phase.Solver = configs.Solver{Optimizer: "adam", LR: s.LR, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Schedule: "constant"}
	d.Val = nil // no scoring between the steps
	perEpoch, err := d.Train.Steps(datasets.BatchOptions{Size: batch})
	if err != nil {
		return nil, Ready{}, err
	}
	t := &narrowTrain{perEpoch: perEpoch, job: train.Job{Model: m, Data: d, Phase: phase, Seed: seed, Pool: par.New(s.Threads)}}
	if _, err := t.steps(warmSteps); err != nil {
		return nil, Ready{}, err
	}
	return t, Ready{Version: runtime.Version(), Detail: detail + "; tier " + cpu.Describe(), Masters: mastersDigest(m)}, nil
}

// steps trains on for so many steps.
func (t *narrowTrain) steps(n int) (train.Report, error) {
	t.job.Phase.Epochs = float64(n) / float64(t.perEpoch)
	t.job.Phase.Order++ // other batches each time
	r, err := train.Fit(context.Background(), t.job)
	if err == nil {
		t.stepTime = time.Duration(r.Seconds * float64(time.Second) / float64(r.Steps))
	}
	return r, err
}

// Run trains for about d. Building the graph counts as well: it is part of every training.
func (t *narrowTrain) Run(batch int, d time.Duration) (Sample, error) {
	if batch != t.job.Phase.Batch {
		return Sample{}, fmt.Errorf("a graph for batches of %d was asked for %d", t.job.Phase.Batch, batch)
	}
	cpuBefore, err := cpuTime()
	if err != nil {
		return Sample{}, err
	}
	began := time.Now()
	r, err := t.steps(max(1, int(d/max(t.stepTime, 1))))
	if err != nil {
		return Sample{}, err
	}
	wall := time.Since(began)
	cpuAfter, err := cpuTime()
	if err != nil {
		return Sample{}, err
	}
	return Sample{Count: r.Steps * batch, Wall: wall.Seconds(), CPU: (cpuAfter - cpuBefore).Seconds(), P50Micros: wall.Seconds() / float64(r.Steps) * 1e6}, nil
}

// narrowInfer runs a model file in the engine.
type narrowInfer struct {
	engine *infer.Engine
	x      []uint8
	logits []float32
	next   int
}

func loadNarrowInfer(s Spec) (runner, Ready, error) {
	e, err := infer.Load(s.Model, infer.Options{Workers: s.Threads})
	if err != nil {
		return nil, Ready{}, err
	}
	x, err := firstExamples(s)
	if err != nil {
		return nil, Ready{}, err
	}
	n := len(x) / e.InputSize()
	r := &narrowInfer{engine: e, x: x, logits: make([]float32, n*e.Classes())}
	if err := e.Run(r.logits, x, n); err != nil {
		return nil, Ready{}, err
	}
	return r, Ready{Version: runtime.Version(), Detail: "infer; tier " + e.Describe().Tier, Classes: classes(r.logits, e.Classes())}, nil
}

func (r *narrowInfer) Run(batch int, d time.Duration) (Sample, error) {
	size := r.engine.InputSize()
	examples := len(r.x) / size
	if batch > examples {
		return Sample{}, fmt.Errorf("batch %d is more than the %d examples of the worker", batch, examples)
	}
	return calls(batch, d, func() error {
		first := r.next % (examples / batch) * batch
		r.next++
		return r.engine.Run(r.logits, r.x[first*size:][:batch*size], batch)
	})
}

// firstExamples are as many examples as the largest batch of a spec has. Calls with smaller batches go through them in
// turn: with one example again and again, a CPU learns its branches by heart.
func firstExamples(s Spec) ([]uint8, error) {
	n := minExamples
	for _, b := range s.Batches {
		n = max(n, b)
	}
	n = min(n, s.Data.N)
	f, err := os.Open(s.Data.Codes)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	x := make([]uint8, n*s.Data.Elems())
	if _, err := f.ReadAt(x, 0); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Data.Codes, err)
	}
	return x, nil
}

const minExamples = 64

// classes are the answers in rows of logits.
func classes(logits []float32, n int) []int {
	var out []int
	for ; len(logits) >= n; logits = logits[n:] {
		out = append(out, infer.ArgMax(logits[:n]))
	}
	return out
}

// writeFrozen writes a model file.
func writeFrozen(path string, m *model.Model) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := model.Encode(f, m); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
