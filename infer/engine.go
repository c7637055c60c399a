package infer

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/narrow-ml/narrow/internal/cpu"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/model"
)

// Options are the settings of an engine. The zero value is ready. None of them changes a result.
type Options struct {
	// Workers is how many goroutines share the examples of one Run, at most par.Shards. 0 means GOMAXPROCS. One example is
	// never shared: it runs in the caller.
	Workers int
	// MaxBatch is how many examples a worker takes through the network at a time; a Run of more takes turns. It bounds
	// memory. 0 means as many as keep a worker's buffers within 1 MiB, about a second-level cache, but 1 to 64.
	MaxBatch int
}

// The defaults of Options.MaxBatch.
const (
	defaultBytes = 1 << 20
	defaultBatch = 64
)

// Engine is a compiled model. Its methods may be called by any number of goroutines.
type Engine struct {
	m       *model.Model // Frozen
	prog    *program
	workers int
	batch   int
	grain   int64     // least multiplications of a part of a batch
	pool    *par.Pool // nil with one worker
	free    chan *arena
}

// Compile prepares a model of any stage:
//
//	Float      runs its masters in float32, batch norm as y = mul*v + add
//	Quantized  is frozen first; its ranges must be known
//	Frozen     runs as it is
//
// The engine keeps copies of all weights: training may go on with m, unless it is Frozen already, when it must not change.
func Compile(m *model.Model, o Options) (*Engine, error) {
	if o.Workers < 0 || o.MaxBatch < 0 {
		return nil, fmt.Errorf("compile model %q: %d workers and batches of %d: neither may be negative; 0 chooses", m.Name, o.Workers, o.MaxBatch)
	}
	frozen, err := freeze(m)
	if err != nil {
		return nil, fmt.Errorf("compile: %w", err)
	}
	if err := model.Validate(frozen); err != nil {
		return nil, fmt.Errorf("compile: %w", err)
	}
	prog, err := newProgram(frozen)
	if err != nil {
		return nil, fmt.Errorf("compile model %q: %w", m.Name, err)
	}
	e := &Engine{m: frozen, prog: prog, workers: o.Workers, batch: o.MaxBatch, grain: worthSharing}
	if e.workers == 0 {
		e.workers = runtime.GOMAXPROCS(0)
	}
	e.workers = min(e.workers, par.Shards)
	if e.batch == 0 {
		e.batch = min(max(defaultBytes/prog.bytesPerExample(), 1), defaultBatch)
	}
	e.free = make(chan *arena, runtime.GOMAXPROCS(0))
	if e.workers > 1 {
		e.pool = par.New(e.workers)
		runtime.AddCleanup(e, (*par.Pool).Close, e.pool) // its goroutines do not hold the engine
	}
	return e, nil
}

// Load reads a model file and compiles it.
func Load(path string, o Options) (*Engine, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load model: %w", err)
	}
	m, err := model.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("load model %s: %w", path, err)
	}
	e, err := Compile(m, o)
	if err != nil {
		return nil, fmt.Errorf("load model %s: %w", path, err)
	}
	return e, nil
}

// freeze brings a model of any stage to Frozen.
func freeze(m *model.Model) (*model.Model, error) {
	var err error
	switch m.Stage {
	case model.Frozen:
		return m, nil
	case model.Float:
		if slices.ContainsFunc(m.Nodes, func(n model.Node) bool { return n.Shape == nil }) {
			if m, err = model.Shapes(m); err != nil {
				return nil, err
			}
		}
		if m, err = model.Fuse(m); err != nil {
			return nil, err
		}
	}
	return model.Freeze(m)
}

// Model is the Frozen model that the engine runs. It must not be changed.
func (e *Engine) Model() *model.Model { return e.m }

// InputSize is the number of bytes of one example.
func (e *Engine) InputSize() int { return e.prog.input.size }

// Classes is the number of float32 results of one example: of a classifier, its classes.
func (e *Engine) Classes() int { return e.prog.output.size }

// Description says what an engine uses on this machine.
type Description struct {
	Tier     string   // instruction tier and why it was chosen
	Workers  int      // goroutines that share a batch
	MaxBatch int      // examples that a worker takes at a time
	Rounding string   // of requantization
	Kernels  []string // one line per operation, in order
	Bytes    int      // buffers of one worker for MaxBatch examples
}

// Describe reports tier, threads and the kernel of each operation.
func (e *Engine) Describe() Description {
	d := Description{Tier: cpu.Describe(), Workers: e.workers, MaxBatch: e.batch, Rounding: rounding, Bytes: e.batch * e.prog.bytesPerExample()}
	for i := range e.prog.steps {
		s := &e.prog.steps[i]
		kernel := "none: the same memory"
		if s.op != nil {
			kernel = s.op.kernel()
		}
		d.Kernels = append(d.Kernels, s.out.name+": "+kernel)
	}
	return d
}

// String is the description as text, a line per fact.
func (d Description) String() string {
	return fmt.Sprintf("tier %s\nworkers %d, batches of %d in %d bytes of buffers each\nrequantization rounds %s\n%s",
		d.Tier, d.Workers, d.MaxBatch, d.Bytes, d.Rounding, strings.Join(d.Kernels, "\n"))
}

// ArgMax is the index of the largest logit; of equal ones the lowest. A NaN is never larger. It is -1 for no logits.
func ArgMax(logits []float32) int {
	best := -1
	for i, v := range logits {
		if best < 0 || v > logits[best] || (logits[best] != logits[best] && v == v) {
			best = i
		}
	}
	return best
}
