package layers

import (
	"fmt"
	"math"

	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/model"
)

// Init fills the parameters of m with PyTorch's default start: weight and bias of a layer uniform in [-k, k] with
// k = 1/sqrt(fan_in), gamma and running variance 1, beta and running mean 0. The numbers of a parameter depend on the
// seed and on the parameter's place in m.ParamNames alone.
func Init(m *model.Model, seed uint64) error { return InitRange(m, seed, 0) }

// InitRange is Init with weights uniform in [-bound, bound]; a bound of 0 is Init's.
func InitRange(m *model.Model, seed uint64, bound float64) error {
	fanIn := map[string]int{}
	for i := range m.Nodes {
		n := &m.Nodes[i]
		if !n.Op.HasWeight() {
			continue
		}
		w := m.Params[n.Param(model.Weight)]
		if w == nil || n.Attr.Units < 1 {
			return fmt.Errorf("init: %s %q has no weight: run model.Shapes first", n.Op, n.Layer)
		}
		f := w.Shape.Size() / n.Attr.Units
		fanIn[n.Param(model.Weight)], fanIn[n.Param(model.Bias)] = f, f
	}
	for i, name := range m.ParamNames() {
		data := m.Params[name].Data
		f, random := fanIn[name]
		if !random {
			one := hasRole(name, model.Gamma) || hasRole(name, model.Var)
			for k := range data {
				data[k] = 0
				if one {
					data[k] = 1
				}
			}
			continue
		}
		k := float32(1 / math.Sqrt(float64(f)))
		if bound > 0 && hasRole(name, model.Weight) {
			k = float32(bound)
		}
		s := rng.New(seed, rng.Init, uint64(i))
		for i := range data {
			data[i] = k * (2*s.Float32() - 1)
		}
	}
	return nil
}

// hasRole reports whether name is a layer's name followed by role.
func hasRole(name, role string) bool {
	return len(name) > len(role) && name[len(name)-len(role)-1:] == "."+role
}
