package layers

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/model"
)

// The ways to compute the gradients of the weights and inputs of quantized conv and dense layers.
const (
	BackwardFloat = "float" // float32, on the values that codes stand for
	BackwardInt16 = "int16" // the output's gradient is rounded to 16 bits; products are integers: kernel.Backward16
)

// Backwards lists the values of [Options].Backward.
func Backwards() []string { return []string{BackwardFloat, BackwardInt16} }

func validBackward(m *model.Model, o Options) error {
	switch o.Backward {
	case "", BackwardFloat:
		return nil
	case BackwardInt16:
		if m.Stage != model.Quantized || !hasIntegers(m) {
			return errors.New("an int16 backward pass needs layers on integers, and this model has none: use the float one")
		}
		return nil
	}
	return fmt.Errorf("unknown backward pass %q (allowed: %s)", o.Backward, strings.Join(Backwards(), ", "))
}

func hasIntegers(m *model.Model) bool {
	for i := range m.Nodes {
		if isInteger(m, &m.Nodes[i]) {
			return true
		}
	}
	return false
}

// isInteger reports a conv or dense layer on integers: weights and input.
func isInteger(m *model.Model, n *model.Node) bool {
	if !n.Op.HasWeight() {
		return false
	}
	w, in := m.Quant[n.Param(model.Weight)], m.Quant[n.In[0]]
	return w != nil && w.Spec.Format.IsInteger() && in != nil && in.Spec.Format.IsInteger()
}

// IntegerBackward says whether node n of a placed model, in batches of the given size, has a backward pass on integers
// when [Options].Backward asks for one. An error is the reason why it stays on float32.
func IntegerBackward(m *model.Model, n *model.Node, batch int) error {
	if !isInteger(m, n) {
		return errors.New("not on integers")
	}
	in, ok := m.ShapeOf(n.In[0])
	if !ok {
		return fmt.Errorf("%q has no shape", n.In[0])
	}
	g, err := geometry(n, in)
	if err == nil {
		_, err = planBackward(m, n, g, batch, trainedBefore(m, n.In[0]))
	}
	return err
}

// trainedBefore reports whether tensor name depends on anything trained.
func trainedBefore(m *model.Model, name string) bool {
	n := m.Node(name)
	if n == nil {
		return false
	}
	if n.Op.HasWeight() {
		return true
	}
	for _, in := range n.In {
		if trainedBefore(m, in) {
			return true
		}
	}
	return false
}

// planBackward plans the integer backward pass of a quantized layer.
func planBackward(m *model.Model, n *model.Node, g kernel.ConvGeom, batch int, needDX bool) (*kernel.Backward16, error) {
	if n.Op != model.Dense {
		batch = 0
	}
	lo, hi := m.Quant[n.In[0]].Spec.Grid()
	_, top := m.Quant[n.Param(model.Weight)].Spec.Grid()
	if m.Wide(n) || hi-lo > math.MaxUint8 || top > math.MaxInt8 {
		return nil, errors.New("codes of more than 8 bits")
	}
	return kernel.NewBackward16(g, batch, hi-lo, top, needDX)
}
