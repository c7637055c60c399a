package train

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/internal/cpu"
	"github.com/narrow-ml/narrow/internal/durable"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat/ptq"
	"github.com/narrow-ml/narrow/quant"
)

// The files of a run folder.
const (
	ConfigFile  = "config.yaml"
	InfoFile    = "run.json"
	MastersFile = "model.safetensors"
	FrozenFile  = "model.narrow"
)

// RunOptions says where and how a config is run.
type RunOptions struct {
	Dir             string           // the run folder
	Resume          bool             // continue what is in Dir
	Precision       *quant.Precision // overrides the formats of the config's quant section
	Workers         int              // has no effect on what is trained
	CheckpointEvery int              // steps; see Job
	Progress        io.Writer
	Log             *slog.Logger
}

// Info is run.json: how the model of a run folder was made.
type Info struct {
	Precision string `json:"precision"`
	Method    string `json:"method"`           // none, qat or ptq
	Ranges    string `json:"ranges,omitempty"` // the calibration method
	Passes    string `json:"passes,omitempty"` // what was done beside calibration: equalize, adaround, ...
	Tier      string `json:"instruction_tier"` // of the machine that made it
	GoVersion string `json:"go_version"`

	Tracked *Tracked `json:"tracked_test,omitempty"` // with train.track_test
}

// Tracked is what scoring the test split after every epoch of the last phase gave. The best of many scores on one split is
// no estimate of a model's accuracy: it is for comparison with recipes that report it.
type Tracked struct {
	Last      float64 `json:"last"` // percent
	Best      float64 `json:"best"`
	BestEpoch int     `json:"best_epoch"`
}

// tracked is the part of a report that follows the test split; nil if nothing did.
func (r Report) tracked() *Tracked {
	if r.BestTestAt == 0 {
		return nil
	}
	return &Tracked{Last: r.Test, Best: r.BestTest, BestEpoch: r.BestTestAt}
}

// NewModel builds the fused float model of a config for a data set, with fresh parameters.
func NewModel(c *configs.Config, d *datasets.Dataset, seed uint64) (*model.Model, error) {
	m, err := c.BuildModel(model.Input{Name: "input", Shape: d.Train.Shape, Scale: d.Scale, Zero: d.Zero, Labels: d.Classes})
	if err != nil {
		return nil, err
	}
	logits, ok := m.ShapeOf(m.Outputs[0])
	if !ok || len(logits) != 1 || logits[0] != len(d.Classes) {
		return nil, fmt.Errorf("the last layer gives %v values, data set %q has %d classes: end with a dense layer of %d units", logits, d.Name, len(d.Classes), len(d.Classes))
	}
	if err := layers.InitRange(m, seed, c.Train.InitRange); err != nil {
		return nil, err
	}
	return m, nil
}

// Calibrated makes the model that quantization-aware training of a config starts from: the float model m, calibrated as
// the config says.
func Calibrated(ctx context.Context, c *configs.Config, m *model.Model, p quant.Precision, d *datasets.Dataset, workers int) (*ptq.Result, model.QuantConfig, error) {
	return calibrated(ctx, c, m, p, d, c.Seed, workers)
}

func calibrated(ctx context.Context, c *configs.Config, m *model.Model, p quant.Precision, d *datasets.Dataset, seed uint64, workers int) (*ptq.Result, model.QuantConfig, error) {
	q, err := c.QuantConfig(p)
	if err != nil {
		return nil, q, err
	}
	o, err := CalibrationOptions(c, workers)
	if err != nil {
		return nil, q, err
	}
	o.Seed = seed
	r, err := ptq.Quantize(ctx, m, q, d.Train, d.Val, o.For(p))
	return r, q, err
}

// CalibrationOptions are the calibration settings of a config.
func CalibrationOptions(c *configs.Config, workers int) (ptq.Options, error) {
	s := c.Calibration()
	method, err := ptq.ParseMethod(s.Method)
	if err != nil {
		return ptq.Options{}, err
	}
	rounding, err := ptq.ParseRounding(s.Rounding)
	return ptq.Options{
		Examples: s.Examples, Method: method, Percentile: s.Percentile, Seed: c.Seed, Workers: workers,
		Equalize: s.Equalize, BiasCorrection: s.BiasCorrection, Rounding: rounding,
	}, err
}

// Run trains a config and leaves a run folder: float32 training, then, if a precision asks for it, calibration and
// quantization-aware training. The last stage is the run's model.
func Run(ctx context.Context, c *configs.Config, d *datasets.Dataset, o RunOptions) (Info, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p, err := precision(c, o.Precision)
	if err != nil {
		return Info{}, err
	}
	if err := prepareDir(c, o); err != nil {
		return Info{}, err
	}
	pool := par.New(max(1, o.Workers))
	defer pool.Close()
	m, err := NewModel(c, d, c.Seed)
	if err != nil {
		return Info{}, err
	}
	if p != quant.Full {
		q, err := c.QuantConfig(p)
		if err == nil {
			var placed *model.Model
			if placed, err = model.Placed(m, q); err == nil {
				err = CheckQAT(c, placed)
			}
		}
		if err != nil {
			return Info{}, err
		}
		calibration, err := CalibrationOptions(c, o.Workers)
		if err != nil {
			return Info{}, err
		}
		if err := calibration.For(p).Check(m, p); err != nil {
			return Info{}, fmt.Errorf("quant.calibration, at precision %s: %w", p, err)
		}
	}
	stages, err := Stages(c, m, p)
	if err != nil {
		return Info{}, err
	}
	job := Job{
		Model: m, Data: d, Phase: FloatPhase(c), Seed: c.Seed, Pool: pool, Dir: o.Dir, Resume: o.Resume,
		CheckpointEvery: o.CheckpointEvery, Progress: o.Progress, Log: o.Log,
	}
	var float Report
	if p == quant.Full || c.QAT.Start != configs.ScratchStart {
		if float, err = Fit(ctx, job); err != nil {
			return Info{}, err
		}
	}
	if p == quant.Full {
		return WriteRun(o.Dir, m, Info{Precision: p.String(), Method: "none", Tracked: float.tracked()})
	}
	start, r, err := StartQAT(ctx, c, m, p, d, c.Seed, o.Workers)
	if err != nil {
		return Info{}, err
	}
	job.Model, job.Phase, job.Journal = start, QATPhase(c), float.Journal
	job.Teacher, job.Stages, job.Config = m, stages, c
	report, err := Fit(ctx, job)
	if err != nil {
		return Info{}, err
	}
	info := Info{Precision: p.String(), Method: "qat", Ranges: report.Ranges, Tracked: report.tracked()}
	if r != nil {
		info.Ranges, info.Passes = r.Method.String(), r.Passes()
	}
	return WriteRun(o.Dir, report.Model, info)
}

// precision is what a run quantizes to.
func precision(c *configs.Config, asked *quant.Precision) (quant.Precision, error) {
	p := quant.Full
	switch {
	case asked != nil:
		p = *asked
	case c.Quant != nil && c.QAT != nil:
		p = quant.Precision{Weight: c.Quant.Weight.Format, Act: c.Quant.Act.Format}
	}
	if p != quant.Full && c.QAT == nil {
		return p, fmt.Errorf("precision %s needs quantization-aware training, and the config has no qat section; add one, or train in fp32 and use narrow quantize", p)
	}
	return p, nil
}

// prepareDir makes the run folder and its config.yaml, or checks that an existing one belongs to the same config.
func prepareDir(c *configs.Config, o RunOptions) error {
	want, err := c.Marshal()
	if err != nil {
		return err
	}
	path := filepath.Join(o.Dir, ConfigFile)
	have, err := os.ReadFile(path)
	switch {
	case err == nil && !o.Resume:
		return fmt.Errorf("%s holds a run already; add --resume to go on with it, or choose another --out", o.Dir)
	case err == nil && !bytes.Equal(have, want):
		return fmt.Errorf("%s belongs to another config than the one given; resume with that file, or choose another --out", path)
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.MkdirAll(o.Dir, 0o777); err != nil {
		return err
	}
	return writeBytes(path, want)
}

func writeBytes(path string, data []byte) error {
	return durable.WriteFile(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// WriteRun writes the model files of a run folder, whose config.yaml is there: the masters, the frozen model and run.json.
func WriteRun(dir string, m *model.Model, info Info) (Info, error) {
	info.Tier, info.GoVersion = cpu.Active().String(), runtime.Version()
	frozen, err := model.Freeze(m)
	if err != nil {
		return info, err
	}
	if err := durable.WriteFile(filepath.Join(dir, MastersFile), func(w io.Writer) error { return WriteMasters(w, m) }); err != nil {
		return info, err
	}
	if err := durable.WriteFile(filepath.Join(dir, FrozenFile), func(w io.Writer) error { return model.Encode(w, frozen) }); err != nil {
		return info, err
	}
	text, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return info, err
	}
	return info, writeBytes(filepath.Join(dir, InfoFile), append(text, '\n'))
}

// Folder is an opened run folder.
type Folder struct {
	Dir    string
	Config *configs.Config
	Info   Info
}

// OpenRun reads the config and run.json of a finished run.
func OpenRun(dir string) (*Folder, error) {
	c, err := configs.Load(filepath.Join(dir, ConfigFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not a run folder: it has no %s (narrow train makes one)", dir, ConfigFile)
	}
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, InfoFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the run in %s is not finished; narrow train %s --out %s --resume goes on with it", dir, filepath.Join(dir, ConfigFile), dir)
	}
	if err != nil {
		return nil, err
	}
	f := &Folder{Dir: dir, Config: c}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f.Info); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, InfoFile), err)
	}
	return f, nil
}

// Data loads the data set of the run.
func (f *Folder) Data(ctx context.Context, o datasets.Options) (*datasets.Dataset, error) {
	o.ValFraction, o.Limit, o.Seed = f.Config.Dataset.ValFraction, f.Config.Dataset.Limit, f.Config.Seed
	return datasets.Load(ctx, f.Config.Dataset.Name, o)
}

// Model is the run's model with its float masters: Float, or Quantized with its ranges.
func (f *Folder) Model(d *datasets.Dataset) (*model.Model, error) {
	m, err := NewModel(f.Config, d, f.Config.Seed)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(f.Dir, MastersFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if m, err = ReadMasters(data, m); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// FloatModel is the float model that the run trained before any quantization: where post-training quantization starts.
func (f *Folder) FloatModel(d *datasets.Dataset) (*model.Model, error) {
	if f.Info.Method == "none" {
		return f.Model(d)
	}
	m, err := NewModel(f.Config, d, f.Config.Seed)
	if err != nil {
		return nil, err
	}
	if f.Info.Method == "qat" && f.Config.QAT.Start == configs.ScratchStart {
		return nil, fmt.Errorf("the run in %s has no float model: its config starts quantization-aware training from scratch; train it in fp32, or with qat.start: ptq", f.Dir)
	}
	path := newCheckpoint(f.Dir, "float").path
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the float model that this %s run started from: %w", f.Info.Method, err)
	}
	if err := readFloatPhase(data, m); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// Frozen reads model.narrow.
func (f *Folder) Frozen() (*model.Model, error) { return ReadFrozen(filepath.Join(f.Dir, FrozenFile)) }

// ReadFrozen reads a frozen model file.
func ReadFrozen(path string) (*model.Model, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m, err := model.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}
