package infer

import (
	"fmt"

	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// Tensor is what one tensor of the model holds for N examples. Its slices are the engine's own: valid during the callback,
// not to be changed.
type Tensor struct {
	Name   string
	Shape  model.Shape // of one example
	First  int         // index of the first example within the call of Trace
	N      int
	Codes  []uint8       // of a tensor on integer codes of up to 8 bits; else nil
	Wide   []int16       // of a tensor on 16-bit codes; else nil
	Values []float32     // of a float tensor; else nil
	Params *quant.Params // nil when the tensor is float32 on purpose
	Acc    []int32       // of an integer conv or dense layer with 32-bit accumulators: these, bias included; else nil
}

// Trace runs n examples like Run, on one goroutine, and calls visit for every tensor, the input first, then the nodes in
// order: N <= MaxBatch examples at a time, so that each tensor comes once per batch. An error of visit ends it and is
// returned as it is. Codes and values are those that Run computes.
func (e *Engine) Trace(x []uint8, n int, visit func(Tensor) error) error {
	logits := make([]float32, min(max(n, 0), e.batch)*e.Classes())
	if err := e.checkLengths(max(n, 0)*e.Classes(), len(x), n); err != nil {
		return err
	}
	w := &worker{trace: true}
	w.bufs.reserve(e.prog, min(e.batch, n))
	for at := 0; at < n; at += e.batch {
		b := min(e.batch, n-at)
		w.first, w.x, w.logits = at, x[at*e.InputSize():][:b*e.InputSize()], logits[:b*e.Classes()]
		if err := e.prog.traceBatch(w, b, visit); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) traceBatch(w *worker, n int, visit func(Tensor) error) error {
	for i := range p.steps {
		s := &p.steps[i]
		if s.op != nil {
			if err := protect(s.op, w, n); err != nil {
				return fmt.Errorf("trace: %w", err)
			}
		}
		t := Tensor{Name: s.out.name, Shape: s.out.shape, First: w.first, N: n, Params: s.out.params}
		switch {
		case s.out.wide():
			t.Wide = w.centred(s.out, n) // zero point 0
		case s.out.coded():
			t.Codes = w.codes(s.out, n)
		default:
			t.Values = w.values(s.out, n)
		}
		if _, ok := s.op.(*integerLayer); ok {
			t.Acc = w.acc
		}
		if err := visit(t); err != nil {
			return err
		}
	}
	return nil
}

// protect runs an operation and turns a panic of it into an error. The visitor's panics are the visitor's.
func protect(o op, w *worker, n int) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &par.PanicError{Value: v}
		}
	}()
	return o.run(w, n)
}
