package main

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
	"github.com/narrow-ml/narrow/train"
)

type explainOptions struct {
	configFlags
	dataFlags
	precision string
	dot, json bool
}

func (a *app) explainCommand() *cobra.Command {
	var o explainOptions
	c := &cobra.Command{
		Use:   "explain CONFIG",
		Short: "What every tensor will be, and what each precision costs, before training",
		Args:  arguments(1, 1, "a CONFIG"),
		RunE:  func(c *cobra.Command, args []string) error { return a.explain(c.Context(), args[0], &o) },
	}
	o.configFlags.add(c)
	o.dataFlags.add(c)
	c.Flags().StringVarP(&o.precision, "precision", "p", "", "explain this `precision` instead of the config's (fp32, int8, w4a8, ...)")
	c.Flags().BoolVar(&o.dot, "dot", false, "print the Gorgonia graph of one training step in Graphviz dot")
	c.Flags().BoolVar(&o.json, "json", false, "print one JSON document")
	return c
}

// explanation is what explain prints.
type explanation struct {
	Config    string        `json:"config"`
	Dataset   string        `json:"dataset"`
	Precision string        `json:"precision"`
	Input     []int         `json:"input"`
	Classes   int           `json:"classes"`
	Schedule  []string      `json:"schedule,omitempty"` // of quantization-aware training
	Tensors   []tensorRow   `json:"tensors"`
	Costs     []precisionOf `json:"costs"`
	Refused   []string      `json:"refused,omitempty"` // precisions of compare that these settings cannot have, and why

	Warnings []configs.Advice `json:"warnings"` // known bad pairs of settings
}

// tensorRow is one tensor of the fused model.
type tensorRow struct {
	Name        string `json:"name"`
	Role        string `json:"role"`
	Spec        string `json:"spec"`
	Shape       []int  `json:"shape"`
	MACs        int    `json:"macs,omitempty"`
	WeightBytes int    `json:"weight_bytes,omitempty"`
	Rule        string `json:"rule,omitempty"` // where the rule that decided stands
}

// precisionOf is what the weights take in one precision.
type precisionOf struct {
	Precision   string         `json:"precision"`
	WeightBytes int            `json:"weight_bytes"`
	Layers      map[string]int `json:"layers"`
	Rules       bool           `json:"rules"` // rules of the config decide some layers
}

func (a *app) explain(ctx context.Context, name string, o *explainOptions) error {
	if o.dot && o.json {
		return usagef("--dot and --json contradict each other")
	}
	c, err := o.open(name)
	if err != nil {
		return err
	}
	asked, err := precision(o.precision)
	if err != nil {
		return err
	}
	p := c.Precision()
	if asked != nil {
		p = *asked
	}
	d, err := datasets.Describe(c.Dataset.Name)
	if o.dot && p != quant.Full { // the ranges of its graph are calibrated
		d, err = o.load(ctx, a, c)
	}
	if err != nil {
		return err
	}
	float, err := train.NewModel(c, d, c.Seed)
	if err != nil {
		return err
	}
	if o.dot {
		m := float
		if p != quant.Full {
			w, err := workers(0)
			if err != nil {
				return err
			}
			r, _, err := train.Calibrated(ctx, c, float, p, d, w)
			if err != nil {
				return err
			}
			m = r.Model
		}
		o := layers.Options{Batch: c.Dataset.Batch, Train: true, Fuse: c.QAT == nil || c.QAT.Fuse, Loss: layers.Loss{Kind: c.Train.Loss, Smoothing: c.Train.LabelSmoothing}}
		if c.QAT != nil && p.IsInteger() {
			o.Backward = c.QAT.Backward
		}
		net, err := layers.Build(m, o)
		if err != nil {
			return err
		}
		defer net.Close()
		return net.Dot(a.stdout)
	}
	e := explanation{Config: c.Name, Dataset: d.Name, Precision: p.String(), Input: float.Inputs[0].Shape, Classes: len(d.Classes)}
	m, q, err := placed(c, float, p)
	if err != nil {
		return err
	}
	e.Tensors = explainTensors(c, m, q, p)
	if e.Schedule, err = explainSchedule(c, float, m, p); err != nil {
		return err
	}
	examples, _, err := datasets.Sizes(c.Dataset.Name)
	if err != nil {
		return err
	}
	e.Warnings = c.Advice(m, examples)
	for _, name := range c.Compare.Precisions {
		cost, err := explainCost(c, float, name)
		if err != nil && asked != nil { // of another precision than the one in question
			e.Refused = append(e.Refused, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		if err != nil {
			return fmt.Errorf("precision %s: %w", name, err)
		}
		e.Costs = append(e.Costs, cost)
	}
	if o.json {
		return a.writeJSON(e)
	}
	return a.writeExplanation(c, &e)
}

// placed is the float model as a precision quantizes it; float itself at full precision.
func placed(c *configs.Config, float *model.Model, p quant.Precision) (*model.Model, model.QuantConfig, error) {
	q, err := c.QuantConfig(p)
	if err != nil || p == quant.Full {
		return float, q, err
	}
	m, err := model.Placed(float, q)
	return m, q, err
}

func explainTensors(c *configs.Config, m *model.Model, q model.QuantConfig, p quant.Precision) []tensorRow {
	spec := func(name string) string {
		if t := m.Quant[name]; t != nil {
			return t.Spec.String()
		}
		return quant.FP32.String()
	}
	var rows []tensorRow
	for _, in := range m.Inputs {
		rows = append(rows, tensorRow{Name: in.Name, Role: "model input", Spec: spec(in.Name), Shape: in.Shape})
	}
	for i := range m.Nodes {
		n := &m.Nodes[i]
		role := n.Op.String()
		if len(n.In) > 1 {
			role += " of " + strings.Join(n.In, ", ")
		}
		if n.Attr.Norm {
			role += " + norm"
		}
		switch {
		case n.Attr.Relu && n.Attr.Cap > 0:
			role += fmt.Sprintf(" + relu up to %v", n.Attr.Cap)
		case n.Attr.Relu:
			role += " + relu"
		case n.Attr.Cap > 0:
			role += fmt.Sprintf(" up to %v", n.Attr.Cap)
		}
		row := tensorRow{Name: n.Name, Role: role, Spec: spec(n.Name), Shape: n.Shape}
		switch {
		case n.Op.HasWeight():
			weight := tensorRow{Name: n.Param(model.Weight), Role: "weight", Spec: spec(n.Param(model.Weight)),
				Shape: m.Params[n.Param(model.Weight)].Shape, MACs: m.MACs(n), WeightBytes: m.NodeWeightBytes(n)}
			if c.QAT != nil && c.QAT.Backward == layers.BackwardInt16 && p.IsInteger() {
				weight.Role += ", gradients in int16"
				if err := layers.IntegerBackward(m, n, c.Dataset.Batch); err != nil {
					weight.Role = fmt.Sprintf("weight, gradients in float32 (%v)", err)
				}
			}
			if r := ruleOf(q, n.Layer); r != nil {
				if r.Weight != nil {
					weight.Rule = r.Origin
				}
				if r.Act != nil && !m.IsOutput(n.Name) {
					row.Rule = r.Origin
				}
			}
			rows = append(rows, weight)
		case n.Op.HasQuantizer():
			if r := ruleOf(q, n.Layer); r != nil && r.Act != nil {
				row.Rule = r.Origin
			}
		case p != quant.Full:
			row.Role += ", scale of its input"
		}
		if m.IsOutput(n.Name) {
			row.Role += ", logits"
		}
		rows = append(rows, row)
	}
	return rows
}

// ruleOf is the rule that decides about a layer: the first that matches.
func ruleOf(q model.QuantConfig, layer string) *model.Rule {
	for i := range q.Rules {
		if ok, err := path.Match(q.Rules[i].Layer, layer); ok && err == nil {
			return &q.Rules[i]
		}
	}
	return nil
}

func explainCost(c *configs.Config, float *model.Model, name string) (precisionOf, error) {
	p, err := quant.ParsePrecision(name)
	if err != nil {
		return precisionOf{}, err
	}
	m, q, err := placed(c, float, p)
	if err != nil {
		return precisionOf{}, err
	}
	cost := precisionOf{Precision: name, WeightBytes: m.WeightBytes(), Layers: map[string]int{}}
	for i := range m.Nodes {
		n := &m.Nodes[i]
		if !n.Op.HasWeight() {
			continue
		}
		cost.Layers[n.Layer] = m.NodeWeightBytes(n)
		if r := ruleOf(q, n.Layer); r != nil && (r.Weight != nil || r.Act != nil) {
			cost.Rules = true
		}
	}
	return cost, nil
}

func (a *app) writeExplanation(c *configs.Config, e *explanation) error {
	how := "float training only"
	switch {
	case e.Precision == quant.Full.String():
	case c.QAT != nil:
		how = "float training, calibration, quantization-aware training"
	default:
		how = "float training, then narrow quantize"
	}
	fmt.Fprintf(a.stdout, "%s on %s, precision %s: %s\ninput %s, %d classes\n", e.Config, e.Dataset, e.Precision, how, extents(e.Input), e.Classes)
	for _, line := range e.Schedule {
		fmt.Fprintf(a.stdout, "qat: %s\n", line)
	}
	fmt.Fprintln(a.stdout)
	t := newTable("tensor", "what it is", "format", "shape", ">MACs", ">weight bytes", "")
	macs, bytes, ruled := 0, 0, false
	for _, r := range e.Tensors {
		macText, byteText, rule := "", "", ""
		if r.MACs > 0 {
			macText, byteText = thousands(r.MACs), thousands(r.WeightBytes)
		}
		if r.Rule != "" {
			rule, ruled = "* rule at "+r.Rule, true
		}
		macs, bytes = macs+r.MACs, bytes+r.WeightBytes
		t.add(r.Name, r.Role, r.Spec, extents(r.Shape), macText, byteText, rule)
	}
	t.add("total", "", "", "", thousands(macs), thousands(bytes), "")
	if err := t.write(a.stdout); err != nil {
		return err
	}
	if ruled {
		fmt.Fprintln(a.stdout, "* a rule of the config decides, not the precision")
	}
	if asked, err := quant.ParsePrecision(e.Precision); err == nil && !asked.Weight.IsInteger() && c.Quant != nil && len(c.Quant.Rules) > 0 {
		fmt.Fprintf(a.stdout, "the rules of the config are about integers: they do not apply at %s\n", e.Precision)
	}
	for _, w := range e.Warnings {
		fmt.Fprintf(a.stdout, "warning: %s\n", w)
	}
	fmt.Fprintln(a.stdout, "\nweight bytes (codes and scales; biases are not counted)")
	titles := []string{"layer"}
	for _, cost := range e.Costs {
		title := cost.Precision
		if cost.Rules {
			title += "*"
		}
		titles = append(titles, ">"+title)
	}
	t = newTable(titles...)
	for i := range c.Model {
		layer := c.Model[i].Name()
		row := []any{layer}
		for _, cost := range e.Costs {
			if b, ok := cost.Layers[layer]; ok {
				row = append(row, thousands(b))
			}
		}
		if len(row) == len(titles) {
			t.add(row...)
		}
	}
	total := []any{"total"}
	for _, cost := range e.Costs {
		total = append(total, thousands(cost.WeightBytes))
	}
	t.add(total...)
	if err := t.write(a.stdout); err != nil {
		return err
	}
	for _, why := range e.Refused {
		fmt.Fprintf(a.stdout, "refused here: %s\n", why)
	}
	return nil
}

// extents writes a shape as 28x28x1.
func extents(shape []int) string {
	parts := make([]string, len(shape))
	for i, d := range shape {
		parts[i] = fmt.Sprint(d)
	}
	return strings.Join(parts, "x")
}
