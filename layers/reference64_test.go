package layers_test

import (
	"math"

	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// net64 is a model in float64 and plain loops, whose loss finite differences may probe. Rounding has no useful finite
// difference, so quantizers are replaced by the function whose derivative the straight-through and learned-scale rules
// are: with the rounding error r = rint(t)-t and the clamping of every element as found at the first call,
//
//	y = x + s*r inside the grid, s*(lo-z) or s*(hi-z) outside
//
// With an offset, z is real outside. A threshold moves s as 2^t does. Of a clipped activation (pact) the scale moves nothing but
// the elements at or above s*hi.
type net64 struct {
	m       *model.Model
	frozen  bool // batch norm by running statistics
	loss    layers.Loss
	x       [][]float64
	labels  []int32
	teacher []float32            // logits, where the loss has a teacher
	params  map[string][]float64 // also what quantizers learn, under the trainables' names
	start   map[string][]float64 // of what quantizers learn

	residue map[string][]float64 // r of every element; of biases, in units of the value
	outside map[string][]float64 // lo-z or hi-z where clamped, NaN inside
	fixed   map[string][]float64 // scales that are not learned
	first   map[string][]int     // which element of a pooling window was the first maximum
	active  map[string][]bool    // which elements a ReLU let pass
	level   map[string][]float64 // what it gives for the others
}

func newNet64(m *model.Model, frozen bool, loss layers.Loss, x []uint8, labels []int32) *net64 {
	n := &net64{
		m: m, frozen: frozen, loss: loss, labels: labels, params: map[string][]float64{}, start: map[string][]float64{},
		residue: map[string][]float64{}, outside: map[string][]float64{}, fixed: map[string][]float64{}, first: map[string][]int{}, active: map[string][]bool{}, level: map[string][]float64{},
	}
	in := m.Inputs[0]
	row := in.Shape.Size()
	for i := range labels {
		v := make([]float64, row)
		for k := range v {
			v[k] = float64(in.Scale) * float64(int32(x[i*row+k])-in.Zero)
		}
		n.x = append(n.x, v)
	}
	for name, p := range m.Params {
		n.params[name] = widen(p.Data)
	}
	for name, q := range m.Quant {
		for _, kind := range q.Spec.Range.Learned() {
			n.params[name+"."+kind.String()] = widen(q.Numbers(kind))
			n.start[name+"."+kind.String()] = widen(q.Numbers(kind))
		}
	}
	return n
}

// scales are those of a tensor as they are learned; fixed if they are not.
func (n *net64) scales(tensor string, fixed []float64) []float64 {
	if s, ok := n.params[tensor+".scale"]; ok {
		return s
	}
	t, ok := n.params[tensor+".threshold"]
	if !ok {
		return fixed
	}
	out := widen(n.m.Quant[tensor].Scale)
	for c := range out {
		out[c] *= math.Exp2(t[c] - n.start[tensor+".threshold"][c])
	}
	return out
}

func widen(x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}

// quantize is the surrogate of one tensor's quantizer. key names the tensor, and the example for activations.
func (n *net64) quantize(tensor, key string, x []float64, q *quant.Params, scales []float64) []float64 {
	if q == nil || !q.Spec.Format.IsInteger() {
		return x
	}
	scales = n.scales(tensor, scales)
	lo, hi := q.Spec.Grid()
	z := int32(0)
	if !q.Spec.Signed {
		z = q.Zero[0]
	}
	y := make([]float64, len(x))
	if n.residue[key] == nil {
		r, out := make([]float64, len(x)), make([]float64, len(x))
		for i, v := range x {
			t := v / scales[i%len(scales)]
			rounded := math.RoundToEven(t)
			r[i], out[i] = rounded-t, math.NaN()
			if rounded < float64(lo-z) {
				out[i] = float64(lo - z)
			}
			if rounded > float64(hi-z) {
				out[i] = float64(hi - z)
			}
		}
		n.residue[key], n.outside[key] = r, out
	}
	moved := 0.0 // of the zero point
	if o, ok := n.params[tensor+".offset"]; ok {
		moved = o[0] - n.start[tensor+".offset"][0]
	}
	for i, v := range x {
		s := scales[i%len(scales)]
		o := n.outside[key][i]
		switch {
		case !math.IsNaN(o):
			y[i] = s * (o - moved)
		case q.Spec.Range == quant.PACT:
			from := n.start[tensor+".scale"][0]
			y[i] = v + from*n.residue[key][i]
			if n.reaches(key, i, v, from*float64(hi-z)) {
				y[i] += (s - from) * float64(hi-z)
			}
		default:
			y[i] = v + s*n.residue[key][i]
		}
	}
	return y
}

// reaches remembers which elements were at or above a limit at the first call.
func (n *net64) reaches(key string, i int, v, limit float64) bool {
	key += ".reach"
	for len(n.active[key]) <= i {
		n.active[key] = append(n.active[key], false)
	}
	n.active[key][i] = n.active[key][i] || v >= limit
	return n.active[key][i]
}

// weight is the value of a layer's weight after its quantizer.
func (n *net64) weight(node *model.Node) []float64 {
	name := node.Param(model.Weight)
	q, w := n.m.Quant[name], n.params[name]
	if q == nil {
		return w
	}
	if n.fixed[name] == nil { // absmax of the master, as it is at the first call
		scales := make([]float64, node.Attr.Units)
		for i, v := range w {
			scales[i%len(scales)] = max(scales[i%len(scales)], math.Abs(v))
		}
		for c, a := range scales {
			s, _ := q.Spec.Choose(0, float32(a))
			scales[c] = float64(s)
		}
		n.fixed[name] = scales
	}
	return n.quantize(name, name, w, q, n.fixed[name])
}

// cost is the loss of the batch.
func (n *net64) cost() float64 {
	tensors := map[string][][]float64{n.m.Inputs[0].Name: n.x}
	before := map[string][][]float64{} // what quantizers read
	for i := range n.m.Nodes {
		node := &n.m.Nodes[i]
		shape, _ := n.m.ShapeOf(node.In[0])
		from := tensors[node.In[0]]
		out := make([][]float64, len(from))
		for e, x := range from {
			switch node.Op {
			case model.Flatten:
				out[e] = x
			case model.ReLU:
				out[e] = n.relu(node, node.Name+string(rune('0'+e)), x, n.m.Quant[node.Name] != nil)
			case model.Add:
				out[e] = make([]float64, len(x))
				for i, v := range tensors[node.In[1]][e] {
					out[e][i] = x[i] + v
				}
			case model.GlobalAvgPool:
				out[e] = make([]float64, shape[2])
				for i, v := range x {
					out[e][i%shape[2]] += v / float64(shape[0]*shape[1])
				}
			case model.MaxPool:
				by := x
				if from := before[node.In[0]]; from != nil && node.Attr.Kernel == node.Attr.Stride && node.Attr.Pad == [4]int{} {
					by = from[e] // a training graph pools before it quantizes
				}
				out[e] = n.pool(node, shape, x, by, node.Name+string(rune('0'+e)))
			default:
				out[e] = product64(node, shape, x, n.weight(node))
			}
		}
		if node.Op.HasWeight() {
			n.affine(node, out)
		}
		if node.Op.HasQuantizer() {
			for e := range out {
				if node.Attr.Relu {
					onCodes := n.m.Quant[node.Name] != nil && (!node.Attr.Norm || n.frozen)
					out[e] = n.relu(node, node.Name+string(rune('0'+e)), out[e], onCodes)
				}
				if q := n.m.Quant[node.Name]; q != nil {
					before[node.Name] = append(before[node.Name], out[e])
					out[e] = n.quantize(node.Name, node.Name+string(rune('0'+e)), out[e], q, widen(q.Scale))
				}
			}
		}
		tensors[node.Name] = out
	}
	return n.lossOf(tensors[n.m.Outputs[0]])
}

// pool keeps the places of the maxima, of by, of the first call: equal codes are common, and at a tie a difference has no
// limit.
func (n *net64) pool(node *model.Node, in model.Shape, x, by []float64, key string) []float64 {
	known := n.first[key]
	place := 0
	return windows64(node, in, func(c int, at func(kh, kw, c int) (int, bool)) float64 {
		if known == nil {
			best := -1
			for k := range node.Attr.Kernel[0] * node.Attr.Kernel[1] {
				if i, ok := at(k/node.Attr.Kernel[1], k%node.Attr.Kernel[1], c); ok && (best < 0 || by[i] > by[best]+1e-9) {
					best = i
				}
			}
			n.first[key] = append(n.first[key], best)
		}
		place++
		return x[n.first[key][place-1]]
	})
}

// biasResidue is what rounding the bias to an accumulator's unit adds to each channel, found at the first call.
func (n *net64) biasResidue(node *model.Node, bias func(c int) (b, f float64)) []float64 {
	name := node.Param(model.Weight)
	q := n.m.Quant[name]
	if r := n.residue[node.Layer+".bias"]; r != nil || q == nil {
		return r
	}
	scales := n.scales(name, n.fixed[name])
	r := make([]float64, node.Attr.Units)
	sx := float64(n.m.Quant[node.In[0]].Scale[0])
	for c := range r {
		b, f := bias(c)
		unit := sx * scales[c%len(scales)] * f
		r[c] = math.RoundToEven(b/unit)*unit - b
	}
	n.residue[node.Layer+".bias"] = r
	return r
}

// relu keeps what it let pass at the first call: accumulators of few bits are often exactly 0, where it has a kink.
// An upper limit on codes acts where it changes the code; of a ReLU of its own the limit is a code too.
func (n *net64) relu(node *model.Node, key string, x []float64, onCodes bool) []float64 {
	limit := float64(node.Attr.Cap)
	if n.active[key] == nil {
		n.level[key] = make([]float64, len(x))
		for i, v := range x {
			over := limit > 0 && v >= limit
			if onCodes && limit > 0 {
				s := float64(n.m.Quant[node.Name].Scale[0])
				most := math.RoundToEven(float64(node.Attr.Cap / n.m.Quant[node.Name].Scale[0]))
				over = math.RoundToEven(v/s) > most
				if node.Op == model.ReLU {
					limit = s * most
				}
			}
			if over {
				n.level[key][i] = limit
			}
			n.active[key] = append(n.active[key], v > 1e-9 && !over)
		}
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = n.level[key][i]
		if n.active[key][i] {
			y[i] = v
		}
	}
	return y
}

func product64(n *model.Node, in model.Shape, x, w []float64) []float64 {
	units := n.Attr.Units
	if n.Op == model.Dense {
		y := make([]float64, units)
		for i, wi := range w {
			y[i%units] += x[i/units] * wi
		}
		return y
	}
	per, outPer := in[2]/n.Attr.Groups, units/n.Attr.Groups
	return windows64(n, in, func(c int, at func(kh, kw, c int) (int, bool)) float64 {
		y := 0.0
		for kh := range n.Attr.Kernel[0] {
			for kw := range n.Attr.Kernel[1] {
				for ci := range per {
					if i, ok := at(kh, kw, c/outPer*per+ci); ok {
						y += x[i] * w[((kh*n.Attr.Kernel[1]+kw)*per+ci)*units+c]
					}
				}
			}
		}
		return y
	})
}

func windows64(n *model.Node, in model.Shape, f func(c int, at func(kh, kw, c int) (int, bool)) float64) []float64 {
	var out []float64
	windows(n, in, func(c int, at func(kh, kw, c int) (int, bool)) int64 {
		out = append(out, f(c, at))
		return 0
	})
	return out
}

// affine adds the bias and applies batch norm, in place.
func (n *net64) affine(node *model.Node, y [][]float64) {
	a, units := node.Attr, node.Attr.Units
	param := func(role string, c int) float64 { return n.params[node.Param(role)][c] }
	bias := func(c int) float64 {
		if a.Bias {
			return param(model.Bias, c)
		}
		return 0
	}
	each := func(c int, f func(v *float64)) {
		for _, row := range y {
			for i := c; i < len(row); i += units {
				f(&row[i])
			}
		}
	}
	if a.Norm && !n.frozen {
		for c := range units {
			count, mean, variance := 0.0, 0.0, 0.0
			each(c, func(v *float64) { mean += *v; count++ })
			mean /= count
			each(c, func(v *float64) { variance += (*v - mean) * (*v - mean) / count })
			f := param(model.Gamma, c) / math.Sqrt(variance+float64(a.Eps))
			each(c, func(v *float64) { *v = (*v-mean)*f + param(model.Beta, c) })
		}
		return
	}
	affine := func(c int) (b, f float64) { // y = f*v + b
		if !a.Norm {
			return bias(c), 1
		}
		f = param(model.Gamma, c) / math.Sqrt(param(model.Var, c)+float64(a.Eps))
		return param(model.Beta, c) + (bias(c)-param(model.Mean, c))*f, f
	}
	residue := n.biasResidue(node, func(c int) (float64, float64) {
		b, f := affine(c)
		return b, math.Abs(f)
	})
	for c := range units {
		b, f := affine(c)
		if residue != nil {
			b += residue[c]
		}
		each(c, func(v *float64) { *v = *v*f + b })
	}
}

func (n *net64) lossOf(logits [][]float64) float64 {
	total := 0.0
	for e, row := range logits {
		sum := 0.0
		for _, v := range row {
			sum += math.Exp(v)
		}
		k := float64(len(row))
		for c, v := range row {
			hit := 0.0
			if int32(c) == n.labels[e] {
				hit = 1
			}
			switch n.loss.Kind {
			case layers.CrossEntropy:
				target := hit*(1-n.loss.Smoothing) + n.loss.Smoothing/k
				total += target * (math.Log(sum) - v)
			case layers.MSE:
				total += (v - hit) * (v - hit) / k
			case layers.SmoothL1:
				d := math.Abs(v - hit)
				if d < 1 {
					total += d * d / 2 / k
				} else {
					total += (d - 0.5) / k
				}
			case layers.BCE:
				total += (math.Log1p(math.Exp(-math.Abs(v))) + max(v, 0) - hit*v) / k
			}
		}
	}
	total /= float64(len(logits))
	d := n.loss.Distill
	if d == (layers.Distill{}) {
		return total
	}
	return (1-d.Weight)*total + d.Weight*d.Temperature*d.Temperature*divergence(n.teacher, logits, d.Temperature)
}

// divergence is the mean of KL(softmax(teacher/T) || softmax(logits/T)).
func divergence(teacher []float32, logits [][]float64, temperature float64) float64 {
	softmax := func(row []float64) []float64 {
		out, sum := make([]float64, len(row)), 0.0
		for c, v := range row {
			out[c] = math.Exp(v / temperature)
			sum += out[c]
		}
		for c := range out {
			out[c] /= sum
		}
		return out
	}
	total := 0.0
	for e, row := range logits {
		theirs := make([]float64, len(row))
		for c := range theirs {
			theirs[c] = float64(teacher[e*len(row)+c])
		}
		p, q := softmax(theirs), softmax(row)
		for c := range p {
			total += p[c] * math.Log(p[c]/q[c]) / float64(len(logits))
		}
	}
	return total
}

// teacherLogits are rows of logits without a pattern.
func teacherLogits(rows int, seed uint64) []float32 {
	s := rng.New(seed, rng.Synthetic)
	out := make([]float32, rows*classes)
	for i := range out {
		out[i] = float32(2 * s.Norm())
	}
	return out
}

// gradient is the finite difference by element i of the named parameter.
func (n *net64) gradient(name string, i int, step float64) float64 {
	p := n.params[name]
	keep := p[i]
	p[i] = keep + step
	up := n.cost()
	p[i] = keep - step
	down := n.cost()
	p[i] = keep
	return (up - down) / (2 * step)
}
