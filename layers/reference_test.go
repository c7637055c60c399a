package layers_test

import (
	"math"
	"testing"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// reference computes every tensor of a frozen integer model for one example in plain loops over int64: codes for
// quantized tensors, float32 for the logits.
func reference(t testing.TB, m *model.Model, x []uint8) (codes map[string][]int64, logits []float32) {
	t.Helper()
	codes = map[string][]int64{}
	in := make([]int64, len(x))
	for i, p := range x {
		in[i] = int64(p)
		if table := m.Inputs[0].InputTable(m.Quant[m.Inputs[0].Name]); table != nil {
			in[i] = int64(table[p])
		}
	}
	codes[m.Inputs[0].Name] = in
	for i := range m.Nodes {
		n := &m.Nodes[i]
		from := codes[n.In[0]]
		shape, _ := m.ShapeOf(n.In[0])
		_, zero := m.Quant[n.In[0]].At(0)
		switch n.Op {
		case model.Flatten:
			codes[n.Name] = from
		case model.ReLU:
			out := make([]int64, len(from))
			top := int64(255)
			if c := n.Attr.Cap; c > 0 {
				top = int64(min(255, float64(zero)+math.RoundToEven(float64(c/m.Quant[n.Name].Scale[0]))))
			}
			for k, q := range from {
				out[k] = min(max(q, int64(zero)), top)
			}
			codes[n.Name] = out
		case model.Add:
			other := codes[n.In[1]]
			_, otherZero := m.Quant[n.In[1]].At(0)
			out := make([]int64, len(from))
			for k, q := range from {
				a := float32(q-int64(zero)) * n.Requant.M[0]
				b := float32(other[k]-int64(otherZero)) * n.Requant.M[1]
				out[k] = int64(n.Requant.Round(a + b))
			}
			codes[n.Name] = out
		case model.GlobalAvgPool:
			out := make([]int64, shape[2])
			for k, q := range from {
				out[k%shape[2]] += q - int64(zero)
			}
			for c, sum := range out {
				out[c] = int64(n.Requant.Code(int32(sum), 0))
			}
			codes[n.Name] = out
		case model.MaxPool:
			codes[n.Name] = windows(n, shape, func(c int, at func(kh, kw, c int) (int, bool)) int64 {
				best := int64(0)
				for kh := range n.Attr.Kernel[0] {
					for kw := range n.Attr.Kernel[1] {
						if i, ok := at(kh, kw, c); ok {
							best = max(best, from[i])
						}
					}
				}
				return best
			})
		case model.Conv, model.Dense:
			acc := accumulators(m, n, shape, from, int64(zero))
			if n.Requant.Float {
				for k, a := range acc {
					logits = append(logits, n.Requant.Value(int32(a), k%n.Attr.Units))
				}
				continue
			}
			out := make([]int64, len(acc))
			for k, a := range acc {
				out[k] = int64(n.Requant.Code(int32(a), k%n.Attr.Units))
			}
			codes[n.Name] = out
		}
	}
	return codes, logits
}

func accumulators(m *model.Model, n *model.Node, in model.Shape, x []int64, zero int64) []int64 {
	w, bias := m.Params[n.Param(model.Weight)], m.Params[n.Param(model.Bias)]
	units := n.Attr.Units
	if n.Op == model.Dense {
		acc := make([]int64, units)
		for j := range acc {
			acc[j] = int64(bias.Int32[j])
			for k, q := range x {
				acc[j] += (q - zero) * int64(w.Codes[k*units+j])
			}
		}
		return acc
	}
	per, outPer := in[2]/n.Attr.Groups, units/n.Attr.Groups
	return windows(n, in, func(c int, at func(kh, kw, c int) (int, bool)) int64 {
		acc := int64(bias.Int32[c])
		for kh := range n.Attr.Kernel[0] {
			for kw := range n.Attr.Kernel[1] {
				for ci := range per {
					if i, ok := at(kh, kw, c/outPer*per+ci); ok {
						acc += (x[i] - zero) * int64(w.Codes[((kh*n.Attr.Kernel[1]+kw)*per+ci)*units+c])
					}
				}
			}
		}
		return acc
	})
}

// windows calls f for every output element; at gives the index of an input element under the window, if there is one.
func windows(n *model.Node, in model.Shape, f func(c int, at func(kh, kw, c int) (int, bool)) int64) []int64 {
	var out []int64
	for oy := range n.Shape[0] {
		for ox := range n.Shape[1] {
			for c := range n.Shape[2] {
				out = append(out, f(c, func(kh, kw, ci int) (int, bool) {
					y, x := oy*n.Attr.Stride[0]-n.Attr.Pad[0]+kh, ox*n.Attr.Stride[1]-n.Attr.Pad[1]+kw
					return (y*in[1]+x)*in[2] + ci, y >= 0 && y < in[0] && x >= 0 && x < in[1]
				}))
			}
		}
	}
	return out
}

// quantized places the specs of a precision and calibrates activations with the ranges that the float model shows.
func quantized(t testing.TB, m *model.Model, p quant.Precision, change func(*model.QuantConfig)) *model.Model {
	t.Helper()
	config := model.DefaultQuant(p)
	if change != nil {
		change(&config)
	}
	q, err := model.Place(m, config)
	if err == nil {
		q, err = model.Share(q)
	}
	if err != nil {
		t.Fatal(err)
	}
	calibrate(t, m, q)
	return q
}
