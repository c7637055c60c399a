package configs

import (
	"fmt"
	"slices"
	"strings"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// Advice is a setting that is allowed and known to go badly with another. docs/guide.md has the measurements.
type Advice struct {
	Rule    string   `json:"rule"`             // its name in the table below
	Layers  []string `json:"layers,omitempty"` // those concerned; empty: the run as a whole
	Problem string   `json:"problem"`
	Instead string   `json:"instead"`
}

// String is one line.
func (a Advice) String() string {
	where := ""
	if len(a.Layers) > 0 {
		where = strings.Join(a.Layers, ", ") + ": "
	}
	return where + a.Problem + "; " + a.Instead
}

// Advice looks for known bad pairs in what the config does to m, its model with quantizers placed ([model.Place]).
// examples is the size of the training split before validation is cut off, 0 if unknown. A float model has none.
func (c *Config) Advice(m *model.Model, examples int) []Advice {
	if m.Stage == model.Float || !m.Precision.IsInteger() {
		return []Advice{}
	}
	p := &pairing{c: c, m: m}
	if c.Dataset.Limit > 0 {
		examples = min(examples, c.Dataset.Limit)
	}
	p.examples = int(float64(examples) * (1 - c.Dataset.ValFraction))
	if c.QAT != nil {
		p.steps = int(c.QAT.Epochs * float64(p.examples) / float64(c.Dataset.Batch))
	}
	out := []Advice{}
	for _, r := range badPairs() {
		if layers, bad := r.found(p); bad {
			out = append(out, Advice{r.name, layers, r.problem, r.instead})
		}
	}
	return out
}

// pairing is what the rules look at.
type pairing struct {
	c        *Config
	m        *model.Model
	examples int // trained on, 0 if unknown
	steps    int // of quantization-aware training, 0 if there is none or the number is unknown
}

// weights lists the layers whose weight satisfies a condition.
func (p *pairing) weights(bad func(n *model.Node, s quant.Spec) bool) []string {
	var out []string
	for i := range p.m.Nodes {
		n := &p.m.Nodes[i]
		if n.Op.HasWeight() && bad(n, p.m.Quant[n.Param(model.Weight)].Spec) {
			out = append(out, n.Layer)
		}
	}
	return out
}

// size is the number of weights of a layer, total that of all layers.
func (p *pairing) size(n *model.Node) int { return len(p.m.Params[n.Param(model.Weight)].Data) }

func (p *pairing) total() int {
	sum := 0
	p.weights(func(n *model.Node, _ quant.Spec) bool { sum += p.size(n); return false })
	return sum
}

// acts lists the layers whose output has a quantizer of its own that satisfies a condition.
func (p *pairing) acts(bad func(n *model.Node, s quant.Spec) bool) []string {
	var out []string
	for i := range p.m.Nodes {
		n := &p.m.Nodes[i]
		if q := p.m.Quant[n.Name]; n.Op.HasQuantizer() && q != nil && bad(n, q.Spec) {
			out = append(out, n.Layer)
		}
	}
	return out
}

// some is what a rule about layers found.
func some(layers []string) ([]string, bool) { return layers, len(layers) > 0 }

// badPair is a row of the table. found says whether it is there, and in which layers.
type badPair struct {
	name, problem, instead string
	found                  func(*pairing) ([]string, bool)
}

// Limits of the rules.
const (
	emaSteps       = 700 // the first range is worth less than 0.1 % of a moving average with weight 0.01 (D7)
	fewExamples    = 64  // to take the outermost values of
	fewWeights     = 0.1 // of the network's
	outliersWanted = 100 // values that a percentile should leave out for its place to mean something
)

// badPairs is the table.
func badPairs() []badPair {
	return []badPair{
		{
			"depthwise-per-tensor", "one weight scale for all channels of a depthwise convolution, whose channels differ most",
			"use per: channel",
			func(p *pairing) ([]string, bool) {
				return some(p.weights(func(n *model.Node, s quant.Spec) bool { return n.Attr.Groups > 1 && s.Per == quant.PerTensor }))
			},
		},
		{
			"two-bit-absmax", "2-bit weights on a grid as wide as the largest of them: nearly all become 0",
			"use range: lsq, or levels: even",
			func(p *pairing) ([]string, bool) {
				return some(p.weights(func(_ *model.Node, s quant.Spec) bool {
					return p.c.QAT != nil && s.Format.Bits() == 2 && s.Range == quant.MinMax && !s.Even
				}))
			},
		},
		{
			"ptq-absmax-low", "weights below 4 bits calibrated by minmax lose most of what they knew",
			"use calibration method auto or mse, rounding adaround, or quantization-aware training",
			func(p *pairing) ([]string, bool) {
				if p.c.QAT != nil || p.c.Calibration().Method != "minmax" {
					return nil, false
				}
				return some(p.weights(func(_ *model.Node, s quant.Spec) bool { return s.Format.Bits() < 4 }))
			},
		},
		{
			"ptq-two-bit", "2-bit weights without training for them lose tens of points",
			"add a qat section, or rounding: adaround with bias_correction: true",
			func(p *pairing) ([]string, bool) {
				if p.c.QAT != nil || p.c.Calibration().Rounding != "nearest" {
					return nil, false
				}
				return some(p.weights(func(_ *model.Node, s quant.Spec) bool { return s.Format.Bits() == 2 }))
			},
		},
		{
			"ends-low", "the first and the last layer have few weights and much to say, and are below 4 bits",
			"rules with format: int8 for them cost few bytes",
			func(p *pairing) ([]string, bool) {
				all := p.weights(func(*model.Node, quant.Spec) bool { return true })
				return some(p.weights(func(n *model.Node, s quant.Spec) bool {
					end := len(all) > 2 && (n.Layer == all[0] || n.Layer == all[len(all)-1])
					return end && s.Format.Bits() < 4 && float64(p.size(n)) < fewWeights*float64(p.total())
				}))
			},
		},
		{
			"ema-short", "a moving average of ranges has not forgotten its start when training ends, and clips what has grown",
			"use range: envelope or lsq, or train longer",
			func(p *pairing) ([]string, bool) {
				if p.steps == 0 || p.steps >= emaSteps {
					return nil, false
				}
				return some(p.acts(func(_ *model.Node, s quant.Spec) bool { return s.Range == quant.EMA }))
			},
		},
		{
			"minmax-training", "the range of an activation that is trained never shrinks: one outlier widens it for good",
			"use range: envelope or lsq",
			func(p *pairing) ([]string, bool) {
				if p.c.QAT == nil {
					return nil, false
				}
				return some(p.acts(func(_ *model.Node, s quant.Spec) bool { return s.Range == quant.MinMax }))
			},
		},
		{
			"symmetric-relu", "symmetric activations behind a ReLU leave half of their codes unused: a bit is lost",
			"use scheme: affine",
			func(p *pairing) ([]string, bool) {
				return some(p.acts(func(n *model.Node, s quant.Spec) bool { return n.Attr.Relu && s.Scheme == quant.Symmetric }))
			},
		},
		{
			"percentile-few", "the calibration examples hold too few values for this percentile: it is their maximum or a matter of chance",
			"raise calibration.examples, or use method mse",
			func(p *pairing) ([]string, bool) {
				c := p.c.Calibration()
				if c.Method != "percentile" {
					return nil, false
				}
				return some(p.acts(func(n *model.Node, _ quant.Spec) bool {
					return float64(n.Shape.Size()*c.Examples)*(100-c.Percentile)/100 < outliersWanted
				}))
			},
		},
		{
			"calibration-few", fmt.Sprintf("fewer than %d calibration examples show too little of the ranges", fewExamples),
			"raise calibration.examples",
			func(p *pairing) ([]string, bool) { return nil, p.c.Calibration().Examples < fewExamples },
		},
		{
			"rate-above-float", "quantization-aware training starts at a higher learning rate than float training did, and undoes it",
			"use half of train.lr or less",
			func(p *pairing) ([]string, bool) {
				return nil, p.c.QAT != nil && p.c.QAT.Optimizer == p.c.Train.Optimizer && p.c.QAT.LR > p.c.Train.LR
			},
		},
		{
			"scale-step-linear", "learned scales take steps of one size, whatever theirs is: small scales jump, large ones hardly move",
			"use scale_step: log",
			func(p *pairing) ([]string, bool) {
				if p.c.QAT == nil || p.c.QAT.ScaleStep != quant.StepLinear || p.c.QAT.ScaleLR < p.c.QAT.LR {
					return nil, false
				}
				learned := func(_ *model.Node, s quant.Spec) bool { return s.Range.Learns() }
				return nil, slices.Concat(p.weights(learned), p.acts(learned)) != nil
			},
		},
	}
}
