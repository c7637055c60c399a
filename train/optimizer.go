package train

import (
	"fmt"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/export/safetensors"
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// optimizer updates the trainable tensors of a graph and holds their moments. Weight decay is applied to all of them, as
// PyTorch does, except to what quantizers learn.
type optimizer struct {
	solver    configs.Solver
	scaleLR   float64
	scaleStep quant.ScaleStep
	params    []layers.Trainable
	first     [][]float32 // Adam's m, SGD's velocity
	second    [][]float32 // Adam's v
	steps     int
	pool      *par.Pool
	clip      float32 // of weights; 0: none

	lr   float64 // of the current step
	at   int     // parameter of the current span
	span func(shard, lo, hi int)

	update     func(p, g []float32, lo, hi int, eps float64) // of the elements [lo, hi) of parameter at
	grad, move []float32                                     // of learned numbers
}

func newOptimizer(p Phase, params []layers.Trainable, pool *par.Pool) (*optimizer, error) {
	o := &optimizer{solver: p.Solver, scaleLR: p.ScaleLR, scaleStep: p.ScaleStep, params: params, pool: pool, clip: float32(p.WeightClip)}
	for _, t := range params {
		o.first = append(o.first, make([]float32, len(t.Value)))
	}
	switch p.Solver.Optimizer {
	case "adam", "adamw":
		for _, t := range params {
			o.second = append(o.second, make([]float32, len(t.Value)))
		}
		o.update = o.adam
	case "sgd":
		o.update = o.sgd
	default:
		return nil, fmt.Errorf("unknown optimizer %q (allowed: adam, adamw, sgd)", p.Solver.Optimizer)
	}
	o.span = func(_, lo, hi int) {
		t := o.params[o.at]
		lo, hi = lo*updatePiece, min(hi*updatePiece, len(t.Value))
		o.update(t.Value[lo:hi], t.Grad[lo:hi], lo, hi, o.solver.Eps)
		if o.clip > 0 && t.Role == model.Weight {
			clip(t.Value[lo:hi], o.clip)
		}
	}
	return o, nil
}

// updatePiece is how many elements are not cut: handing a worker fewer costs more than updating them.
const updatePiece = 4096

// step updates every tensor with learning rate lr.
func (o *optimizer) step(lr float64) error {
	o.steps++
	for i, t := range o.params {
		o.at, o.lr = i, lr
		if t.Learned != 0 {
			o.lr = lr * o.scaleLR / o.solver.LR // ranges follow the same schedule
			o.learn(t)
			continue
		}
		if err := o.pool.Run((len(t.Value)+updatePiece-1)/updatePiece, o.span); err != nil {
			return fmt.Errorf("update of %q: %w", t.Name, err)
		}
	}
	return nil
}

// clip limits values to [-limit, limit]; NaN stays.
func clip(x []float32, limit float32) {
	for i, v := range x {
		if v > limit {
			x[i] = limit
		} else if v < -limit {
			x[i] = -limit
		}
	}
}

func (o *optimizer) decay() float64 {
	if o.params[o.at].Learned != 0 {
		return 0
	}
	return o.solver.WeightDecay
}

func (o *optimizer) adam(p, g []float32, lo, hi int, eps float64) {
	kernel.Adam(p, g, o.first[o.at][lo:hi], o.second[o.at][lo:hi], nil, o.steps, kernel.AdamConfig{
		LR: o.lr, Beta1: o.solver.Beta1, Beta2: o.solver.Beta2, Eps: eps,
		WeightDecay: o.decay(), Decoupled: o.solver.Optimizer == "adamw",
	})
}

func (o *optimizer) sgd(p, g []float32, lo, hi int, _ float64) {
	kernel.SGD(p, g, o.first[o.at][lo:hi], o.steps, kernel.SGDConfig{
		LR: o.lr, Momentum: o.solver.Momentum, Nesterov: o.solver.Nesterov, WeightDecay: o.decay(),
	})
}

// tensors are the moments, for a checkpoint.
func (o *optimizer) tensors() []safetensors.Tensor {
	var out []safetensors.Tensor
	for i, t := range o.params {
		out = append(out, safetensors.Float32(firstPrefix+t.Name, []int{len(t.Value)}, o.first[i]))
		if o.second != nil {
			out = append(out, safetensors.Float32(secondPrefix+t.Name, []int{len(t.Value)}, o.second[i]))
		}
	}
	return out
}

const (
	firstPrefix  = "first/"
	secondPrefix = "second/"
)

// restore reads what tensors wrote.
func (o *optimizer) restore(byName map[string]safetensors.Tensor) error {
	for i, t := range o.params {
		if err := float32s(byName, firstPrefix+t.Name, o.first[i]); err != nil {
			return err
		}
		if o.second != nil {
			if err := float32s(byName, secondPrefix+t.Name, o.second[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func float32s(byName map[string]safetensors.Tensor, name string, dst []float32) error {
	t, ok := byName[name]
	if !ok {
		return fmt.Errorf("tensor %q is missing", name)
	}
	return t.Float32s(dst)
}
