package export

import (
	"bytes"
	"context"
	"fmt"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/export/onnx"
	"github.com/narrow-ml/narrow/export/onnx/eval"
	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
)

// Subject is what is verified.
type Subject struct {
	Frozen  *model.Model // what is shipped: the content of model.narrow
	Trained *model.Model // what was trained: Float or Quantized with its masters; nil if only the file is at hand
}

// Options says how much is run.
type Options struct {
	Rows    int // examples of the set, from the first; 0 = all
	Workers int
}

// Leg is one comparison with the engine's tensors.
type Leg struct {
	Name      string  `json:"name"`
	Identical bool    `json:"identical"`
	Claimed   bool    `json:"claimed"` // whether the certificate depends on it
	Note      string  `json:"note,omitempty"`
	Layers    []Layer `json:"layers"`
}

// Certificate is the result of [Verify].
type Certificate struct {
	Identical   bool         `json:"identical"`
	Model       string       `json:"model"`
	Precision   string       `json:"precision"`
	Rows        int          `json:"rows"`
	Layers      []Layer      `json:"layers"` // all claimed legs together
	Legs        []Leg        `json:"legs"`
	Differences []Difference `json:"differences"` // numbers in the file that are not what was trained
}

// The legs.
const (
	legGraph       = "evaluation graph"
	legTraining    = "training graph, batch norm frozen"
	legInterpreter = "interpreter of the ONNX file"
	legFloat       = "unfused float reading of the ONNX file"
)

// verifyBatch is the number of examples compared at a time.
const verifyBatch = 64

// Verify compares, for every example and every layer, the engine with the evaluation graph and the training graph (if the
// masters are at hand), and with an interpreter of the exported ONNX file that shares no arithmetic with the engine. It
// also compares every number in the file with what the masters freeze to. For integer precisions all of that must be
// equal; for float precisions the claim is the graphs' equality within one instruction tier, and the interpreter's
// distance is reported.
func Verify(ctx context.Context, s Subject, set *datasets.Set, o Options) (*Certificate, error) {
	if s.Frozen.Stage != model.Frozen {
		return nil, fmt.Errorf("verify %q: the model is %s, not frozen", s.Frozen.Name, s.Frozen.Stage)
	}
	v, err := newVerifier(s, o)
	if err != nil {
		return nil, fmt.Errorf("verify %q: %w", s.Frozen.Name, err)
	}
	defer v.close()
	rows := set.Len()
	if o.Rows > 0 {
		rows = min(o.Rows, rows)
	}
	for lo := 0; lo < rows; lo += verifyBatch {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		hi := min(lo+verifyBatch, rows)
		size := set.Elems()
		if err := v.batch(set.X[lo*size:hi*size], set.Labels[lo:hi], hi-lo); err != nil {
			return nil, fmt.Errorf("verify %q: examples %d to %d: %w", s.Frozen.Name, lo, hi-1, err)
		}
	}
	return v.certificate(rows), nil
}

type tensor struct {
	codes  []int32
	values []float32
}

// leg is a way to compute the tensors of a batch, by name.
type leg struct {
	name    string
	claimed bool
	note    string
	run     func(x []uint8, labels []int32, n int, visit func(name string, t tensor) error) error
	layers  map[string]*Layer
}

type verifier struct {
	subject Subject
	integer bool
	names   []string // the tensors compared, in order
	engine  *infer.Engine
	want    map[string]tensor
	legs    []*leg
	diffs   []Difference
	closers []func()
}

func newVerifier(s Subject, o Options) (*verifier, error) {
	v := &verifier{subject: s, integer: s.Frozen.Precision.IsInteger(), want: map[string]tensor{}}
	for i := range s.Frozen.Nodes {
		if n := &s.Frozen.Nodes[i]; n.Op != model.Flatten { // a view: the same codes, in another order in NCHW files
			v.names = append(v.names, n.Name)
		}
	}
	v.diffs = selfCheck(s.Frozen)
	var err error
	if v.engine, err = infer.Compile(s.Frozen, infer.Options{Workers: o.Workers, MaxBatch: verifyBatch}); err != nil {
		return nil, err
	}
	if s.Trained != nil {
		if err := v.addGraphs(max(1, o.Workers)); err != nil {
			v.close()
			return nil, err
		}
	}
	if err := v.addInterpreter(); err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

func (v *verifier) close() {
	for _, f := range v.closers {
		f()
	}
}

// addGraphs adds the two graphs of the trained model and compares its frozen form with the file.
func (v *verifier) addGraphs(workers int) error {
	again, err := model.Freeze(v.subject.Trained)
	if err != nil {
		return err
	}
	v.diffs = append(v.diffs, CompareFrozen(again, v.subject.Frozen)...)
	pool := par.New(workers)
	v.closers = append(v.closers, pool.Close)
	for _, train := range []bool{false, true} {
		net, err := layers.Build(v.subject.Trained.Clone(), layers.Options{Batch: verifyBatch, Train: train, Loss: layers.Loss{Kind: "cross_entropy"}, Pool: pool})
		if err != nil {
			return err
		}
		v.closers = append(v.closers, net.Close)
		net.SetPhase(layers.Phase{FreezeNorm: true, FreezeRanges: true, NoDropout: true})
		l := &leg{name: legGraph, claimed: true}
		if train {
			l.name = legTraining
		}
		if !v.integer {
			l.note = "float arithmetic: equal within one instruction tier"
		}
		l.run = func(x []uint8, labels []int32, n int, visit func(string, tensor) error) error {
			if _, err := net.Run(x, labels, n); err != nil {
				return err
			}
			for _, name := range v.names {
				codes, values, ok := net.Tensor(name)
				if !ok {
					return fmt.Errorf("the graph has no tensor %q", name)
				}
				t := tensor{widened(nil, codes), values}
				if wide := net.WideCodes(name); wide != nil {
					t = tensor{codes: widened(nil, wide)}
				}
				if err := visit(name, t); err != nil {
					return err
				}
			}
			return nil
		}
		v.legs = append(v.legs, l)
	}
	return nil
}

// addInterpreter exports the frozen model to memory and adds both readings of the file.
func (v *verifier) addInterpreter() error {
	var file bytes.Buffer
	if err := onnx.Write(&file, v.subject.Frozen, onnx.Options{}); err != nil {
		return err
	}
	pb, err := onnxpb.Unmarshal(file.Bytes())
	if err != nil {
		return err
	}
	program, err := eval.Load(pb)
	if err != nil {
		return err
	}
	in := v.subject.Frozen.Inputs[0]
	compared := map[string]bool{}
	for _, name := range v.names {
		compared[name] = true
	}
	reading := func(r eval.Reading) func([]uint8, []int32, int, func(string, tensor) error) error {
		return func(x []uint8, _ []int32, n int, visit func(string, tensor) error) error {
			_, err := program.Run(map[string]eval.Tensor{in.Name: onnx.InputTensor(in, x, n)}, r, func(name string, t eval.Tensor) error {
				if !compared[name] {
					return nil
				}
				return visit(name, fromEval(t.ChannelsLast()))
			})
			return err
		}
	}
	if v.integer {
		v.legs = append(v.legs,
			&leg{name: legInterpreter, claimed: true, run: reading(eval.Integer)},
			&leg{name: legFloat, note: "each operator in real arithmetic: 1-LSB differences are expected and counted, nothing is claimed", run: reading(eval.Float)})
		return nil
	}
	v.legs = append(v.legs, &leg{name: legInterpreter, note: "float arithmetic in another order of summation: the distance is reported, nothing is claimed", run: reading(eval.Float)})
	return nil
}

// widened appends codes of either width.
func widened[T uint8 | int16](dst []int32, codes []T) []int32 {
	for _, q := range codes {
		dst = append(dst, int32(q))
	}
	return dst
}

func fromEval(t eval.Tensor) tensor {
	if t.IsReal() {
		return tensor{values: t.Float32s()}
	}
	codes := make([]int32, len(t.Ints))
	for i, q := range t.Ints {
		codes[i] = int32(q)
	}
	return tensor{codes: codes}
}

// batch runs the engine and every leg on the same examples.
func (v *verifier) batch(x []uint8, labels []int32, n int) error {
	err := v.engine.Trace(x, n, func(t infer.Tensor) error {
		before := v.want[t.Name]
		codes := widened(before.codes[:0], t.Codes)
		v.want[t.Name] = tensor{widened(codes, t.Wide), append(before.values[:0], t.Values...)}
		return nil
	})
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	for _, l := range v.legs {
		if l.layers == nil {
			l.layers = map[string]*Layer{}
			for _, name := range v.names {
				l.layers[name] = &Layer{Name: name}
			}
		}
		err := l.run(x, labels, n, func(name string, got tensor) error { return l.compare(name, v.want[name], got) })
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return nil
}

func (l *leg) compare(name string, want, got tensor) error {
	if len(want.codes) != len(got.codes) || len(want.values) != len(got.values) {
		return fmt.Errorf("tensor %q has %d codes and %d values, the engine's has %d and %d", name, len(got.codes), len(got.values), len(want.codes), len(want.values))
	}
	l.layers[name].codes(want.codes, got.codes)
	l.layers[name].values(want.values, got.values)
	return nil
}

func (v *verifier) certificate(rows int) *Certificate {
	c := &Certificate{
		Identical: len(v.diffs) == 0, Model: v.subject.Frozen.Name, Precision: v.subject.Frozen.Precision.String(),
		Rows: rows, Differences: v.diffs,
	}
	total := make([]Layer, len(v.names))
	for i, name := range v.names {
		total[i].Name = name
	}
	for _, l := range v.legs {
		out := Leg{Name: l.name, Claimed: l.claimed, Note: l.note, Identical: true}
		for i, name := range v.names {
			layer := *l.layers[name]
			out.Layers = append(out.Layers, layer)
			out.Identical = out.Identical && layer.Identical()
			if l.claimed {
				total[i].Elements += layer.Elements
				total[i].Equal += layer.Equal
				total[i].OffByOne += layer.OffByOne
				total[i].MaxDiff = max(total[i].MaxDiff, layer.MaxDiff)
			}
		}
		if l.claimed && !out.Identical {
			c.Identical = false
		}
		c.Legs = append(c.Legs, out)
	}
	c.Layers = total
	return c
}
