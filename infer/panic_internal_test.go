package infer

import (
	"errors"
	"testing"

	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/model"
)

// broken is an operation with a bug.
type broken struct{}

func (broken) run(*worker, int) error { panic("broken") }
func (broken) kernel() string         { return "" }

// TestPanicsBecomeErrors puts a broken operation into an engine: callers get an error, and the next call works.
func TestPanicsBecomeErrors(t *testing.T) {
	m := model.New("m", model.Input{Name: "x", Shape: model.Shape{1}, Scale: 1})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: 1}})
	for _, workers := range []int{1, 2} {
		e, err := Compile(m, Options{Workers: workers})
		if err != nil {
			t.Fatal(err)
		}
		e.ShareAlways()
		logits, x := make([]float32, 4), make([]uint8, 4)
		good := e.prog.steps[1].op
		e.prog.steps[1].op = broken{}
		var caught *par.PanicError
		if err := e.Run(logits, x, 4); !errors.As(err, &caught) || caught.Value != "broken" {
			t.Errorf("Run: %v", err)
		}
		if err := e.Trace(x, 4, func(Tensor) error { return nil }); !errors.As(err, &caught) {
			t.Errorf("Trace: %v", err)
		}
		e.prog.steps[1].op = good
		if err := e.Run(logits, x, 4); err != nil {
			t.Errorf("after the panic: %v", err)
		}
	}
}
