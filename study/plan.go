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

// arm is one row of the table before it has numbers: a precision, a method, and the variant of the config that it runs
// under, "" being the config itself.
type arm struct {
	precision quant.Precision
	method    string
	variant   string
}

func (a arm) String() string {
	s := a.precision.String() + " " + a.method
	if a.variant != "" {
		s += " " + a.variant
	}
	return s
}

// cell is one arm under one seed.
type cell struct {
	arm
	seed uint64
}

// plan is everything that will be run, in order.
type plan struct {
	seeds   []uint64
	arms    []arm
	cells   []cell
	configs map[string]*configs.Config // by variant
	quants  map[grid]model.QuantConfig
	control map[string]string // by variant: the one under whose name its fp32+ is run
}

// grid is a precision under a variant.
type grid struct {
	precision quant.Precision
	variant   string
}

// quant is how the tensors of an arm are quantized.
func (p *plan) quant(a arm) model.QuantConfig { return p.quants[grid{a.precision, a.variant}] }

// newPlan reads the compare section. Everything that can be refused is refused here, before the first step of training:
// unknown precisions and methods, formats that the network cannot have, rules that match nothing.
func newPlan(c *configs.Config, d *datasets.Dataset) (*plan, error) {
	p := &plan{configs: map[string]*configs.Config{"": c}, quants: map[grid]model.QuantConfig{}, control: map[string]string{}}
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
	if slices.Contains(c.Compare.Methods, MethodQAT) && c.QAT == nil {
		return nil, fmt.Errorf("compare.methods lists qat, and config %q has no qat section; add one, or compare ptq alone", c.Name)
	}
	float, err := train.NewModel(c, d, c.Seed)
	if err != nil {
		return nil, err
	}
	for _, v := range c.Compare.Variants {
		if p.configs[v.Name], err = c.Variant(v); err != nil {
			return nil, fmt.Errorf("variant %s: %w", v.Name, err)
		}
	}
	p.addFloat(c)
	seen := map[quant.Precision]bool{quant.Full: true} // fp32 is always there; int4 and w4a4 are the same precision
	for _, name := range c.Compare.Precisions {
		precision, err := quant.ParsePrecision(name)
		if err != nil {
			return nil, fmt.Errorf("compare.precisions: %w", err)
		}
		if seen[precision] {
			continue
		}
		seen[precision] = true
		if err := p.addPrecision(c, float, precision); err != nil {
			return nil, fmt.Errorf("precision %s: %w", name, err)
		}
	}
	for _, seed := range p.seeds {
		for _, a := range p.arms {
			p.cells = append(p.cells, cell{a, seed})
		}
	}
	return p, nil
}

// addFloat adds the arms without quantizers: fp32, and fp32+ once for each length and rate of training.
func (p *plan) addFloat(c *configs.Config) {
	p.arms = append(p.arms, arm{quant.Full, MethodNone, ""})
	var phases []train.Phase
	var owners []string
	for _, v := range variantsOf(c) {
		if !runs(c, v, MethodQAT) {
			continue
		}
		phase := train.ExtraPhase(p.configs[v.Name])
		if i := slices.Index(phases, phase); i >= 0 {
			p.control[v.Name] = owners[i]
			continue
		}
		phases, owners = append(phases, phase), append(owners, v.Name)
		p.control[v.Name] = v.Name
		p.arms = append(p.arms, arm{quant.Full, MethodExtra, v.Name})
	}
}

// addPrecision adds the arms of a precision: the config's own, then those of its variants.
func (p *plan) addPrecision(c *configs.Config, float *model.Model, precision quant.Precision) error {
	for _, v := range variantsOf(c) {
		if !covers(v, precision) {
			continue
		}
		own := p.configs[v.Name]
		q, err := own.QuantConfig(precision)
		if err == nil {
			var placed *model.Model
			if placed, err = model.Placed(float, q); err == nil && runs(c, v, MethodQAT) {
				err = train.CheckQAT(own, placed)
			}
		}
		if err == nil && runs(c, v, MethodPTQ) {
			err = own.CheckPTQ()
		}
		if err != nil {
			return err
		}
		calibration, err := train.CalibrationOptions(own, 1)
		if err != nil {
			return err
		}
		if err := calibration.For(precision).Check(float, precision); err != nil {
			return fmt.Errorf("quant.calibration: %w", err)
		}
		if runs(c, v, MethodQAT) {
			if _, err := train.Stages(own, float, precision); err != nil {
				return err
			}
		}
		p.quants[grid{precision, v.Name}] = q
		for _, method := range []string{MethodPTQ, MethodQAT} {
			if runs(c, v, method) {
				p.arms = append(p.arms, arm{precision, method, v.Name})
			}
		}
	}
	return nil
}

// variantsOf lists the config itself, as the variant without a name, and its variants.
func variantsOf(c *configs.Config) []configs.Variant {
	return append([]configs.Variant{{}}, c.Compare.Variants...)
}

// runs reports whether a method is run for a variant.
func runs(c *configs.Config, v configs.Variant, method string) bool {
	return slices.Contains(c.Compare.Methods, method) && (len(v.Methods) == 0 || slices.Contains(v.Methods, method))
}

// covers reports whether a variant is run at a precision. The names of its list were checked when it was read.
func covers(v configs.Variant, p quant.Precision) bool {
	return len(v.Precisions) == 0 || slices.ContainsFunc(v.Precisions, func(name string) bool {
		q, err := quant.ParsePrecision(name)
		return err == nil && q == p
	})
}
