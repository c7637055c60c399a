package configs

import (
	"fmt"

	"github.com/narrow-ml/narrow/quant"
	"go.yaml.in/yaml/v3"
)

// Schedules says what happens when during quantization-aware training, beside the learning rate. Fractions are of the
// phase's steps; the zero value changes nothing.
type Schedules struct {
	FreezeRangesAfter float64
	FreezeBNAfter     float64
	Delay             float64    // trains in float32 so long, then calibrates
	Lower             []Lowering // precisions on the way to the run's own, which is the last; nil: that one from the start
	EMA               float64    // decay of the average of the masters that is shipped in their place; 0 = off
	BNReestimate      int        // training batches that make batch norm's statistics anew at the end; 0 = off
	Distill           *Distill
	Oscillation       *Oscillation
}

// Lowering is a precision and when it begins.
type Lowering struct {
	At        float64
	Precision string // as quant.ParsePrecision reads it
}

// Distill adds the float32 model's answers to the labels (arXiv:1503.02531):
//
//	loss = (1-Weight)*cross-entropy + Weight*Temperature^2*KL(softmax(teacher/Temperature) || softmax(student/Temperature))
type Distill struct {
	Weight      float64
	Temperature float64
}

// Oscillation follows weights that jump to and fro between two codes (arXiv:2203.11086); with both settings zero it counts
// them and no more.
type Oscillation struct {
	Damping     float64 // weight of the loss that pulls masters to the middle of their bins
	FreezeAbove float64 // weights that turn back in more than this part of the steps stay at their average code
}

func newSchedules() Schedules { return Schedules{FreezeRangesAfter: 0.8, FreezeBNAfter: 0.5} }

func (s *Schedules) scheduleFields() []field {
	return []field{
		{key: "freeze_ranges_after", value: number{p: &s.FreezeRangesAfter, max: 1}},
		{key: "freeze_bn_after", value: number{p: &s.FreezeBNAfter, max: 1}},
		{key: "delay", value: number{p: &s.Delay, max: 1, openMax: true}},
		{key: "lower", value: lowerings{&s.Lower}},
		{key: "ema", value: number{p: &s.EMA, max: 1, openMax: true}},
		{key: "bn_reestimate", value: whole{&s.BNReestimate, 0, 1 << 20}},
		{key: "distill", value: optional[Distill, *Distill]{&s.Distill, newDistill}},
		{key: "oscillation", value: optional[Oscillation, *Oscillation]{&s.Oscillation, newOscillation}},
	}
}

func newDistill() *Distill { return &Distill{Weight: 0.5, Temperature: 4} }

func (s *Distill) fields() []field {
	return []field{
		{key: "weight", value: number{p: &s.Weight, max: 1, openMin: true}},
		{key: "temperature", value: number{p: &s.Temperature, max: 100, openMin: true}},
	}
}

func (s *Distill) later() map[string]string {
	return map[string]string{"teacher": "the teacher is the float32 model that the run has trained", "alpha": "write weight", "t": "write temperature"}
}

func newOscillation() *Oscillation { return &Oscillation{} }

func (s *Oscillation) fields() []field {
	return []field{
		{key: "damping", value: number{p: &s.Damping, max: 1000000}},
		{key: "freeze_above", value: number{p: &s.FreezeAbove, max: 1, openMax: true}},
	}
}

func (s *Oscillation) later() map[string]string {
	return map[string]string{"threshold": "weights are counted above 0.005, as the paper does; freeze_above stops them"}
}

// lowerings is the list of precisions from wide to narrow.
type lowerings struct{ p *[]Lowering }

// maxLowerings bounds the list: there are not more widths.
const maxLowerings = 16

func (v lowerings) allowed() string {
	return "a list such as [{at: 0, precision: w8a8}, {at: 0.4, precision: w4a4}]"
}

func (v lowerings) decode(d *decoder, path string, n *yaml.Node) {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 || len(n.Content) > maxLowerings {
		p := d.report(n, path, "is %s", describe(n))
		if n.Kind == yaml.SequenceNode {
			p.Message = fmt.Sprintf("is a list of %d", len(n.Content))
		}
		p.Allowed = v.allowed()
		return
	}
	out := make([]Lowering, len(n.Content))
	for i, item := range n.Content {
		item = resolve(item)
		at := fmt.Sprintf("%s[%d]", path, i)
		d.at[at] = item
		d.section(at, item, item, &out[i])
	}
	*v.p = out
}

func (v lowerings) encode() *yaml.Node {
	if len(*v.p) == 0 {
		return nil
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for i := range *v.p {
		m := mapping((*v.p)[i].fields())
		m.Style = yaml.FlowStyle
		list.Content = append(list.Content, m)
	}
	return list
}

func (s *Lowering) fields() []field {
	return []field{
		{key: "at", value: number{p: &s.At, max: 1, openMax: true}, required: true},
		{key: "precision", value: precisionName{&s.Precision}, required: true},
	}
}

func (s *Lowering) later() map[string]string {
	return map[string]string{"bits": "write precision: w4a4", "epoch": "write at: the fraction of the steps", "step": "write at: the fraction of the steps"}
}

// precisionName is the name of an integer precision.
type precisionName struct{ p *string }

func (v precisionName) allowed() string { return "int8 to int2, or wXaY such as w4a8" }

func (v precisionName) decode(d *decoder, path string, n *yaml.Node) {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		d.report(n, path, "is %s", describe(n)).Allowed = v.allowed()
		return
	}
	p, err := quant.ParsePrecision(n.Value)
	if err != nil {
		d.report(n, path, "%v", err)
		return
	}
	if !p.IsInteger() || p.Weight.Bits() > 8 || p.Act.Bits() > 8 {
		d.report(n, path, "%s is no grid of at most 8 bits", p).Allowed = v.allowed()
		return
	}
	*v.p = n.Value
}

func (v precisionName) encode() *yaml.Node { return scalar("!!str", *v.p) }

// schedules checks what no single schedule can.
func (d *decoder) schedules(c *Config) {
	if d.failed("qat") {
		return
	}
	q := c.QAT
	if q.Distill != nil && q.Start == ScratchStart {
		d.reportAt("qat.distill", "learns from the float model, and start: scratch trains none").Hint = "remove it, or use start: ptq"
	}
	if q.Distill != nil && c.Train.Loss != "cross_entropy" {
		d.reportAt("qat.distill", "softens the labels of a cross-entropy, and train.loss is %s", c.Train.Loss).Hint = "use train.loss: cross_entropy, or remove it"
	}
	if q.BNReestimate > 0 && !d.failed("model") && !hasNorm(c.Model) {
		d.reportAt("qat.bn_reestimate", "has no effect: no layer has batch norm").Hint = "remove it"
	}
	d.lowering(q)
	if c.Quant == nil || d.failed("quant") {
		return
	}
	if s := c.Quant.Calibration; q.Delay > 0 && (s.Equalize || s.BiasCorrection || s.Rounding != "nearest") {
		d.reportAt("qat.delay", "trains the float32 weights on, and quant.calibration changes them for good before that").Hint =
			"remove delay, or equalize, bias_correction and rounding"
	}
	if q.Oscillation != nil && !c.Quant.Weight.Format.IsInteger() {
		d.reportAt("qat.oscillation", "has no effect on weights in %s", c.Quant.Weight.Format).Hint = "16-bit floats have no codes to jump between: remove it"
	}
	if len(q.Lower) > 0 && !c.Quant.Weight.Format.IsInteger() {
		d.reportAt("qat.lower", "ends in integers, and the weights are in %s", c.Quant.Weight.Format).Hint = "remove it, or use integer formats"
	}
}

// lowering checks that precisions come in order, each narrower than the one before.
func (d *decoder) lowering(q *QAT) {
	var last quant.Precision
	for i, l := range q.Lower {
		at := fmt.Sprintf("qat.lower[%d]", i)
		p, err := quant.ParsePrecision(l.Precision)
		if err != nil {
			continue // reported when it was read
		}
		switch {
		case i == 0 && l.At != q.Delay:
			d.reportAt(at+".at", "is %s, and quantization starts at %s", plain(l.At), plain(q.Delay)).Hint = fmt.Sprintf("write at: %s, the value of qat.delay, or 0 without it", plain(q.Delay))
		case i > 0 && l.At <= q.Lower[i-1].At:
			d.reportAt(at+".at", "is %s, not after %s of the entry before", plain(l.At), plain(q.Lower[i-1].At))
		case i > 0 && (p == last || p.Weight.Bits() > last.Weight.Bits() || p.Act.Bits() > last.Act.Bits()):
			d.reportAt(at+".precision", "%s is not narrower than %s before it", p, last)
		}
		last = p
	}
}

func hasNorm(layers []Layer) bool {
	for _, l := range layers {
		if l.Conv != nil && l.Conv.Norm == "batch" || l.Dense != nil && l.Dense.Norm == "batch" {
			return true
		}
	}
	return false
}
