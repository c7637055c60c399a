package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/internal/cpu"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
	"github.com/narrow-ml/narrow/study"
	"github.com/narrow-ml/narrow/train"
)

type benchOptions struct {
	configFlags
	dataFlags
	precision      string
	batch, threads string
	seconds        float64
	json           bool
}

// benchResult is what bench prints.
type benchResult struct {
	Subject   string     `json:"subject"`
	Model     string     `json:"model"`
	Weights   string     `json:"weights"` // where they are from
	Tier      string     `json:"instruction_tier"`
	GoVersion string     `json:"go_version"`
	CPUs      int        `json:"cpus"`
	Seconds   float64    `json:"seconds"`
	Rounds    int        `json:"rounds"`
	Rows      []benchRow `json:"rows"`
}

// benchRow is one model at one batch size and number of threads.
type benchRow struct {
	Precision  string  `json:"precision"`
	Batch      int     `json:"batch"`
	Threads    int     `json:"threads"`
	LatencyUs  spread  `json:"latency_us"`        // of one call with a batch
	Throughput float64 `json:"throughput"`        // examples per second, from the median latency
	Speedup    *spread `json:"speedup,omitempty"` // over fp32 in the same round
}

func (a *app) benchCommand() *cobra.Command {
	var o benchOptions
	c := &cobra.Command{
		Use:   "bench RUN|CONFIG|FILE",
		Short: "Latency and throughput of FP32 against the quantized model, in one engine on this CPU",
		Long: `Latency and throughput of FP32 against the quantized model, in one engine on this CPU.

A RUN is measured with its float model; a CONFIG, or the RUN of a float model, with a copy calibrated at the config's
precision (a CONFIG has fresh weights: speed does not depend on training); a FILE, which has no float model, alone.
The models take turns; each value is the median over rounds, with the smallest and the largest.`,
		Args: arguments(1, 1, "a RUN, a CONFIG or a FILE"),
		RunE: func(c *cobra.Command, args []string) error { return a.bench(c.Context(), args[0], &o) },
	}
	o.configFlags.add(c)
	o.dataFlags.add(c)
	c.Flags().StringVarP(&o.precision, "precision", "p", "", "quantize a CONFIG or a float RUN to this `precision` (default: the config's, else int8)")
	c.Flags().StringVar(&o.batch, "batch", "1,64", "`list` of batch sizes")
	c.Flags().StringVar(&o.threads, "threads", "", "`list` of numbers of threads that share a batch (default 1 and one per CPU); a single example is never shared")
	c.Flags().Float64Var(&o.seconds, "seconds", 1, "`time` for each model at each batch size and number of threads")
	c.Flags().BoolVar(&o.json, "json", false, "print one JSON document")
	return c
}

// maxBenchBatch bounds the memory of a mistyped --batch.
const maxBenchBatch = 65536

func (a *app) bench(ctx context.Context, name string, o *benchOptions) error {
	batches, err := numbers("--batch", o.batch, maxBenchBatch)
	if err != nil {
		return err
	}
	threads := []int{1}
	if n := runtime.GOMAXPROCS(0); n > 1 {
		threads = append(threads, n)
	}
	if o.threads != "" {
		if threads, err = numbers("--threads", o.threads, runtime.GOMAXPROCS(0)); err != nil {
			return err
		}
	}
	if !(o.seconds > 0 && o.seconds <= 3600) {
		return usagef("--seconds %v must be above 0 and at most 3600", o.seconds)
	}
	s, err := a.benchSubject(ctx, name, o)
	if err != nil {
		return err
	}
	r := benchResult{Subject: name, Model: s.models[0].Name, Weights: s.weights, Tier: cpu.Describe(), GoVersion: runtime.Version(),
		CPUs: runtime.NumCPU(), Seconds: o.seconds, Rounds: study.RaceRounds}
	d := time.Duration(o.seconds * float64(time.Second))
	for _, n := range batches {
		for _, t := range threads {
			rows, err := s.measure(ctx, n, t, d)
			if err != nil {
				return fmt.Errorf("batch %d, %d threads: %w", n, t, err)
			}
			r.Rows = append(r.Rows, rows...)
		}
	}
	if o.json {
		return a.writeJSON(r)
	}
	return a.writeBench(&r)
}

// numbers reads a flag of comma-separated counts.
func numbers(flag, text string, most int) ([]int, error) {
	var out []int
	for _, word := range list(text) {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 || n > most {
			return nil, usagef("%s: %q is not a whole number from 1 to %d", flag, word, most)
		}
		out = append(out, n)
	}
	if len(out) == 0 {
		return nil, usagef("%s is empty", flag)
	}
	return out, nil
}

// contest is what bench measures.
type contest struct {
	models  []*model.Model // the float model first, if there is one
	weights string
	x       *datasets.Set // examples; nil: scattered bytes
}

// benchSubject finds the models that an argument means.
func (a *app) benchSubject(ctx context.Context, name string, o *benchOptions) (*contest, error) {
	asked, err := precision(o.precision)
	if err != nil {
		return nil, err
	}
	if asked != nil && *asked == quant.Full {
		return nil, usagef("--precision fp32: fp32 is what the others are measured against")
	}
	if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() && !strings.HasSuffix(name, ".yaml") && !strings.HasSuffix(name, ".yml") {
		if asked != nil || len(o.set) > 0 {
			return nil, usagef("%s is frozen; --precision and --set are for a CONFIG or a RUN", name)
		}
		m, err := train.ReadFrozen(name)
		if err != nil {
			return nil, err
		}
		a.log.Info("a model file has no float model to compare with; its run folder has", "file", name)
		return &contest{models: []*model.Model{m}, weights: "the file's"}, nil
	}
	if isFolder(name) {
		return a.benchRun(ctx, name, asked, o)
	}
	c, err := o.open(name)
	if err != nil {
		return nil, err
	}
	d, err := o.load(ctx, a, c)
	if err != nil {
		return nil, err
	}
	float, err := train.NewModel(c, d, c.Seed)
	if err != nil {
		return nil, err
	}
	return calibratedContest(ctx, c, d, float, asked, "fresh")
}

func (a *app) benchRun(ctx context.Context, name string, asked *quant.Precision, o *benchOptions) (*contest, error) {
	if len(o.set) > 0 {
		return nil, usagef("%s has its settings; --set is for a CONFIG", name)
	}
	f, err := train.OpenRun(name)
	if err != nil {
		return nil, err
	}
	d, err := f.Data(ctx, o.options(a))
	if err != nil {
		return nil, err
	}
	if f.Info.Method == "none" {
		float, err := f.Model(d)
		if err != nil {
			return nil, err
		}
		return calibratedContest(ctx, f.Config, d, float, asked, "the run's")
	}
	if asked != nil {
		return nil, usagef("%s is quantized to %s already; --precision is for a CONFIG or the RUN of a float model", name, f.Info.Precision)
	}
	quantized, err := f.Frozen()
	if err != nil {
		return nil, err
	}
	if f.Info.Method == "ptq" { // the masters of a post-training run are those of its float run
		m, err := f.Model(d)
		if err != nil {
			return nil, err
		}
		return &contest{models: []*model.Model{floatTwin(m), quantized}, weights: "the run's", x: d.Test}, nil
	}
	float, err := f.FloatModel(d)
	if err != nil {
		return nil, err
	}
	return &contest{models: []*model.Model{float, quantized}, weights: "the run's", x: d.Test}, nil
}

// floatTwin is a quantized model without its quantizers.
func floatTwin(m *model.Model) *model.Model {
	twin := m.Clone()
	twin.Stage, twin.Precision, twin.Quant = model.Float, quant.Full, nil
	return twin
}

// calibratedContest is a float model against its calibrated copy.
func calibratedContest(ctx context.Context, c *configs.Config, d *datasets.Dataset, float *model.Model, asked *quant.Precision, weights string) (*contest, error) {
	p := c.Precision()
	if p == quant.Full {
		p = quant.Precision{Weight: quant.Int8, Act: quant.Int8}
	}
	if asked != nil {
		p = *asked
	}
	r, _, err := train.Calibrated(ctx, c, float, p, d, runtime.GOMAXPROCS(0))
	if err != nil {
		return nil, err
	}
	return &contest{models: []*model.Model{float, r.Model}, weights: weights, x: d.Test}, nil
}

// measure races the models at one batch size and number of threads.
func (s *contest) measure(ctx context.Context, n, threads int, d time.Duration) ([]benchRow, error) {
	var engines []*infer.Engine
	for _, m := range s.models {
		e, err := infer.Compile(m, infer.Options{Workers: threads})
		if err != nil {
			return nil, err
		}
		engines = append(engines, e)
	}
	laps, err := study.Race(ctx, engines, s.examples(n, engines[0].InputSize()), n, d)
	if err != nil {
		return nil, err
	}
	var rows []benchRow
	for i, m := range s.models {
		lap := summary(laps[i])
		row := benchRow{Precision: m.Precision.String(), Batch: n, Threads: threads, Throughput: float64(n) / lap.Median,
			LatencyUs: spread{Median: 1e6 * lap.Median, Min: 1e6 * lap.Min, Max: 1e6 * lap.Max}}
		if i > 0 {
			speedup := summary(over(laps[0], laps[i]))
			row.Speedup = &speedup
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// examples are some batches of n test examples, or of scattered bytes.
func (s *contest) examples(n, size int) []uint8 {
	const few = 64 // examples at least
	count := (few + n - 1) / n * n
	x := make([]uint8, count*size)
	if s.x == nil {
		for i := range x {
			x[i] = uint8(uint32(i) * 2654435761 >> 24) // Knuth's multiplicative hash
		}
		return x
	}
	for i := range count {
		copy(x[i*size:], s.x.Row(i%s.x.Len()))
	}
	return x
}

func (a *app) writeBench(r *benchResult) error {
	fmt.Fprintf(a.stdout, "%s, %s weights, on %d CPUs, instruction tier %s, %s\n", r.Model, r.Weights, r.CPUs, r.Tier, r.GoVersion)
	fmt.Fprintf(a.stdout, "medians (smallest-largest) of %d rounds in which the models take turns\n\n", r.Rounds)
	t := newTable(">batch", ">threads", "precision", ">us per call", ">examples/s", ">speed-up over fp32")
	for _, row := range r.Rows {
		speedup := ""
		if row.Speedup != nil {
			speedup = fmt.Sprintf("%.2f (%.2f-%.2f)", row.Speedup.Median, row.Speedup.Min, row.Speedup.Max)
		}
		l := row.LatencyUs
		t.add(row.Batch, row.Threads, row.Precision, fmt.Sprintf("%.1f (%.1f-%.1f)", l.Median, l.Min, l.Max), thousands(int(row.Throughput)), speedup)
	}
	return t.write(a.stdout)
}
