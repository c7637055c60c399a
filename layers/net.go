package layers

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	G "gorgonia.org/gorgonia"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/qat"
	"github.com/narrow-ml/narrow/quant"
)

// Net is a compiled graph. It must not be used from two goroutines at once.
type Net struct {
	st      *qat.Step
	g       *G.ExprGraph
	vm      *gx.Machine
	batch   int
	classes int
	input   *qat.Codes
	table   *[256]uint8 // from bytes to codes; nil where they are the same
	labels  []int32
	loss    *loss
	out     string
	edges   map[string]edge
	wide    map[string]*quant.Params // quantizers of 16-bit codes, which edges carry as values
	acts    map[string]*act
	ranges  []*act // of acts, by name
	learned []learnedRange
	drops   []*dropout

	trainables []Trainable
	weights    []coded
}

// coded is a quantized weight in the graph.
type coded struct {
	name   string
	weight *qat.Weight
}

// Run computes the n examples in x, n rows of input bytes, forward and, in a training graph, backward. labels are the
// classes; a row labelled -1, or all rows if labels is nil, takes no part in the loss. After a training run the ranges of
// the model's activations have moved.
func (n *Net) Run(x []uint8, labels []int32, rows int) (Result, error) {
	row := len(n.input.U8) / n.batch
	switch {
	case n.vm == nil:
		return Result{}, fmt.Errorf("run: the graph is closed")
	case rows < 1 || rows > n.batch:
		return Result{}, fmt.Errorf("run: %d rows in a graph of batch size %d", rows, n.batch)
	case len(x) < rows*row:
		return Result{}, fmt.Errorf("run: %d input bytes for %d rows of %d", len(x), rows, row)
	case labels != nil && len(labels) < rows:
		return Result{}, fmt.Errorf("run: %d labels for %d rows", len(labels), rows)
	}
	n.st.Rows = rows
	if n.table == nil {
		copy(n.input.U8, x[:rows*row])
	} else {
		for i, p := range x[:rows*row] {
			n.input.U8[i] = n.table[p]
		}
	}
	for i := range n.labels {
		n.labels[i] = unlabelled
	}
	if labels != nil {
		copy(n.labels, labels[:rows])
	}
	if err := n.Settle(); err != nil {
		return Result{}, err
	}
	for _, d := range n.drops {
		d.begin()
	}
	if err := n.vm.Run(); err != nil {
		return Result{}, err
	}
	for _, a := range n.ranges {
		if err := a.Update(); err != nil {
			return Result{}, err
		}
	}
	return n.result(), nil
}

// Settle makes scales and zero points follow what an optimizer has made of the learned numbers (quant.Params.Settle). Run
// does it too; after the last step of training nobody else does. A range that is NaN or infinite is an error.
func (n *Net) Settle() error {
	for _, l := range n.learned {
		l.p.Settle()
		for _, s := range l.p.Scale {
			if s-s != 0 { // NaN or infinite
				return fmt.Errorf("the learned range of %q is %v; lower qat.scale_lr", l.name, s)
			}
		}
	}
	return nil
}

func (n *Net) result() Result {
	r := Result{Loss: n.loss.value}
	logits := n.Logits()
	for i, y := range n.labels[:n.st.Rows] {
		if y == unlabelled {
			continue
		}
		r.N++
		row := logits[i*n.classes : (i+1)*n.classes]
		best := 0
		for c, v := range row {
			if v > row[best] {
				best = c
			}
		}
		if best == int(y) {
			r.Correct++
		}
	}
	return r
}

// Logits are the outputs of the last run, one row per example; the next run overwrites them.
func (n *Net) Logits() []float32 {
	_, values, _ := n.Tensor(n.out)
	return values
}

// Tensor is what the last run computed for a tensor of the model, an input or the output of a node: codes where it is
// quantized to integers of up to 8 bits, values otherwise: of 16-bit codes too (see [Net.WideCodes]). The next run overwrites it. A tensor inside a fused block is not there.
func (n *Net) Tensor(name string) (codes []uint8, values []float32, ok bool) {
	e, known := n.edges[name]
	if !known || e.node.Value() == nil {
		return nil, nil, false
	}
	v := e.node.Value()
	used := v.Size() / n.batch * n.st.Rows
	if c, isCodes := v.(*qat.Codes); isCodes {
		return c.U8[:used], nil, true
	}
	var err error
	if e.hidden != nil {
		codes, err = e.hidden.Of(v, used)
		return codes, nil, err == nil
	}
	if values, err = gx.Floats(v); err != nil {
		return nil, nil, false
	}
	values = values[:used]
	if e.round != 0 {
		rounded := make([]float32, used)
		return nil, rounded, quant.Round16(rounded, values, e.round) == nil
	}
	return nil, values, true
}

// Trainables are the tensors to update, sorted by name; none in an evaluation graph.
func (n *Net) Trainables() []Trainable { return n.trainables }

// SetPhase freezes or releases batch norm and ranges, and sets the step of dropout, from the next run on. An evaluation graph is always frozen.
func (n *Net) SetPhase(p Phase) {
	n.st.At = p.Step
	n.st.FreezeNorm, n.st.FreezeRanges, n.st.NormWeight = p.FreezeNorm, p.FreezeRanges, p.NormWeight
	for _, d := range n.drops {
		d.step, d.off = p.Step, p.NoDropout
	}
}

// Teach gives the teacher's logits for the next run, a row for each of its examples. A graph whose loss has a teacher needs
// them before every run.
func (n *Net) Teach(logits []float32) error {
	switch {
	case n.loss.opt.Distill == Distill{}:
		return errors.New("teach: the loss of this graph has no teacher")
	case len(logits)%n.classes != 0:
		return fmt.Errorf("teach: %d logits are not rows of %d classes", len(logits), n.classes)
	}
	n.loss.teacher = logits
	return nil
}

// Codes are the weights of a quantized graph, with one scale per channel or tensor and up to 8 bits, as the last run coded
// them, sorted by name. The next run overwrites them.
func (n *Net) Codes() []Codes {
	out := make([]Codes, len(n.weights))
	for i, w := range n.weights {
		q := w.weight.Codes()
		out[i] = Codes{Name: w.name, Codes: q.S8, Scale: q.Params.Scale, Spec: q.Params.Spec}
	}
	return out
}

// State is what a checkpoint needs beside the model's parameters: for each activation that follows its batches the
// range, the scale and the zero point, by tensor name.
func (n *Net) State() map[string][]float32 {
	out := map[string][]float32{}
	for name, a := range n.acts {
		if a.Observer() != nil {
			out[name] = append(a.Observer().State(), a.params.Scale[0], float32(a.params.Zero[0]))
		}
	}
	return out
}

// Restore takes back what State gave, for the same model.
func (n *Net) Restore(state map[string][]float32) error {
	have := n.State()
	for _, name := range slices.Sorted(maps.Keys(state)) {
		if have[name] == nil {
			return fmt.Errorf("restore: the graph has no observer of activation %q", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		s, a := state[name], n.acts[name]
		if len(s) < 2 {
			return fmt.Errorf("restore: state of activation %q is missing", name)
		}
		p := quant.Params{Spec: a.params.Spec, Scale: s[len(s)-2 : len(s)-1], Zero: []int32{int32(s[len(s)-1])}}
		if err := p.Validate(1); err != nil {
			return fmt.Errorf("restore: activation %q: %w", name, err)
		}
		if err := a.Observer().Restore(s[:len(s)-2]); err != nil {
			return fmt.Errorf("restore: activation %q: %w", name, err)
		}
		a.params.Scale[0], a.params.Zero[0] = p.Scale[0], p.Zero[0]
	}
	return nil
}

// Dot writes the graph, gradients included, for Graphviz. Quantizers are filled.
func (n *Net) Dot(w io.Writer) error { return writeDot(w, n.g) }

// Close releases the graph's machine. The pool stays open.
func (n *Net) Close() {
	if n.vm != nil {
		n.vm.Close()
		n.vm = nil
	}
}
