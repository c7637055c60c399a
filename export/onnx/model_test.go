package onnx_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// network is a float model in which height, width and channels all differ, with what is easily got wrong: a bias-free
// layer with batch norm, groups, unequal strides and paddings, a pool with padding, a flatten, a layer without ReLU.
func network(rng *rand.Rand) *model.Model {
	m := model.New("probe", model.Input{Name: "image", Shape: model.Shape{9, 7, 4}, Scale: 1.0 / 128, Zero: 117, Labels: []string{"cat", "dog", "cow", "hen", "owl"}})
	conv := func(name string, units, kh, kw, sy, sx int, pad [4]int, groups int) model.Node {
		return model.Node{Name: name, Layer: name, Op: model.Conv, Attr: model.Attr{
			Kernel: [2]int{kh, kw}, Stride: [2]int{sy, sx}, Pad: pad, Groups: groups, Units: units, Bias: true}}
	}
	c1 := conv("c1", 6, 3, 2, 1, 1, [4]int{1, 0, 1, 1}, 2)
	c1.Attr.Bias = false
	m.Append(c1)
	m.Append(model.Node{Name: "c1_bn", Layer: "c1", Op: model.BatchNorm, Attr: model.Attr{Eps: 1e-5, Momentum: 0.1}})
	m.Append(model.Node{Name: "c1_relu", Op: model.ReLU})
	m.Append(model.Node{Name: "p1", Layer: "p1", Op: model.MaxPool, Attr: model.Attr{Kernel: [2]int{3, 2}, Stride: [2]int{2, 1}, Pad: [4]int{1, 0, 0, 1}}})
	m.Append(conv("c2", 8, 2, 3, 1, 2, [4]int{0, 1, 0, 1}, 1))
	m.Append(model.Node{Name: "r2", Op: model.ReLU})
	m.Append(model.Node{Name: "c3", Layer: "c3", Op: model.Conv, Attr: model.Attr{Kernel: [2]int{1, 1}, Stride: [2]int{1, 1}, Groups: 1, Units: 5, Bias: true}})
	m.Append(model.Node{Name: "flat", Op: model.Flatten})
	m.Append(model.Node{Name: "fc1", Layer: "fc1", Op: model.Dense, Attr: model.Attr{Units: 12, Bias: true}})
	m.Append(model.Node{Name: "fc1_relu", Op: model.ReLU})
	m.Append(model.Node{Name: "fc2", Layer: "fc2", Op: model.Dense, Attr: model.Attr{Units: 5, Bias: true}})
	return m
}

// frozen makes the network at a precision. Ranges are set by hand, so that the layers use their grids fully; that of
// fc1's ReLU output is shifted, which makes the lower limit differ from 0.
func frozen(t testing.TB, p quant.Precision, seed uint64) *model.Model {
	t.Helper()
	return frozenGroups(t, p, seed, 0)
}

// frozenGroups is frozen with a scale for each group of so many rows of the weights, where that is not 0.
func frozenGroups(t testing.TB, p quant.Precision, seed uint64, group int) *model.Model {
	t.Helper()
	config := model.DefaultQuant(p)
	if group > 0 {
		config.Weight.Per, config.Weight.Group = quant.PerGroup, group
	}
	rng := rand.New(rand.NewPCG(seed, 9))
	m, err := model.Shapes(network(rng))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range m.ParamNames() {
		param := m.Params[name]
		fan := float64(max(1, len(param.Data)/max(1, param.Shape[len(param.Shape)-1])))
		for i := range param.Data {
			switch {
			case len(param.Shape) > 1:
				param.Data[i] = float32(rng.NormFloat64() / math.Sqrt(fan))
			case name == "c1.gamma":
				param.Data[i] = float32(rng.NormFloat64()) // both signs
			case name == "c1.var":
				param.Data[i] = 0.5 + rng.Float32()
			default:
				param.Data[i] = float32(rng.NormFloat64() * 0.2)
			}
		}
	}
	steps := []func(*model.Model) (*model.Model, error){model.Fuse}
	if p != quant.Full {
		steps = append(steps, func(m *model.Model) (*model.Model, error) { return model.Place(m, config) }, model.Share)
	}
	for _, step := range steps {
		if m, err = step(m); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range m.QuantNames() {
		q := m.Quant[name]
		n := m.Node(name)
		if n == nil || !n.Op.HasWeight() || !q.Spec.Format.IsInteger() {
			continue
		}
		_, hi := q.Spec.Grid()
		if q.Spec.Format == quant.Int16 {
			q.Scale, q.Zero = []float32{float32(3.1 / float64(hi))}, []int32{0}
			continue
		}
		q.Scale, q.Zero = []float32{float32(3.1 / float64(hi))}, []int32{0}
		if !n.Attr.Relu {
			q.Scale, q.Zero = []float32{float32(5.3 / float64(hi))}, []int32{hi / 2}
		}
		if name == "fc1_relu" {
			q.Zero = []int32{1}
		}
	}
	out, err := model.Freeze(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := model.Validate(out); err != nil {
		t.Fatal(err)
	}
	return out
}

// bytesFor draws model inputs.
func bytesFor(m *model.Model, n int, seed uint64) []uint8 {
	rng := rand.New(rand.NewPCG(seed, 3))
	x := make([]uint8, n*m.Inputs[0].Shape.Size())
	for i := range x {
		x[i] = uint8(rng.Uint32())
	}
	return x
}

// reference runs one example through a Frozen integer model by the definition of docs/arithmetic.md, in the model's own
// layout, and returns the codes of each tensor and the logits.
func reference(m *model.Model, x []uint8) (map[string][]uint8, map[string][]float32) {
	codes := map[string][]uint8{m.Inputs[0].Name: x}
	reals := map[string][]float32{}
	for i := range m.Nodes {
		n := &m.Nodes[i]
		in := codes[n.In[0]]
		shape, _ := m.ShapeOf(n.In[0])
		_, z := m.Quant[n.In[0]].At(0)
		switch n.Op {
		case model.Flatten:
			codes[n.Name] = in
		case model.MaxPool:
			out := make([]uint8, n.Shape.Size())
			windows(n, shape, func(to, from, tap int) {
				for c := range shape[2] {
					out[to*shape[2]+c] = max(out[to*shape[2]+c], in[from*shape[2]+c])
				}
			})
			codes[n.Name] = out
		case model.Conv, model.Dense:
			units := n.Attr.Units
			w, bias := m.Params[n.Param(model.Weight)], m.Params[n.Param(model.Bias)].Int32
			acc := make([]int64, n.Shape.Size())
			for i := range acc {
				acc[i] = int64(bias[i%units])
			}
			if n.Op == model.Dense {
				for k, q := range in {
					for c := range units {
						acc[c] += int64(int32(q)-z) * int64(w.Codes[k*units+c])
					}
				}
			} else {
				per, perOut := shape[2]/n.Attr.Groups, units/n.Attr.Groups
				windows(n, shape, func(to, from, tap int) {
					for c := range units {
						for k := range per {
							q := int32(in[from*shape[2]+c/perOut*per+k])
							acc[to*units+c] += int64(q-z) * int64(w.Codes[(tap*per+k)*units+c])
						}
					}
				})
			}
			if n.Requant.Float {
				out := make([]float32, len(acc))
				for i, v := range acc {
					out[i] = n.Requant.Value(int32(v), i%units)
				}
				reals[n.Name] = out
				continue
			}
			out := make([]uint8, len(acc))
			for i, v := range acc {
				out[i] = uint8(n.Requant.Code(int32(v), i%units))
			}
			codes[n.Name] = out
		}
	}
	return codes, reals
}

// windows visits output position, input position and kernel tap of each real cell of a window.
func windows(n *model.Node, in model.Shape, visit func(to, from, tap int)) {
	a := n.Attr
	for y := range n.Shape[0] {
		for x := range n.Shape[1] {
			for kh := range a.Kernel[0] {
				for kw := range a.Kernel[1] {
					iy, ix := y*a.Stride[0]+kh-a.Pad[0], x*a.Stride[1]+kw-a.Pad[1]
					if iy >= 0 && iy < in[0] && ix >= 0 && ix < in[1] {
						visit(y*n.Shape[1]+x, iy*in[1]+ix, kh*a.Kernel[1]+kw)
					}
				}
			}
		}
	}
}

// precisions is what the tests of the writer run over.
func precisions(t testing.TB, names ...string) []quant.Precision {
	t.Helper()
	var out []quant.Precision
	for _, name := range names {
		p, err := quant.ParsePrecision(name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// spread describes how well a tensor uses its grid, so that a test cannot pass on constants.
func spread(codes []uint8) string {
	seen := map[uint8]bool{}
	for _, c := range codes {
		seen[c] = true
	}
	return fmt.Sprintf("%d different codes from %d to %d", len(seen), slices.Min(codes), slices.Max(codes))
}
