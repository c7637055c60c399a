package train

import (
	"errors"
	"fmt"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/infer"
)

// teacher is the float model whose answers are learned, and its logits for the batch at hand.
type teacher struct {
	engine *infer.Engine
	logits []float32
}

// newTeacher compiles a copy of the job's teacher; nil without distillation.
func newTeacher(j Job) (*teacher, error) {
	switch {
	case j.Phase.Distill == nil:
		return nil, nil
	case j.Teacher == nil:
		return nil, errors.New("distillation needs a teacher: the float model before quantization")
	}
	e, err := infer.Compile(j.Teacher, infer.Options{Workers: j.Pool.Workers(), MaxBatch: j.Phase.Batch})
	if err != nil {
		return nil, fmt.Errorf("teacher: %w", err)
	}
	return &teacher{e, make([]float32, j.Phase.Batch*e.Classes())}, nil
}

// teach gives the graph the teacher's answers to a batch.
func (f *fit) teach(b datasets.Batch) error {
	t := f.teacher
	if t == nil {
		return nil
	}
	logits := t.logits[:b.N*t.engine.Classes()]
	if err := t.engine.Run(logits, b.X, b.N); err != nil {
		return fmt.Errorf("teacher: %w", err)
	}
	return f.net.Teach(logits)
}
