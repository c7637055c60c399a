package study

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"runtime"
	"time"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/internal/cpu"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat/ptq"
	"github.com/narrow-ml/narrow/quant"
	"github.com/narrow-ml/narrow/train"
)

// runner goes through the plan, cell by cell.
type runner struct {
	Options
	plan     *plan
	store    *store
	pool     *par.Pool
	report   *cellProgress
	outcomes map[cell]*outcome
	rerun    int

	float      *model.Model // trained float model of floatSeed, nil until needed
	floatSeed  uint64
	calibrated *ptq.Result // of calibratedFor, nil until needed
	calibFor   cell
}

func (r *runner) runAll(ctx context.Context) error {
	r.outcomes = map[cell]*outcome{}
	for _, c := range r.plan.cells {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.report.begin(c)
		out, cached, err := r.store.load(c)
		if err != nil {
			r.Log.Warn("running a cell again", "cell", c.arm.String(), "seed", c.seed, "reason", err)
		}
		if !cached {
			if out, err = r.run(ctx, c); err != nil {
				return fmt.Errorf("%s, seed %d: %w", c.arm, c.seed, err)
			}
			r.rerun++
		}
		r.outcomes[c] = out
		r.report.end(c, out, cached)
	}
	return nil
}

// made is a cell's model before it is frozen.
type made struct {
	model   *model.Model
	seconds float64
	start   *ptq.Result // what calibration chose; nil for float cells, and where it ran inside the training
	ranges  string      // what it chose there
}

// run makes a cell, freezes it, scores it and stores it.
func (r *runner) run(ctx context.Context, c cell) (*outcome, error) {
	m, err := r.make(ctx, c)
	if err != nil {
		return nil, err
	}
	out := &outcome{}
	if out.frozen, err = model.Freeze(m.model); err != nil {
		return nil, err
	}
	var file bytes.Buffer
	if err := model.Encode(&file, out.frozen); err != nil {
		return nil, err
	}
	score, err := train.ScoreModel(ctx, out.frozen, r.scored(), r.Workers)
	if err != nil {
		return nil, fmt.Errorf("scoring: %w", err)
	}
	sum := sha256.Sum256(file.Bytes())
	out.record = record{
		Key: r.store.key(c), Precision: c.precision.String(), Method: c.method, Variant: c.variant, Seed: c.seed,
		Correct: score.Correct, Examples: score.N, Hits: bits(score.Hits),
		WeightBytes: out.frozen.WeightBytes(), FileBytes: file.Len(), FileSum: hex.EncodeToString(sum[:]),
		Seconds: m.seconds, Tier: cpu.Active().String(), GoVersion: runtime.Version(),
	}
	out.Ranges = m.ranges
	if m.start != nil {
		out.Ranges = m.start.Method.String()
		for _, t := range m.start.Trials {
			out.Trials = append(out.Trials, trial{t.Method.String(), t.Accuracy()})
		}
	}
	if c.method == MethodNone {
		var masters bytes.Buffer
		if err := train.WriteMasters(&masters, m.model); err != nil {
			return nil, err
		}
		out.masters = masters.Bytes()
	}
	return out, r.store.save(c, out, file.Bytes())
}

// make trains or calibrates the model of a cell.
func (r *runner) make(ctx context.Context, c cell) (made, error) {
	own := r.plan.configs[c.variant]
	switch c.method {
	case MethodNone:
		m, err := train.NewModel(r.Config, r.Data, c.seed)
		if err != nil {
			return made{}, err
		}
		return r.fit(ctx, c, m, train.FloatPhase(r.Config))
	case MethodExtra:
		m, err := r.floatModel(c.seed)
		if err != nil {
			return made{}, err
		}
		return r.fit(ctx, c, m.Clone(), train.ExtraPhase(own))
	case MethodPTQ:
		began := time.Now()
		q, err := r.calibrate(ctx, c)
		if err != nil {
			return made{}, err
		}
		return made{model: q.Model, seconds: time.Since(began).Seconds(), start: q}, nil
	case MethodQAT:
		return r.makeQAT(ctx, own, c)
	default:
		return made{}, fmt.Errorf("unknown method %q", c.method)
	}
}

// makeQAT trains from the model that the ptq row scores or, with stages, from what the first of them asks for.
func (r *runner) makeQAT(ctx context.Context, own *configs.Config, c cell) (made, error) {
	float, err := r.floatOf(own, c)
	if err != nil {
		return made{}, err
	}
	stages, err := train.Stages(own, float, c.precision)
	if err != nil {
		return made{}, err
	}
	var start *ptq.Result
	var m *model.Model
	if stages == nil {
		if start, err = r.calibrate(ctx, c); err != nil {
			return made{}, err
		}
		m, err = ptq.ForTraining(start.Model, r.plan.quant(c.arm))
	} else {
		m, start, err = train.StartQAT(ctx, own, float, c.precision, r.Data, c.seed, r.Workers)
	}
	if err != nil {
		return made{}, err
	}
	out, err := r.fitJob(ctx, c, train.Job{Model: m.Clone(), Phase: train.QATPhase(own), Teacher: float, Stages: stages, Config: own})
	out.start = start
	return out, err
}

// fit trains m in place.
func (r *runner) fit(ctx context.Context, c cell, m *model.Model, p train.Phase) (made, error) {
	return r.fitJob(ctx, c, train.Job{Model: m, Phase: p})
}

// fitJob runs a job's phase, with checkpoints in the cell's working folder.
func (r *runner) fitJob(ctx context.Context, c cell, j train.Job) (made, error) {
	work := r.store.work(c)
	before := spentSeconds(work)
	began := time.Now()
	j.Data, j.Seed, j.Pool, j.Dir, j.Resume, j.Progress, j.Log = r.Data, c.seed, r.pool, work, r.Resume, r.Progress, r.Log
	report, err := train.Fit(ctx, j)
	spent := before + time.Since(began).Seconds()
	if err != nil {
		if keep := keepSeconds(work, spent); keep != nil {
			r.Log.Warn("training time so far is lost", "reason", keep)
		}
		return made{}, err
	}
	return made{model: report.Model, seconds: spent, ranges: report.Ranges}, nil
}

// floatModel is the trained float model of a seed, from the store or from the cell that has just run.
func (r *runner) floatModel(seed uint64) (*model.Model, error) {
	if r.float != nil && r.floatSeed == seed {
		return r.float, nil
	}
	out := r.outcomes[cell{arm{quant.Full, MethodNone, ""}, seed}]
	if out == nil {
		return nil, fmt.Errorf("the float model of seed %d has not been trained", seed)
	}
	m, err := train.NewModel(r.Config, r.Data, seed)
	if err != nil {
		return nil, err
	}
	if m, err = train.ReadMasters(out.masters, m); err != nil {
		return nil, fmt.Errorf("float masters of seed %d: %w", seed, err)
	}
	r.float, r.floatSeed = m, seed
	return m, nil
}

// scratch reports a cell that trains from random weights.
func scratch(own *configs.Config, c cell) bool {
	return c.method == MethodQAT && own.QAT != nil && own.QAT.Start == configs.ScratchStart
}

// floatOf is the float model that a cell starts from: the trained one, or random weights.
func (r *runner) floatOf(own *configs.Config, c cell) (*model.Model, error) {
	if scratch(own, c) {
		return train.NewModel(own, r.Data, c.seed)
	}
	return r.floatModel(c.seed)
}

// calibrate quantizes the float model of the cell's seed; QAT starts from the very model that the ptq row scores, or, with
// start: scratch, from random weights.
func (r *runner) calibrate(ctx context.Context, c cell) (*ptq.Result, error) {
	own := r.plan.configs[c.variant]
	if !scratch(own, c) {
		c.method = MethodPTQ
	}
	if r.calibrated != nil && r.calibFor == c {
		return r.calibrated, nil
	}
	m, err := r.floatOf(own, c)
	if err != nil {
		return nil, err
	}
	o, err := train.CalibrationOptions(own, r.Workers)
	if err != nil {
		return nil, err
	}
	o.Seed = c.seed
	q, err := ptq.Quantize(ctx, m, r.plan.quant(c.arm), r.Data.Train, r.Data.Val, o.For(c.precision))
	if err != nil {
		return nil, err
	}
	r.calibrated, r.calibFor = q, c
	return q, nil
}

// bits packs answers, the first into the lowest bit of the first byte.
func bits(hits []bool) []byte {
	out := make([]byte, (len(hits)+7)/8)
	for i, h := range hits {
		if h {
			out[i/8] |= 1 << (i % 8)
		}
	}
	return out
}

// compile makes the engines of the first seed, one for each arm.
func (r *runner) compile() ([]*infer.Engine, error) {
	var engines []*infer.Engine
	for _, a := range r.plan.arms {
		e, err := infer.Compile(r.outcomes[cell{a, r.plan.seeds[0]}].frozen, infer.Options{Workers: r.Workers, MaxBatch: speedBatch})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a, err)
		}
		engines = append(engines, e)
	}
	return engines, nil
}
