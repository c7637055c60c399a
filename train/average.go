package train

import (
	"fmt"

	"github.com/narrow-ml/narrow/export/safetensors"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// average is the exponential moving average of all that training moves: parameters, learned scales and batch norm's running
// statistics. Codes are made of the averaged masters and scales afterwards, as they are of any others; ranges that follow
// batches are averages already and stay as they are.
type average struct {
	decay  float64
	names  []string
	live   [][]float32 // the model's own memory
	values [][]float32
	ranges []*quant.Params // learned: scales and zero points follow
	steps  int
}

const averagePrefix = "average/"

// newAverage starts at the model's values.
func newAverage(decay float64, m *model.Model) *average {
	a := &average{decay: decay}
	add := func(name string, live []float32) {
		a.names, a.live = append(a.names, name), append(a.live, live)
		a.values = append(a.values, append([]float32(nil), live...))
	}
	for _, name := range m.ParamNames() {
		add(paramPrefix+name, m.Params[name].Data)
	}
	seen := map[*quant.Params]bool{}
	for _, name := range m.QuantNames() {
		q := m.Quant[name]
		kinds := q.Spec.Range.Learned()
		if seen[q] || len(kinds) == 0 {
			continue
		}
		seen[q] = true
		a.ranges = append(a.ranges, q)
		for _, kind := range kinds {
			add(kind.String()+"/"+name, q.Numbers(kind))
		}
	}
	return a
}

// update takes in the values after a step. The first steps count more, so that the start is soon forgotten: after step t,
// counted from 0, the average keeps min(decay, (1+t)/(10+t)) of itself.
func (a *average) update() {
	if a == nil {
		return
	}
	keep := min(a.decay, float64(1+a.steps)/float64(10+a.steps))
	a.steps++
	weight := float32(1 - keep)
	for i, live := range a.live {
		values := a.values[i]
		for k, v := range live {
			values[k] += float32(weight * (v - values[k]))
		}
	}
}

// swap exchanges the model's values and the averages.
func (a *average) swap() {
	if a == nil {
		return
	}
	for i, live := range a.live {
		for k, v := range a.values[i] {
			live[k], a.values[i][k] = v, live[k]
		}
	}
	for _, q := range a.ranges {
		q.Settle()
	}
}

func (a *average) tensors() []safetensors.Tensor {
	if a == nil {
		return nil
	}
	var out []safetensors.Tensor
	for i, name := range a.names {
		out = append(out, safetensors.Float32(averagePrefix+name, []int{len(a.values[i])}, a.values[i]))
	}
	return out
}

// restore reads what tensors wrote after the given number of steps.
func (a *average) restore(byName map[string]safetensors.Tensor, steps int) error {
	if a == nil {
		return nil
	}
	a.steps = steps
	for i, name := range a.names {
		if err := float32s(byName, averagePrefix+name, a.values[i]); err != nil {
			return fmt.Errorf("average: %w", err)
		}
	}
	return nil
}
