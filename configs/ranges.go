package configs

import (
	"errors"
	"fmt"

	"github.com/narrow-ml/narrow/quant"
)

// tensors checks what each tensor's settings mean together, and with training.
func (d *decoder) tensors(c *Config) {
	q := c.Quant
	if d.failed("quant") {
		return
	}
	w, a := q.Weight.over(c.standard(weightRole, q.Weight.Format)), q.Act.over(c.standard(actRole, q.Act.Format))
	d.tensor("quant.weight", &q.Weight, w, c.QAT != nil)
	if r := q.Weight.Rounding; r != 0 && !r.Nearest() {
		const why = "puts weights on codes, and quant.weight.rounding: %s would not give these codes back"
		if q.Calibration.Rounding != "nearest" {
			d.reportAt("quant.calibration.rounding", q.Calibration.Rounding+" "+why, r).Hint = "use rounding: half-even for the weights"
		}
		if c.QAT != nil && c.QAT.Oscillation != nil && c.QAT.Oscillation.FreezeAbove > 0 {
			d.reportAt("qat.oscillation.freeze_above", why, r).Hint = "use rounding: half-even for the weights"
		}
	}
	d.tensor("quant.act", &q.Act, a, c.QAT != nil)
	d.dorefa(c)
	for i, r := range q.Rules {
		at := fmt.Sprintf("quant.rules[%d].", i)
		if s := c.ruled(r.Weight, q.Weight, w, weightRole); s != nil {
			d.tensor(at+"weight", r.Weight, *s, c.QAT != nil)
		}
		if s := c.ruled(r.Act, q.Act, a, actRole); s != nil {
			d.tensor(at+"act", r.Act, *s, c.QAT != nil)
		}
	}
}

// tensor reports a combination of settings that no tensor can have, and range methods that look at all calibration data at
// once where training follows, which sees a batch at a time.
func (d *decoder) tensor(path string, t *TensorQuant, s quant.Spec, trains bool) {
	if !s.Format.IsInteger() {
		return
	}
	if t.Range == quant.Constant && t.Max == 0 {
		d.reportAt(join(path, "range"), "constant needs max").Hint = "add max, the largest magnitude, for example 1"
		return
	}
	if err := s.Validate(); err != nil {
		d.reportAt(path, "%v", err)
		return
	}
	if s.Range == quant.DoReFa && s.Per != quant.PerTensor {
		at := join(path, "per")
		if !d.given(at) {
			at = join(path, "range")
		}
		d.reportAt(at, "dorefa divides by the largest |tanh w| of the whole tensor: its scale is not per %s", s.Per).Hint = "use per: tensor"
		return
	}
	if s.Format == quant.Int16 && s.Scheme == quant.Affine {
		d.reportAt(join(path, "scheme"), "16-bit activations have zero point 0").Hint = "use symmetric, or remove it"
		return
	}
	if !trains || !s.Range.Calibrated() || !d.given(join(path, "range")) {
		return
	}
	instead := "envelope, ema or lsq"
	if s.Signed {
		instead = "minmax or lsq"
	}
	d.reportAt(join(path, "range"), "%s finds a range once, from calibration data, and the qat section trains on", s.Range).Hint =
		fmt.Sprintf("use %s here and quant.calibration.method: %s for the start", instead, s.Range)
}

// dorefa reports what does not go with weights that are coded through tanh: their codes stand for other values than the
// masters, to which a float model must be trained, and from which no pass gets the masters back.
func (d *decoder) dorefa(c *Config) {
	q := c.Quant
	at := ""
	if q.Weight.Range == quant.DoReFa {
		at = "quant.weight.range"
	}
	for i, r := range q.Rules {
		if at == "" && r.Weight != nil && r.Weight.Range == quant.DoReFa {
			at = fmt.Sprintf("quant.rules[%d].weight.range", i)
		}
	}
	if at == "" {
		return
	}
	if c.QAT == nil && !d.given("qat") {
		d.reportAt(at, "dorefa codes tanh(w), which changes what the network computes until it is trained").Hint = "add a qat section, or use minmax or mse"
		return
	}
	const hint = "remove it, or use range: lsq"
	refuse := func(on bool, at string) {
		if on {
			d.reportAt(at, "needs codes that stand for the weights, and dorefa codes tanh(w)").Hint = hint
		}
	}
	refuse(q.Calibration.Rounding != "nearest", "quant.calibration.rounding")
	refuse(q.Calibration.Equalize, "quant.calibration.equalize")
	refuse(q.Calibration.BiasCorrection, "quant.calibration.bias_correction")
	if c.QAT != nil && c.QAT.Oscillation != nil {
		refuse(c.QAT.Oscillation.Damping > 0, "qat.oscillation.damping")
		refuse(c.QAT.Oscillation.FreezeAbove > 0, "qat.oscillation.freeze_above")
	}
}

// CheckPTQ reports settings that make no sense without training.
func (c *Config) CheckPTQ() error {
	if !c.Quant.uses(quant.DoReFa) {
		return nil
	}
	return errors.New("range: dorefa codes tanh(w), which changes what the network computes until it is trained: train it, use minmax or mse, or compare methods: [qat]")
}
