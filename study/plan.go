package study

import (
	"fmt"
	"slices"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
	"github.com/narrow-ml/narrow/train"
)

// arm is one row of the table before it has numbers: a precision and a method.
type arm struct {
	precision quant.Precision
	method    string
}

func (a arm) String() string { return a.precision.String() + " " + a.method }

// cell is one arm under one seed.
type cell struct {
	arm
	seed uint64
}

// plan is everything that will be run, in order.
type plan struct {
	seeds  []uint64
	arms   []arm
	cells  []cell
	quants map[quant.Precision]model.QuantConfig
}

// newPlan reads the compare section. Everything that can be refused is refused here, before the first step of training:
// unknown precisions and methods, formats that the network cannot have, rules that match nothing.
func newPlan(c *configs.Config, d *datasets.Dataset) (*plan, error) {
	p := &plan{quants: map[quant.Precision]model.QuantConfig{}}
	seeds := c.Compare.Seeds
	if seeds < 1 {
		return nil, fmt.Errorf("compare.seeds is %d; at least 1 is needed, 3 give error bars", seeds)
	}
	for i := range seeds {
		p.seeds = append(p.seeds, c.Seed+uint64(i))
	}
	for _, m := range c.Compare.Methods {
		if m != MethodPTQ && m != MethodQAT {
			return nil, fmt.Errorf("compare.methods: unknown method %q (allowed: ptq, qat; fp32 and fp32+ are always run where they mean something)", m)
		}
	}
	doPTQ, doQAT := slices.Contains(c.Compare.Methods, MethodPTQ), slices.Contains(c.Compare.Methods, MethodQAT)
	if doQAT && c.QAT == nil {
		return nil, fmt.Errorf("compare.methods lists qat, and config %q has no qat section; add one, or compare ptq alone", c.Name)
	}
	float, err := train.NewModel(c, d, c.Seed)
	if err != nil {
		return nil, err
	}
	calibration, err := train.CalibrationOptions(c, 1)
	if err != nil {
		return nil, err
	}
	p.arms = append(p.arms, arm{quant.Full, MethodNone})
	if doQAT {
		p.arms = append(p.arms, arm{quant.Full, MethodExtra})
	}
	for _, name := range c.Compare.Precisions {
		precision, err := quant.ParsePrecision(name)
		if err != nil {
			return nil, fmt.Errorf("compare.precisions: %w", err)
		}
		if _, seen := p.quants[precision]; precision == quant.Full || seen {
			continue // fp32 is always there; int4 and w4a4 are the same precision
		}
		q, err := c.QuantConfig(precision)
		if err != nil {
			return nil, fmt.Errorf("precision %s: %w", name, err)
		}
		if err := tryPlace(float, q); err != nil {
			return nil, fmt.Errorf("precision %s: %w", name, err)
		}
		if err := calibration.For(precision).Check(float, precision); err != nil {
			return nil, fmt.Errorf("quant.calibration, at precision %s: %w", name, err)
		}
		p.quants[precision] = q
		if doPTQ {
			p.arms = append(p.arms, arm{precision, MethodPTQ})
		}
		if doQAT {
			p.arms = append(p.arms, arm{precision, MethodQAT})
		}
	}
	for _, seed := range p.seeds {
		for _, a := range p.arms {
			p.cells = append(p.cells, cell{a, seed})
		}
	}
	return p, nil
}

// tryPlace runs the passes that calibration will run.
func tryPlace(float *model.Model, q model.QuantConfig) error {
	m, err := model.Place(float, q)
	if err != nil {
		return err
	}
	if m, err = model.Share(m); err != nil {
		return err
	}
	return model.Check(m)
}
