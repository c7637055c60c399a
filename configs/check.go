package configs

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/narrow-ml/narrow/quant"
)

// newConfig holds the defaults that depend on nothing else; finish adds the others.
func newConfig() *Config {
	return &Config{
		Seed:    1,
		Dataset: Dataset{Batch: 64, ValFraction: 0.1},
		Train:   Train{Solver: Solver{Optimizer: "adam", Schedule: "constant"}, Loss: "cross_entropy"},
		Compare: Compare{Precisions: []string{"fp32", "int8"}, Seeds: 3, Split: "test"},
	}
}

func newQuant() *Quant {
	w, a := quant.WeightSpec(quant.Int8), quant.ActSpec(quant.Int8)
	return &Quant{
		Input:       bytesInput,
		Target:      quant.ONNX,
		Weight:      TensorQuant{Format: w.Format, Scheme: w.Scheme, Per: w.Per, Rounding: w.Rounding},
		Act:         TensorQuant{Format: a.Format, Scheme: a.Scheme, Per: a.Per, Levels: fullLevels},
		Calibration: newCalibration(),
	}
}

func newCalibration() Calibration {
	return Calibration{Examples: 1024, Method: "auto", Percentile: 99.99, Rounding: "nearest"}
}

// settle falls back to minmax where there is no validation split for auto to choose on.
func (c *Calibration) settle(valFraction float64) {
	if valFraction == 0 {
		c.Method = "minmax"
	}
}

// Calibration is the quant.calibration section, or its defaults in a config without a quant section.
func (c *Config) Calibration() Calibration {
	if c.Quant != nil {
		return c.Quant.Calibration
	}
	out := newCalibration()
	out.settle(c.Dataset.ValFraction)
	return out
}

func newQAT() *QAT {
	return &QAT{
		Start: "ptq", Epochs: 1, Solver: Solver{Schedule: "cosine"}, ScaleStep: quant.StepLog, ScaleGradient: quant.FactorLSQ, PACTDecay: 0.0001,
		Schedules: newSchedules(), Backward: "float", Fuse: true,
	}
}

// finish fills in the defaults that depend on other settings, then checks what no single setting can.
func (d *decoder) finish(c *Config) {
	if !d.given("name") {
		c.Name = nameFromFile(d.src.name)
	}
	d.layerNames(c.Model)
	d.branches(c.Model)
	d.lastLayer(c.Model)
	d.train(c)
	if c.Quant != nil {
		d.quant(c)
	}
	if c.QAT != nil {
		d.qat(c)
	}
	d.compare(c)
}

var notInName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// nameFromFile is the file's name without folder and extension, made into a legal name.
func nameFromFile(file string) string {
	base := filepath.Base(file)
	base = strings.TrimSuffix(base, filepath.Ext(base))
	base = strings.TrimLeft(notInName.ReplaceAllString(base, "-"), "._-")
	if base == "" {
		return "unnamed"
	}
	return base[:min(len(base), 100)]
}

// unused reports keys that have no effect beside their neighbours.
func (d *decoder) unused(path string, fields []field) {
	if d.failed(path) {
		return
	}
	for _, f := range fields {
		if at := join(path, f.key); f.only != "" && d.given(at) {
			n := d.keys[at]
			if _, ok := d.src.bySet[d.at[at]]; ok {
				n = d.at[at]
			}
			d.report(n, at, "has no effect here: it belongs to %s", f.only).Hint = "remove it"
		}
	}
}

// defaults fills in what depends on the layer's other settings.
func (l *Layer) defaults(d *decoder, path string) {
	after := func(bias *bool, norm string, eps, momentum *float64) {
		if !d.given(join(path, "bias")) {
			*bias = norm == "none"
		}
		if norm == "none" {
			return
		}
		if !d.given(join(path, "eps")) {
			*eps = 0.00001
		}
		if !d.given(join(path, "momentum")) {
			*momentum = 0.1
		}
	}
	switch {
	case l.Conv != nil:
		if !d.given(join(path, "pad")) {
			l.Conv.Pad = samePad(l.Conv.Kernel)
		}
		after(&l.Conv.Bias, l.Conv.Norm, &l.Conv.Eps, &l.Conv.Momentum)
	case l.Dense != nil:
		after(&l.Dense.Bias, l.Dense.Norm, &l.Dense.Eps, &l.Dense.Momentum)
	case l.MaxPool != nil:
		if !d.given(join(path, "stride")) {
			l.MaxPool.Stride = l.MaxPool.Size
		}
	}
}

// layerNames reports names used twice and names the unnamed by kind and position: conv1, dense1, pool1.
func (d *decoder) layerNames(layers []Layer) {
	first := map[string]int{}
	for i := range layers {
		name := layers[i].Name()
		if name == "" {
			continue
		}
		if j, ok := first[name]; ok {
			at := fmt.Sprintf("model[%d].%s.name", i, layers[i].Kind())
			d.reportAt(at, "layer name %q is used twice, first at %s", name, layers[j].Origin())
			continue
		}
		first[name] = i
	}
	count := map[string]int{}
	for i := range layers {
		kind := layers[i].Kind()
		if kind == "maxpool" {
			kind = "pool"
		}
		count[kind]++
		if layers[i].Kind() == "" || layers[i].Name() != "" {
			continue
		}
		name := fmt.Sprintf("%s%d", kind, count[kind])
		for _, taken := first[name]; taken; _, taken = first[name] {
			count[kind]++
			name = fmt.Sprintf("%s%d", kind, count[kind])
		}
		first[name] = i
		*layers[i].namePointer() = name
	}
}

// lastLayer checks that the model ends in logits: one float32 number per class.
func (d *decoder) lastLayer(layers []Layer) {
	if len(layers) == 0 || d.failed("model") {
		return
	}
	last := layers[len(layers)-1]
	at := fmt.Sprintf("model[%d].%s", len(layers)-1, last.Kind())
	const logits = "the last layer gives one number per class: end with - dense: {units: CLASSES}"
	if last.Dense == nil {
		d.reportAt(at, "the model ends in a %s layer", last.Kind()).Hint = logits
		return
	}
	if last.Dense.Act != "none" {
		d.reportAt(at+".act", "the last layer must not have act: %s", last.Dense.Act).Hint = "the loss needs the logits as they are: remove it"
	}
}

// solver fills in what the optimizer and the schedule need. from, if not nil, is where unset constants come from when
// the optimizer is the same.
func (d *decoder) solver(path string, s *Solver, from *Solver) {
	set := func(key string, p *float64, v float64) {
		if !d.given(join(path, key)) {
			*p = v
		}
	}
	if s.Optimizer == "" && from != nil {
		s.Optimizer = from.Optimizer
	}
	base := Solver{LR: 0.001, Beta1: 0.9, Beta2: 0.999, Eps: 0.00000001}
	switch s.Optimizer {
	case "adamw":
		base.WeightDecay = 0.01
	case "sgd":
		base = Solver{LR: 0.01, Momentum: 0.9}
	}
	if from != nil {
		if from.Optimizer == s.Optimizer {
			base = *from
		}
		base.LR = from.LR / 2
	}
	set("lr", &s.LR, base.LR)
	set("momentum", &s.Momentum, base.Momentum)
	set("weight_decay", &s.WeightDecay, base.WeightDecay)
	set("beta1", &s.Beta1, base.Beta1)
	set("beta2", &s.Beta2, base.Beta2)
	set("eps", &s.Eps, base.Eps)
	if !d.given(join(path, "nesterov")) {
		s.Nesterov = base.Nesterov
	}
	if s.Schedule == "step" {
		set("step_gamma", &s.StepGamma, 0.1)
		if !d.given(join(path, "step_every")) {
			s.StepEvery = 1
		}
	}
}

func (d *decoder) checkSolver(path string, s *Solver) {
	if d.failed(path) {
		return
	}
	if s.Nesterov && s.Momentum == 0 {
		d.reportAt(join(path, "nesterov"), "needs momentum above 0")
	}
	if s.MinLR > s.LR {
		d.reportAt(join(path, "min_lr"), "is %s, above lr %s: the schedule would rise", plain(s.MinLR), plain(s.LR))
	}
}

func (d *decoder) train(c *Config) {
	d.solver("train", &c.Train.Solver, nil)
	d.unused("train", c.Train.fields())
	d.checkSolver("train", &c.Train.Solver)
	if c.Train.EarlyStop > 0 && c.Dataset.ValFraction == 0 && !d.failed("train") {
		d.reportAt("train.early_stop", "watches the validation split, and val_fraction is 0").Hint = "set dataset.val_fraction, for example to 0.1"
	}
}

func (d *decoder) qat(c *Config) {
	q := c.QAT
	d.solver("qat", &q.Solver, &c.Train.Solver)
	if !d.given("qat.scale_lr") {
		q.ScaleLR = q.LR
		if q.ScaleStep == quant.StepLinear {
			q.ScaleLR = q.LR / 10
		}
	}
	q.pact = c.Quant.uses(quant.PACT)
	d.unused("qat", q.fields())
	d.checkSolver("qat", &q.Solver)
	if f := c.Precision(); q.Backward == "int16" && c.Quant != nil && !f.IsInteger() && !d.failed("quant") {
		d.reportAt("qat.backward", "int16 has no effect on a network in %s", c.Quant.Weight.Format).Hint = "its layers are not on integers: remove it, or use integer formats"
	}
	d.schedules(c)
	if c.Quant == nil && !d.given("quant") {
		d.reportAt("qat", "needs a quant section").Hint = "add quant: {} for the defaults: int8 weights and activations"
	}
}

func (d *decoder) quant(c *Config) {
	q := c.Quant
	if !d.given("quant.calibration.method") {
		q.Calibration.settle(c.Dataset.ValFraction)
	}
	d.binary("quant.weight", &q.Weight, quant.WeightSpec(quant.Binary))
	d.binary("quant.act", &q.Act, quant.ActSpec(quant.Binary))
	d.int16("quant.act", &q.Act)
	d.squashed("quant.weight", &q.Weight)
	d.unused("quant.weight", (&tensorSection{&q.Weight, weightRole, false}).fields())
	d.unused("quant.act", (&tensorSection{&q.Act, actRole, false}).fields())
	d.unused("quant.calibration", (&calibrationSection{&q.Calibration, q.usesPercentile()}).fields())
	q.Weight.settleGroup()
	for i, r := range q.Rules {
		r.Weight.settleGroup()
		if r.Weight != nil {
			d.squashed(fmt.Sprintf("quant.rules[%d].weight", i), r.Weight)
		}
	}
	if q.Input == actInput && q.Act.Range != quant.Constant && !d.failed("quant") {
		d.reportAt("quant.input", "act needs act.range: constant: nothing is computed before the input that a range could follow").Hint = "add range: constant and max to quant.act, or leave input out"
	}
	for i, r := range q.Rules {
		at := fmt.Sprintf("quant.rules[%d]", i)
		if r.Weight != nil {
			d.idle(at+".weight", *r.Weight, q.Weight)
		}
		if r.Act != nil {
			d.idle(at+".act", *r.Act, q.Act)
		}
	}
	d.tensors(c)
	if q.Weight.Levels == evenLevels && q.Calibration.Rounding != "nearest" && !d.failed("quant") {
		d.reportAt("quant.calibration.rounding", "%s chooses between neighbouring integers, and even levels are two apart", q.Calibration.Rounding).Hint = "use rounding: nearest"
	}
	q.Weight.clearFloat()
	q.Act.clearFloat()
	if !d.failed("quant") && mixes(q.Weight.Format, q.Act.Format) {
		at := "quant.act.format"
		if !d.given(at) {
			at = "quant.weight.format"
		}
		d.reportAt(at, "weights in %s and activations in %s do not go together", q.Weight.Format, q.Act.Format).Hint = "use integers for both, the same 16-bit float for both, or integer weights with fp16 activations"
	}
	for i, r := range q.Rules {
		if r.Act != nil && q.Weight.Format.IsInteger() && !q.Act.Format.IsInteger() && !d.failed("quant") {
			d.reportAt(fmt.Sprintf("quant.rules[%d].act", i), "has no effect where activations are %s", q.Act.Format).Hint = "remove it, or use integers for activations"
		}
	}
	if !q.Weight.Format.IsInteger() && !d.failed("quant") {
		const hint = "16-bit floats have no grid to choose on: remove it, or use integer formats"
		if q.Calibration.BiasCorrection {
			d.reportAt("quant.calibration.bias_correction", "has no effect on a network in %s", q.Weight.Format).Hint = hint
		}
		if q.Calibration.Rounding != "nearest" {
			d.reportAt("quant.calibration.rounding", "%s has no effect on a network in %s", q.Calibration.Rounding, q.Weight.Format).Hint = hint
		}
	}
	if !q.Weight.Format.IsInteger() && len(q.Rules) > 0 && !d.failed("quant") {
		d.reportAt("quant.rules", "have no effect on a network in %s", q.Weight.Format).Hint = "remove them, or use integer formats"
	}
	if q.Calibration.Method == "auto" && c.Dataset.ValFraction == 0 {
		d.reportAt("quant.calibration.method", "auto chooses on the validation split, and val_fraction is 0").Hint = "set dataset.val_fraction, for example to 0.1"
	}
	if !d.failed("model") && !d.failed("quant.rules") {
		d.ruleMatches(c)
	}
}

// mixes reports whether two formats cannot be one network: integers with floats, or two kinds of float.
func mixes(w, a quant.Format) bool {
	if w.IsInteger() && w.Bits() <= 8 && a == quant.FP16 {
		return false // weights alone
	}
	return w.IsInteger() != a.IsInteger() || !w.IsInteger() && w != a
}

// defaultGroup is the group of per: group.
const defaultGroup = 64

// settleGroup gives per: group its default extent.
func (t *TensorQuant) settleGroup() {
	if t != nil && t.Per == quant.PerGroup && t.Group == 0 {
		t.Group = defaultGroup
	}
}

// clearFloat removes what only integer formats have.
func (t *TensorQuant) clearFloat() {
	if !t.Format.IsInteger() {
		*t = TensorQuant{Format: t.Format}
	}
}

// ruleMatches reports rules that change nothing: their pattern matches no layer that is quantized by itself, an earlier
// rule takes all of its layers, or it sets what these layers do not have: the weights of a sum or mean, the grid of the
// logits, which stay float32.
func (d *decoder) ruleMatches(c *Config) {
	var names []string
	weights := map[string]bool{}
	for _, l := range c.Model {
		if l.hasOutput() {
			names = append(names, l.Name())
			weights[l.Name()] = l.hasWeights()
		}
	}
	taken := map[string]int{}
	for i, r := range c.Quant.Rules {
		at := fmt.Sprintf("quant.rules[%d].layer", i)
		var matched, won []string
		for _, name := range names {
			if ok, err := path.Match(r.Layer, name); err != nil || !ok {
				continue
			}
			matched = append(matched, name)
			if _, ok := taken[name]; !ok {
				taken[name] = i
				won = append(won, name)
			}
		}
		switch {
		case len(matched) == 0:
			p := d.reportAt(at, "%q matches no layer that is quantized by itself", r.Layer)
			p.Allowed = strings.Join(names, ", ")
			if near := nearest(r.Layer, names); near != "" {
				p.Hint = fmt.Sprintf("did you mean %q?", near)
			}
		case len(won) == 0:
			d.reportAt(at, "%q never applies: rules[%d] comes first and matches %s", r.Layer, taken[matched[0]], strings.Join(matched, ", ")).Hint = "first match wins: put the narrower rule first"
		case r.Weight != nil && !slices.ContainsFunc(won, func(name string) bool { return weights[name] }):
			d.reportAt(strings.TrimSuffix(at, "layer")+"weight", "%s has no weights", strings.Join(won, ", ")).Hint = "set act, the grid of its output"
		case r.Act != nil && len(won) == 1 && won[0] == names[len(names)-1]:
			d.reportAt(strings.TrimSuffix(at, "layer")+"act", "%q gives the logits, which stay float32", won[0]).Hint = "remove act"
		}
	}
}

func (d *decoder) compare(c *Config) {
	if !d.given("compare.methods") {
		c.Compare.Methods = nil
		if c.CheckPTQ() == nil {
			c.Compare.Methods = append(c.Compare.Methods, "ptq")
		}
		if c.QAT != nil {
			c.Compare.Methods = append(c.Compare.Methods, "qat")
		}
	}
	if d.failed("compare") {
		return
	}
	if c.Compare.Split == "validation" && c.Dataset.ValFraction == 0 {
		d.reportAt("compare.split", "there is no validation split: val_fraction is 0").Hint = "set dataset.val_fraction, for example to 0.1"
	}
	first := map[quant.Precision]string{}
	for i, s := range c.Compare.Precisions {
		p, err := quant.ParsePrecision(s)
		if err != nil {
			continue // reported when it was read
		}
		if before, ok := first[p]; ok {
			d.reportAt(fmt.Sprintf("compare.precisions[%d]", i), "%q is the same precision as %q", s, before)
			continue
		}
		first[p] = s
	}
	for i, m := range c.Compare.Methods {
		at := fmt.Sprintf("compare.methods[%d]", i)
		if slices.Index(c.Compare.Methods, m) < i {
			d.reportAt(at, "%q is listed twice", m)
		} else if m == "qat" && c.QAT == nil && !d.given("qat") {
			d.reportAt(at, "qat needs a qat section").Hint = "add qat: {} for the defaults"
		}
	}
}
