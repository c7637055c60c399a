package layers

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/qat"
)

// unlabelled marks a row that has no label: it takes no part in the loss.
const unlabelled = kernel.IgnoreLabel

// loss is the cost of the logits [N, classes] given labels [N], a scalar. Its gradient is computed with it.
type loss struct {
	st      *qat.Step
	opt     Loss
	classes int
	value   float64 // before rounding to float32
	out     *G.F32
	grad    []float32
	target  []float32 // one-hot rows of the elementwise losses
	teacher []float32 // logits for the next run
	soft    []float32 // the gradient that they give
}

func newLoss(st *qat.Step, opt Loss, logits, labels *G.Node) (*G.Node, *loss, error) {
	shape := logits.Shape()
	k := &loss{st: st, opt: opt, classes: shape[1], out: G.NewF32(0)}
	if st.Train {
		k.grad = make([]float32, shape.TotalSize())
	}
	if st.Train && opt.Distill != (Distill{}) {
		k.soft = make([]float32, shape.TotalSize())
	}
	if opt.Kind != CrossEntropy {
		k.target = make([]float32, shape.TotalSize())
	}
	n, err := gx.Apply(k, "loss "+opt.Kind, k.out, logits, labels)
	return n, k, err
}

func (k *loss) Run(in []G.Value) (G.Value, error) {
	x, err := gx.Floats(in[0])
	if err != nil {
		return nil, err
	}
	n := k.st.Rows * k.classes
	labels := in[1].Data().([]int32)[:k.st.Rows]
	grad := k.grad
	if grad != nil {
		grad = grad[:n]
	}
	if k.opt.Kind == CrossEntropy {
		k.value, err = kernel.SoftmaxCrossEntropy(grad, nil, x[:n], labels, k.classes, kernel.CrossEntropy{Smoothing: k.opt.Smoothing})
	} else {
		k.value, err = k.elementwise(grad, x[:n], labels)
	}
	if err == nil && k.opt.Distill != (Distill{}) {
		err = k.distill(grad, x[:n])
	}
	*k.out = G.F32(k.value)
	return k.out, err
}

// distill mixes the teacher's part into value and gradient.
func (k *loss) distill(grad, x []float32) error {
	if len(k.teacher) < len(x) {
		return fmt.Errorf("%d logits of the teacher for %d examples of %d classes: Teach gives them before each run", len(k.teacher), k.st.Rows, k.classes)
	}
	teacher := k.teacher[:len(x)]
	k.teacher = nil
	var soft []float32
	if grad != nil {
		soft = k.soft[:len(x)]
	}
	d := k.opt.Distill
	kl, err := kernel.DistillationKL(soft, x, teacher, k.classes, d.Temperature)
	if err != nil {
		return err
	}
	k.value = float64((1-d.Weight)*k.value) + float64(d.Weight*kl)
	for i, g := range grad {
		grad[i] = float32(float64((1-d.Weight)*float64(g)) + float64(d.Weight*float64(soft[i])))
	}
	return nil
}

func (k *loss) elementwise(grad, x []float32, labels []int32) (float64, error) {
	target := k.target[:len(x)]
	clear(target)
	labelled := 0
	for r, y := range labels {
		switch {
		case y == unlabelled:
		case y < 0 || int(y) >= k.classes:
			return 0, fmt.Errorf("row %d: label %d of %d classes", r, y, k.classes)
		default:
			labelled++
			target[r*k.classes+int(y)] = 1
		}
	}
	if labelled == 0 {
		clear(grad)
		return 0, nil
	}
	if labelled < len(labels) {
		return 0, fmt.Errorf("%d of %d rows have no label: loss %s needs all or none", len(labels)-labelled, len(labels), k.opt.Kind)
	}
	switch k.opt.Kind {
	case MSE:
		return kernel.MSELoss(grad, x, target, kernel.Mean)
	case SquaredHinge:
		return kernel.SquaredHinge(grad, x, target, kernel.Mean)
	case SmoothL1:
		return kernel.SmoothL1Loss(grad, x, target, 1, kernel.Mean)
	default:
		return kernel.BCEWithLogits(grad, x, target, kernel.Mean)
	}
}

func (k *loss) Needs() []bool { return []bool{true, false} }

func (k *loss) Backward(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	b := &lossGrad{f: k, dx: gx.NewTensor(in[0].Shape()...)}
	n, err := gx.Apply(b, "gradient(loss)", b.dx, out, grad)
	return G.Nodes{n, nil}, err
}

// lossGrad hands out the gradient that the loss computed, times the gradient of the cost, which is 1 unless the cost was
// built further.
type lossGrad struct {
	f  *loss
	dx *tensor.Dense
}

func (b *lossGrad) Run(in []G.Value) (G.Value, error) {
	up, err := gx.Floats(in[1])
	if err != nil {
		return nil, err
	}
	n := b.f.st.Rows * b.f.classes
	kernel.Scale(b.dx.Data().([]float32)[:n], b.f.grad[:n], up[0])
	return b.dx, nil
}
