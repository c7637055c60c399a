package train

import (
	"math"
	"testing"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/quant"
)

func learner(t *testing.T, s configs.Solver, step quant.ScaleStep, p layers.Trainable) *optimizer {
	t.Helper()
	o, err := newOptimizer(Phase{Solver: s, ScaleLR: s.LR, ScaleStep: step}, []layers.Trainable{p}, par.New(1))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// One step of plain SGD in ln s is s * e^(-lr * ds * s), and in s it is s - lr * ds.
func TestScaleStepsOfSGD(t *testing.T) {
	for _, row := range []struct {
		step    quant.ScaleStep
		s, grad float64
		want    float64
	}{
		{quant.StepLog, 0.5, 2, 0.5 * math.Exp(-0.1*2*0.5)},
		{quant.StepLog, 0.001, -3, 0.001 * math.Exp(0.1*3*0.001)},
		{quant.StepLog, 0.5, 1e30, 0.5 * math.Exp(-mostMove)}, // no step throws a scale away
		{quant.StepLog, 0.5, -1e30, 0.5 * math.Exp(mostMove)},
		{quant.StepLinear, 0.5, 2, 0.5 - 0.2},
	} {
		p := layers.Trainable{Name: "s", Learned: quant.LearnedScale, Value: []float32{float32(row.s)}, Grad: []float32{float32(row.grad)}}
		o := learner(t, configs.Solver{Optimizer: "sgd", LR: 0.1}, row.step, p)
		if err := o.step(0.1); err != nil {
			t.Fatal(err)
		}
		if got := float64(p.Value[0]); math.Abs(got-row.want) > 1e-6*row.want {
			t.Errorf("%s: scale %v with gradient %v becomes %v, want %v", row.step, row.s, row.grad, got, row.want)
		}
	}
}

// In logarithms Adam moves every scale by the same share, whatever its size and that of its gradient. In the scale itself
// it moves a small one by many times its size.
func TestScaleStepsOfAdam(t *testing.T) {
	for _, s := range []float32{1e-4, 1e-2, 1} {
		for _, grad := range []float32{1e-6, 1, 1e6} {
			p := layers.Trainable{Name: "s", Learned: quant.LearnedScale, Value: []float32{s}, Grad: []float32{grad}}
			o := learner(t, configs.Solver{Optimizer: "adam", LR: 0.01, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}, quant.StepLog, p)
			for range 3 {
				if err := o.step(0.01); err != nil {
					t.Fatal(err)
				}
			}
			if got := float64(p.Value[0] / s); math.Abs(got-math.Exp(-0.03)) > 1e-3 {
				t.Errorf("scale %v with gradient %v: factor %v in 3 steps, want %v", s, grad, got, math.Exp(-0.03))
			}
		}
	}
}

// An offset moves by a share of its grid, a threshold is a logarithm already; with linear steps both move by themselves.
func TestStepsOfOffsetAndThreshold(t *testing.T) {
	for _, row := range []struct {
		step quant.ScaleStep
		kind quant.Learned
		want float32
	}{
		{quant.StepLog, quant.LearnedOffset, 3 - 0.01*15},
		{quant.StepLinear, quant.LearnedOffset, 3 - 0.01},
		{quant.StepLog, quant.LearnedThreshold, 3 - 0.01},
		{quant.StepLinear, quant.LearnedThreshold, 3 - 0.01},
	} {
		p := layers.Trainable{Name: "n", Learned: row.kind, Span: 15, Value: []float32{3}, Grad: []float32{0.5}}
		o := learner(t, configs.Solver{Optimizer: "adam", LR: 0.01, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}, row.step, p)
		if err := o.step(0.01); err != nil {
			t.Fatal(err)
		}
		if d := p.Value[0] - row.want; d > 1e-5 || d < -1e-5 {
			t.Errorf("%s %s: %v, want %v", row.kind, row.step, p.Value[0], row.want)
		}
	}
}
