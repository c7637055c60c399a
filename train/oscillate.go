package train

import (
	"fmt"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/export/safetensors"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat"
	"github.com/narrow-ml/narrow/quant"
)

// oscillations follows all quantized weights of a graph, dampens them and freezes them, as the config says.
type oscillations struct {
	configs.Oscillation
	weights []oscillating
}

type oscillating struct {
	layers.Codes
	tracker *qat.Oscillation
	master  []float32
	grad    []float32
	learned []float32 // scales, where they are learned
}

const oscillationPrefix = "oscillation/"

// checkOscillation reports weights that oscillations cannot follow. c may be nil.
func checkOscillation(c *configs.Oscillation, m *model.Model) error {
	for _, name := range m.QuantNames() {
		s := m.Quant[name].Spec
		if c != nil && m.Params[name] != nil && (s.Per == quant.PerGroup || s.Format == quant.Int16) {
			return fmt.Errorf("qat.oscillation follows codes of at most 8 bits with a scale per channel or tensor, and %q is %s: remove it, or change quant.weight", name, s)
		}
	}
	return nil
}

// CheckQAT reports settings of the qat section that a model with placed quantizers cannot be trained with.
func CheckQAT(c *configs.Config, placed *model.Model) error {
	if c.QAT == nil {
		return nil
	}
	return checkOscillation(c.QAT.Oscillation, placed)
}

// newOscillations follows the weights of net, the graph of m; nil if the config does not ask for it or if there are no codes.
func newOscillations(c *configs.Oscillation, m *model.Model, net *layers.Net) (*oscillations, error) {
	codes := net.Codes()
	if c == nil {
		return nil, nil
	}
	if err := checkOscillation(c, m); err != nil {
		return nil, err
	}
	if len(codes) == 0 {
		return nil, nil
	}
	grads := map[string][]float32{}
	for _, t := range net.Trainables() {
		grads[t.Name] = t.Grad
	}
	o := &oscillations{Oscillation: *c}
	for _, w := range codes {
		o.weights = append(o.weights, oscillating{
			Codes: w, tracker: qat.NewOscillation(len(w.Codes), w.Spec),
			master: m.Params[w.Name].Data, grad: grads[w.Name], learned: m.Quant[w.Name].Scale,
		})
	}
	return o, nil
}

// damp adds the gradient of the damping loss at the part done of the steps. Its weight grows from nothing to the config's
// with a half cosine: early on weights must move freely (arXiv:2203.11086, section 5.2).
func (o *oscillations) damp(done float64) {
	if o == nil || o.Damping == 0 {
		return
	}
	strength := float64(o.Damping * float64((1-cosine(done))/2))
	for _, w := range o.weights {
		lo, hi := w.Spec.Grid()
		qat.Damp(w.grad, w.master, w.Codes.Codes, w.Scale, lo, hi, strength)
	}
}

// track takes in the codes of the step and keeps frozen weights where they are; it runs after the update.
func (o *oscillations) track() error {
	if o == nil {
		return nil
	}
	for _, w := range o.weights {
		if err := w.tracker.Observe(w.Codes.Codes, o.FreezeAbove); err != nil {
			return fmt.Errorf("weight %q: %w", w.Name, err)
		}
	}
	o.hold()
	return nil
}

// hold puts frozen masters on their codes. A scale that follows the master is that of the last step.
func (o *oscillations) hold() {
	if o == nil || o.FreezeAbove == 0 {
		return
	}
	for _, w := range o.weights {
		scale := w.learned
		if len(scale) == 0 {
			scale = w.Scale
		}
		w.tracker.Hold(w.master, scale)
	}
}

// count is what metrics.jsonl says; nil if nothing is followed.
func (o *oscillations) count() *oscillationCount {
	if o == nil {
		return nil
	}
	c := &oscillationCount{}
	for _, w := range o.weights {
		n, frozen := w.tracker.Count()
		c.Oscillating, c.Frozen, c.Weights = c.Oscillating+n, c.Frozen+frozen, c.Weights+len(w.master)
	}
	return c
}

func (o *oscillations) tensors() []safetensors.Tensor {
	if o == nil {
		return nil
	}
	var out []safetensors.Tensor
	for _, w := range o.weights {
		state := w.tracker.State()
		out = append(out, safetensors.Float32(oscillationPrefix+w.Name, []int{len(state)}, state))
	}
	return out
}

func (o *oscillations) restore(byName map[string]safetensors.Tensor) error {
	if o == nil {
		return nil
	}
	for _, w := range o.weights {
		t, ok := byName[oscillationPrefix+w.Name]
		if !ok || len(t.Shape) != 1 {
			return fmt.Errorf("oscillation of weight %q is missing", w.Name)
		}
		state := make([]float32, t.Shape[0])
		if err := t.Float32s(state); err != nil {
			return err
		}
		if err := w.tracker.Restore(state); err != nil {
			return fmt.Errorf("weight %q: %w", w.Name, err)
		}
	}
	return nil
}
