package infer_test

import (
	"math"
	"testing"

	"github.com/narrow-ml/narrow/model"
)

// refTensor is one example of a tensor in the reference.
type refTensor struct {
	codes  []int64
	acc    []int64
	values []float32
}

// reference runs one example of a Frozen integer model in plain loops over int64, as docs/arithmetic.md states it. It uses
// nothing of the engine and none of package quant's functions.
func reference(t *testing.T, m *model.Model, x []uint8) map[string]refTensor {
	t.Helper()
	out := map[string]refTensor{}
	in := make([]int64, len(x))
	for i, p := range x {
		in[i] = int64(p)
	}
	out[m.Inputs[0].Name] = refTensor{codes: in}
	for i := range m.Nodes {
		n := &m.Nodes[i]
		src := out[n.In[0]]
		shape, _ := m.ShapeOf(n.In[0])
		z := int64(0)
		if q := m.Quant[n.In[0]]; q != nil {
			z = int64(q.Zero[0])
		}
		switch n.Op {
		case model.Conv:
			out[n.Name] = refRequant(t, n, refConv(m, n, shape, src.codes, z))
		case model.Dense:
			w, b := m.Params[n.Param(model.Weight)], m.Params[n.Param(model.Bias)]
			acc := make([]int64, n.Attr.Units)
			for j := range acc {
				acc[j] = int64(b.Int32[j])
				for k, q := range src.codes {
					acc[j] += (q - z) * int64(w.Codes[k*len(acc)+j])
				}
			}
			out[n.Name] = refRequant(t, n, acc)
		case model.MaxPool:
			out[n.Name] = refTensor{codes: refPool(n, shape, src.codes)}
		case model.ReLU:
			y := make([]int64, len(src.codes))
			top := int64(255)
			if c := n.Attr.Cap; c > 0 {
				top = int64(min(float64(top), float64(z)+math.RoundToEven(float64(c/m.Quant[n.Name].Scale[0]))))
			}
			for i, q := range src.codes {
				y[i] = min(max(q, z), top)
			}
			out[n.Name] = refTensor{codes: y}
		case model.Add:
			out[n.Name] = refTensor{codes: refAdd(m, n, src.codes, out[n.In[1]].codes)}
		case model.GlobalAvgPool:
			sums, cells := make([]int64, shape[2]), shape[0]*shape[1]
			for i, q := range src.codes {
				sums[i%shape[2]] += q - z
			}
			out[n.Name] = refTensor{codes: refLimit(m, n, func(i int, sy float32) float32 {
				divisor := float32(cells) * sy
				mult := m.Quant[n.In[0]].Scale[0] / divisor
				return float32(sums[i]) * mult
			})}
		case model.Flatten:
			out[n.Name] = refTensor{codes: src.codes}
		}
	}
	return out
}

func refAdd(m *model.Model, n *model.Node, a, b []int64) []int64 {
	return refLimit(m, n, func(i int, sy float32) float32 {
		qa, qb := m.Quant[n.In[0]], m.Quant[n.In[1]]
		ma, mb := qa.Scale[0]/sy, qb.Scale[0]/sy
		x := float32(a[i]-int64(qa.Zero[0])) * ma
		y := float32(b[i]-int64(qb.Zero[0])) * mb
		return x + y
	})
}

// refLimit rounds values in units of the output scale, with the limits that follow from the ReLU.
func refLimit(m *model.Model, n *model.Node, at func(i int, sy float32) float32) []int64 {
	q := m.Quant[n.Name]
	z, bottom, top := float64(q.Zero[0]), 0.0, float64(int(1)<<q.Spec.Format.Bits()-1)
	if n.Attr.Relu {
		bottom = z
	}
	if n.Attr.Cap > 0 {
		top = min(top, z+math.RoundToEven(float64(n.Attr.Cap/q.Scale[0])))
	}
	y := make([]int64, n.Shape.Size())
	for i := range y {
		y[i] = int64(min(max(math.RoundToEven(float64(at(i, q.Scale[0])))+z, bottom), top))
	}
	return y
}

func refConv(m *model.Model, n *model.Node, in model.Shape, x []int64, z int64) []int64 {
	a, w, b := n.Attr, m.Params[n.Param(model.Weight)], m.Params[n.Param(model.Bias)]
	cin, per := in[2]/a.Groups, a.Units/a.Groups
	var acc []int64
	for oy := range n.Shape[0] {
		for ox := range n.Shape[1] {
			for co := range a.Units {
				sum := int64(b.Int32[co])
				for ky := range a.Kernel[0] {
					for kx := range a.Kernel[1] {
						for ci := range cin {
							iy, ix := oy*a.Stride[0]+ky-a.Pad[0], ox*a.Stride[1]+kx-a.Pad[1]
							q := z // padding
							if iy >= 0 && iy < in[0] && ix >= 0 && ix < in[1] {
								q = x[(iy*in[1]+ix)*in[2]+co/per*cin+ci]
							}
							sum += (q - z) * int64(w.Codes[((ky*a.Kernel[1]+kx)*cin+ci)*a.Units+co])
						}
					}
				}
				acc = append(acc, sum)
			}
		}
	}
	return acc
}

func refPool(n *model.Node, in model.Shape, x []int64) []int64 {
	a := n.Attr
	var y []int64
	for oy := range n.Shape[0] {
		for ox := range n.Shape[1] {
			for c := range in[2] {
				best := int64(0) // the lowest code: what padding counts as
				for ky := range a.Kernel[0] {
					for kx := range a.Kernel[1] {
						iy, ix := oy*a.Stride[0]+ky-a.Pad[0], ox*a.Stride[1]+kx-a.Pad[1]
						if iy >= 0 && iy < in[0] && ix >= 0 && ix < in[1] {
							best = max(best, x[(iy*in[1]+ix)*in[2]+c])
						}
					}
				}
				y = append(y, best)
			}
		}
	}
	return y
}

func refRequant(t *testing.T, n *model.Node, acc []int64) refTensor {
	t.Helper()
	r := n.Requant
	out := refTensor{acc: acc}
	for i, a := range acc {
		if a > math.MaxInt32 || a < math.MinInt32 {
			t.Fatalf("%s: accumulator %d leaves 32 bits", n.Name, a)
		}
		product := float32(float32(int32(a)) * r.M[i%len(r.M)])
		if r.Float {
			if n.Attr.Relu {
				product = max(product, 0)
			}
			out.values = append(out.values, product)
			continue
		}
		product = min(max(product, float32(r.Lo-r.Zero)), float32(r.Hi-r.Zero))
		out.codes = append(out.codes, int64(refRound(float64(product)))+int64(r.Zero))
	}
	return out
}

// reference64 runs one example of a Frozen float model in float64, without 16-bit rounding.
func reference64(m *model.Model, x []uint8) map[string][]float64 {
	out := map[string][]float64{}
	in := &m.Inputs[0]
	v := make([]float64, len(x))
	for i, p := range x {
		v[i] = float64(in.Scale) * float64(int32(p)-in.Zero)
	}
	out[in.Name] = v
	for i := range m.Nodes {
		n := &m.Nodes[i]
		out[n.Name] = refFloat(m, n, out)
	}
	return out
}

// refFloat is one float operation in float64.
func refFloat(m *model.Model, n *model.Node, made map[string][]float64) []float64 {
	a, x := n.Attr, made[n.In[0]]
	in, _ := m.ShapeOf(n.In[0])
	after := func(v float64) float64 {
		if a.Relu || n.Op == model.ReLU {
			v = max(v, 0)
		}
		if a.Cap > 0 {
			v = min(v, float64(a.Cap))
		}
		return v
	}
	var y []float64
	switch n.Op {
	case model.Flatten:
		return x
	case model.ReLU:
		for _, v := range x {
			y = append(y, after(v))
		}
		return y
	case model.Add:
		for i, v := range made[n.In[1]] {
			y = append(y, after(x[i]+v))
		}
		return y
	case model.GlobalAvgPool:
		y = make([]float64, in[2])
		for i, v := range x {
			y[i%in[2]] += v / float64(in[0]*in[1])
		}
		return y
	case model.Dense:
		in, a.Kernel, a.Stride, a.Groups = model.Shape{1, 1, len(x)}, [2]int{1, 1}, [2]int{1, 1}, 1
	}
	oh, ow := (in[0]+a.Pad[0]+a.Pad[2]-a.Kernel[0])/a.Stride[0]+1, (in[1]+a.Pad[1]+a.Pad[3]-a.Kernel[1])/a.Stride[1]+1
	channels, cin := in[2], 1
	if n.Op != model.MaxPool {
		channels, cin = a.Units, in[2]/a.Groups
	}
	for oy := range oh {
		for ox := range ow {
			for co := range channels {
				best, sum := math.Inf(-1), 0.0
				for ky := range a.Kernel[0] {
					for kx := range a.Kernel[1] {
						iy, ix := oy*a.Stride[0]+ky-a.Pad[0], ox*a.Stride[1]+kx-a.Pad[1]
						if iy < 0 || iy >= in[0] || ix < 0 || ix >= in[1] {
							continue
						}
						cell := x[(iy*in[1]+ix)*in[2]:][:in[2]]
						if n.Op == model.MaxPool {
							best = max(best, cell[co])
							continue
						}
						first := co / (channels / a.Groups) * cin
						for ci := range cin {
							sum += cell[first+ci] * refWeight(m, n, ((ky*a.Kernel[1]+kx)*cin+ci)*channels+co)
						}
					}
				}
				if n.Op == model.MaxPool {
					y = append(y, best)
					continue
				}
				if a.Norm {
					sum = sum*float64(m.Params[n.Param(model.NormMul)].Data[co]) + float64(m.Params[n.Param(model.NormAdd)].Data[co])
				} else if a.Bias {
					sum += float64(m.Params[n.Param(model.Bias)].Data[co])
				}
				y = append(y, after(sum))
			}
		}
	}
	return y
}

func refWeight(m *model.Model, n *model.Node, i int) float64 {
	w := m.Params[n.Param(model.Weight)]
	if w.Half == nil {
		return float64(w.Data[i])
	}
	return refDecode(w.Half[i], m.Quant[n.Param(model.Weight)].Spec.Format.String())
}

// refDecode is the value of a 16-bit pattern: sign, exponent and fraction as IEEE 754 and bfloat16 place them.
func refDecode(bits uint16, format string) float64 {
	fraction, bias := 10, 15
	if format == "bf16" {
		fraction, bias = 7, 127
	}
	f := float64(int(bits) & (1<<fraction - 1))
	e := int(bits&0x7fff) >> fraction
	v := math.Ldexp(f, 1-bias-fraction)
	if e > 0 {
		v = math.Ldexp(f+float64(int(1)<<fraction), e-bias-fraction)
	}
	if bits&0x8000 != 0 {
		v = -v
	}
	return v
}
