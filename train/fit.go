package train

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"runtime"
	"time"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/export/safetensors"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
)

// Job is one phase of training of one model.
type Job struct {
	Model *model.Model // Float or Quantized with its ranges set; trained in place
	Data  *datasets.Dataset
	Phase Phase
	Seed  uint64
	Pool  *par.Pool

	Teacher *model.Model    // of Phase.Distill: a model whose answers are learned; as it is before the first step
	Stages  []Stage         // of quantization-aware training; Model is that of the first. None: Model all the way
	Config  *configs.Config // with Stages: how each is quantized and calibrated

	Dir             string // run folder for checkpoints and metrics; "" = none
	Resume          bool   // continue from the phase's checkpoint in Dir, if there is one
	CheckpointEvery int    // steps between checkpoints; 0 = by the clock; always at the end of an epoch
	Journal         int64  // length of metrics.jsonl before this phase: what earlier phases wrote

	Progress io.Writer    // bar or lines; nil = silent
	Log      *slog.Logger // nil = silent
}

// Report is how a phase went.
type Report struct {
	Model   *model.Model // trained: the Job's, or that of the last of its Stages
	Ranges  string       // the method of the calibration inside the phase, if there was one
	Steps   int          // of the whole phase, resumed ones included
	Loss    float64      // mean of the last epoch
	Val     float64      // validation accuracy of the final model, percent; 0 without a validation split
	Epoch   float64      // the epoch the model is from: the last, or the best with early stop
	Seconds float64      // spent by this call

	Test, BestTest float64 // with TrackTest: test accuracy after the last epoch, and of the best
	BestTestAt     int     // epoch of BestTest

	Journal int64 // length of metrics.jsonl after this phase
}

// checkpointInterval is how often a phase without CheckpointEvery is saved. When does not change what is trained.
const checkpointInterval = 20 * time.Second

// prefetch is how many batches are prepared ahead.
const prefetch = 2

// Fit runs a phase. When ctx ends it saves a checkpoint and returns ctx's error; with Resume a later call goes on as if
// nothing had happened. A loss that is not finite is an error: nothing is gained by training on.
func Fit(ctx context.Context, j Job) (Report, error) {
	began := time.Now()
	f, err := newFit(j)
	if err != nil {
		return Report{}, fmt.Errorf("phase %s: %w", j.Phase.Name, err)
	}
	defer func() { f.net.Close() }() // stages build new graphs
	if err := f.run(ctx); err != nil {
		return Report{}, fmt.Errorf("phase %s: %w", j.Phase.Name, err)
	}
	r := Report{Model: f.model, Ranges: f.pos.Ranges, Steps: f.pos.Step, Loss: f.pos.Last.Loss, Epoch: f.pos.Last.Epoch, Seconds: time.Since(began).Seconds(), Journal: f.pos.Metrics}
	if f.pos.Last.Val != nil {
		r.Val = *f.pos.Last.Val
	}
	if f.pos.Last.Test != nil {
		r.Test, r.BestTest, r.BestTestAt = *f.pos.Last.Test, f.pos.BestTest, f.pos.BestTestAt
	}
	if f.best != nil {
		if err := setMasters(f.model, f.best); err != nil {
			return Report{}, fmt.Errorf("phase %s: %w", j.Phase.Name, err)
		}
		r.Val, r.Epoch = f.pos.Best, float64(f.pos.BestAt)
	}
	return r, nil
}

// fit is the state of a running phase.
type fit struct {
	Job
	model       *model.Model // of the stage at hand
	net         *layers.Net
	opt         *optimizer
	teacher     *teacher      // nil: none
	average     *average      // nil: none
	oscillating *oscillations // nil: none
	schedule    Schedule
	perEpoch    int
	seed        uint64 // of the phase: shuffles, dropout, stochastic rounding
	pos         position
	best        []safetensors.Tensor // with early stop: the masters of the best epoch
	file        checkpoint
	journal     *journal
	saved       time.Time
}

func newFit(j Job) (*fit, error) {
	if j.Log == nil {
		j.Log = slog.New(slog.DiscardHandler)
	}
	if err := j.Phase.Validate(); err != nil {
		return nil, err
	}
	perEpoch, err := j.Data.Train.Steps(datasets.BatchOptions{Size: j.Phase.Batch})
	if err != nil {
		return nil, err
	}
	if perEpoch == 0 {
		return nil, fmt.Errorf("data set %q has no training examples", j.Data.Name)
	}
	if j.Phase.EarlyStop > 0 && (j.Data.Val == nil || j.Data.Val.Len() == 0) {
		return nil, fmt.Errorf("early stop needs a validation split: set dataset.val_fraction above 0")
	}
	if j.Phase.TrackTest && j.Data.Test == nil {
		return nil, fmt.Errorf("data set %q has no test split to track", j.Data.Name)
	}
	order := rng.New(j.Seed, rng.Shuffle, 1<<32+j.Phase.Order)
	seed := order.Uint64()
	total := max(1, int(math.Round(j.Phase.Epochs*float64(perEpoch))))
	f := &fit{
		Job: j, model: j.Model, schedule: j.Phase.schedule(perEpoch, total), perEpoch: perEpoch, seed: seed,
		pos: position{Digest: digest(j, total), Total: total, Best: -1}, file: newCheckpoint(j.Dir, j.Phase.Name), saved: time.Now(),
	}
	if err := f.checkStages(); err != nil {
		return nil, err
	}
	if f.teacher, err = newTeacher(j); err != nil { // a copy, before a checkpoint moves masters that it may share
		return nil, err
	}
	if err := f.open(); err != nil {
		if f.net != nil {
			f.net.Close()
		}
		return nil, err
	}
	return f, nil
}

// build makes the graph of the model and what follows its training.
func (f *fit) build() error {
	loss := layers.Loss{Kind: f.Phase.Loss, Smoothing: f.Phase.LabelSmoothing}
	if d := f.Phase.Distill; d != nil {
		loss.Distill = layers.Distill{Weight: d.Weight, Temperature: d.Temperature}
	}
	backward := f.Phase.Backward
	if !f.model.Precision.IsInteger() { // a config's 16-bit floats and fp32+ train beside its integers
		backward = layers.BackwardFloat
	}
	runtime.GC() // graphs and engines of earlier phases would stay beside the new graph until the heap has doubled
	net, err := layers.Build(f.model, layers.Options{
		Batch: f.Phase.Batch, Train: true, Loss: loss, Pool: f.Pool, Fuse: f.Phase.Fuse, Backward: backward, ScaleFactor: f.Phase.ScaleFactor,
		PACTDecay: f.Phase.PACTDecay, Seed: f.seed,
	})
	if err != nil {
		return err
	}
	if f.net != nil {
		f.net.Close()
	}
	f.net = net
	if f.opt, err = newOptimizer(f.Phase, f.net.Trainables(), f.Pool); err != nil {
		return err
	}
	if f.Phase.EMA > 0 {
		f.average = newAverage(f.Phase.EMA, f.model)
	}
	f.oscillating, err = newOscillations(f.Phase.Oscillation, f.model, f.net)
	return err
}

// open builds the graph and finds where the phase starts: at the beginning, or where a checkpoint left it. Lines of
// metrics.jsonl that were written after that point will come again and are cut off; a phase that is done leaves the file
// alone, since the lines of later phases follow its own.
func (f *fit) open() error {
	keep := f.Job.Journal
	var tensors []safetensors.Tensor
	resumed := false
	if f.Resume {
		pos, saved, ok, err := f.file.load(f.pos.Digest)
		if err != nil {
			return err
		}
		if ok {
			f.pos, tensors, resumed, keep = pos, saved, true, pos.Metrics
		}
	}
	wrap := func(err error) error {
		if err != nil && resumed {
			return fmt.Errorf("checkpoint %s: %w; remove it to start this phase again", f.file.path, err)
		}
		return err
	}
	if resumed {
		var err error
		if f.model, err = f.stageModel(f.pos.Stage); err == nil {
			err = setMasters(f.model, tensors)
		}
		if err != nil {
			return wrap(err)
		}
	}
	if err := f.build(); err != nil {
		return wrap(err)
	}
	if resumed {
		if err := f.apply(tensors); err != nil {
			return wrap(err)
		}
		f.Log.Info("resumed", "phase", f.Phase.Name, "step", f.pos.Step, "of", f.pos.Total)
	}
	if f.pos.done() {
		return nil
	}
	f.pos.Metrics = keep
	var err error
	f.journal, err = openJournal(f.Dir, keep)
	return err
}

func (f *fit) run(ctx context.Context) error {
	bar := newProgress(f.Progress, f.Phase.Name, f.pos.Step, f.pos.Total)
	for !f.pos.done() {
		if err := f.epoch(ctx, bar); err != nil {
			return err
		}
	}
	return nil
}

// epoch runs the rest of the current epoch and what belongs to its end.
func (f *fit) epoch(ctx context.Context, bar *progress) error {
	epoch, start := f.pos.Step/f.perEpoch, f.pos.Step%f.perEpoch
	opts := datasets.BatchOptions{Size: f.Phase.Batch, Seed: f.seed, Epoch: epoch, Shuffle: true, Start: start, Prefetch: prefetch}
	lr := 0.0
	for b, err := range f.Data.Train.Batches(ctx, opts) {
		if err == nil && ctx.Err() != nil {
			err = ctx.Err()
		}
		if err != nil {
			if ctx.Err() != nil && f.pos.Step%f.perEpoch != 0 { // at the end of an epoch endEpoch has saved, or will run again
				if serr := f.save(); serr != nil {
					f.Log.Error("the checkpoint could not be saved", "error", serr)
				}
			}
			return err
		}
		if err := f.enter(ctx); err != nil {
			return err
		}
		if lr, err = f.step(b); err != nil {
			return fmt.Errorf("step %d: %w", f.pos.Step, err)
		}
		bar.step(b.N, f.pos.Loss/float64(f.pos.Seen), 100*float64(f.pos.Correct)/float64(f.pos.Seen))
		if f.pos.Step >= f.pos.Total {
			break
		}
		if f.due() && f.pos.Step%f.perEpoch != 0 {
			if err := f.save(); err != nil {
				return err
			}
		}
	}
	return f.endEpoch(ctx, lr, bar)
}

// step is one update.
func (f *fit) step(b datasets.Batch) (lr float64, err error) {
	done := float64(f.pos.Step) / float64(f.pos.Total)
	f.net.SetPhase(layers.Phase{FreezeNorm: done >= f.Phase.FreezeNormAfter, FreezeRanges: done >= f.Phase.FreezeRangesAfter, Step: uint64(f.pos.Step) + 1})
	if err := f.teach(b); err != nil {
		return 0, err
	}
	res, err := f.net.Run(b.X, b.Labels, b.N)
	if err != nil {
		return 0, err
	}
	if math.IsNaN(res.Loss) || math.IsInf(res.Loss, 0) {
		return 0, fmt.Errorf("the loss is %v; lower train.lr or qat.lr, or add warm-up", res.Loss)
	}
	if lr, err = f.schedule.At(f.pos.Step); err != nil {
		return 0, err
	}
	f.oscillating.damp(done)
	if err := f.opt.step(lr); err != nil {
		return 0, err
	}
	if err := f.net.Settle(); err != nil {
		return 0, err
	}
	if err := f.oscillating.track(); err != nil {
		return 0, err
	}
	f.average.update()
	f.pos.Step++
	f.pos.Loss += float64(res.Loss * float64(b.N))
	f.pos.Correct += res.Correct
	f.pos.Seen += b.N
	return lr, nil
}

// due reports whether a checkpoint inside an epoch is due.
func (f *fit) due() bool {
	if f.CheckpointEvery > 0 {
		return f.pos.Step%f.CheckpointEvery == 0
	}
	return time.Since(f.saved) >= checkpointInterval
}

func (f *fit) save() error {
	f.saved = time.Now()
	f.pos.HasBest = f.best != nil
	return f.file.save(f.pos, f.tensors())
}

// settle brings the model into the form that ships: the average, with frozen weights on their codes and, at the end of the
// phase, batch norm's statistics made anew.
func (f *fit) settle(ctx context.Context) error {
	f.average.swap()
	if f.average != nil {
		f.oscillating.hold()
	}
	if f.pos.Step < f.pos.Total {
		return nil
	}
	return f.reestimate(ctx)
}

// endEpoch validates, writes the epoch's line, decides on early stop and saves.
func (f *fit) endEpoch(ctx context.Context, lr float64, bar *progress) error {
	m := metric{
		Phase: f.Phase.Name, Epoch: float64(f.pos.Step) / float64(f.perEpoch), Step: f.pos.Step, LR: lr,
		Loss: f.pos.Loss / float64(f.pos.Seen), Train: 100 * float64(f.pos.Correct) / float64(f.pos.Seen),
	}
	if len(f.Stages) > 0 {
		m.Precision = f.model.Precision.String()
	}
	m.Oscillation = f.oscillating.count()
	if err := f.settle(ctx); err != nil {
		return err
	}
	if f.Data.Val != nil && f.Data.Val.Len() > 0 {
		s, err := ScoreModel(ctx, f.model, f.Data.Val, f.Pool.Workers())
		if err != nil {
			return fmt.Errorf("validation after step %d: %w", f.pos.Step, err)
		}
		v := s.Accuracy()
		m.Val = &v
	}
	if f.Phase.TrackTest {
		s, err := ScoreModel(ctx, f.model, f.Data.Test, f.Pool.Workers())
		if err != nil {
			return fmt.Errorf("test after step %d: %w", f.pos.Step, err)
		}
		v := s.Accuracy()
		m.Test = &v
		if v > f.pos.BestTest {
			f.pos.BestTest, f.pos.BestTestAt = v, f.pos.Step/f.perEpoch
		}
	}
	if f.pos.Step < f.pos.Total {
		f.average.swap() // training goes on where it was
	}
	f.pos.Loss, f.pos.Correct, f.pos.Seen, f.pos.Last = 0, 0, 0, m
	if f.Phase.EarlyStop > 0 {
		if *m.Val > f.pos.Best {
			f.pos.Best, f.pos.BestAt, f.pos.Waited = *m.Val, f.pos.Step/f.perEpoch, 0
			f.best = masters(f.model)
		} else if f.pos.Waited++; f.pos.Waited >= f.Phase.EarlyStop {
			f.pos.Stopped = true
		}
	}
	bar.epoch(m, f.pos.done())
	if err := f.journal.write(m, bar.rate()); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	var err error
	if f.pos.Metrics, err = f.journal.size(); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return f.save()
}
