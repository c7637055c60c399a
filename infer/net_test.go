package infer_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// randomNet is a float network of 2 to 5 layers with odd shapes, strides, asymmetric padding, groups, batch norm with
// negative and zero gamma, ReLU, ReLU6-like limits or neither, residual blocks, pools, a global average and a ReLU of its
// own. It ends in a dense or conv layer.
func randomNet(t testing.TB, rnd *rand.Rand) *model.Model {
	t.Helper()
	pick := func(lo, hi int) int { return lo + rnd.IntN(hi-lo+1) }
	in := model.Shape{pick(4, 11), pick(4, 11), pick(1, 5)}
	m := model.New("random", model.Input{Name: "x", Shape: in, Scale: 1 / float32(pick(40, 255)), Zero: int32(pick(0, 255))})
	shape := in
	conv := func(name string) {
		a := model.Attr{Groups: 1, Units: pick(1, 9), Bias: rnd.IntN(2) == 0}
		if rnd.IntN(3) == 0 {
			a.Groups = shape[2]
			a.Units = shape[2] * pick(1, 2)
		}
		for axis := range 2 {
			a.Kernel[axis] = pick(1, min(4, shape[axis]))
			a.Stride[axis] = pick(1, 3)
			a.Pad[axis], a.Pad[axis+2] = pick(0, 3), pick(0, 3)
			shape[axis] = (shape[axis]+a.Pad[axis]+a.Pad[axis+2]-a.Kernel[axis])/a.Stride[axis] + 1
		}
		shape = model.Shape{shape[0], shape[1], a.Units}
		m.Append(model.Node{Name: name + ".product", Layer: name, Op: model.Conv, Attr: a})
	}
	after := func(name string) {
		if rnd.IntN(2) == 0 {
			m.Append(model.Node{Name: name + ".norm", Layer: name, Op: model.BatchNorm, Attr: model.Attr{Eps: 1e-3, Momentum: 0.1}})
		}
		if rnd.IntN(3) > 0 {
			m.Append(model.Node{Name: name, Layer: name, Op: model.ReLU, Attr: model.Attr{Cap: randomCap(rnd)}})
		}
	}
	residual := func(name string) {
		from := m.Nodes[len(m.Nodes)-1].Name
		branch := func(suffix string, kernel, groups int) string {
			pad := (kernel - 1) / 2
			m.Append(model.Node{Name: name + suffix, Layer: name + suffix, Op: model.Conv, In: []string{from}, Attr: model.Attr{
				Kernel: [2]int{kernel, kernel}, Stride: [2]int{1, 1}, Pad: [4]int{pad, pad, pad, pad}, Groups: groups, Units: shape[2], Bias: rnd.IntN(2) == 0}})
			return name + suffix
		}
		a, b := branch(".a", 3, 1+rnd.IntN(2)*(shape[2]-1)), from
		if rnd.IntN(2) == 0 {
			b = branch(".b", 1, 1)
		}
		m.Append(model.Node{Name: name + ".sum", Layer: name, Op: model.Add, In: []string{a, b}})
		if rnd.IntN(3) > 0 {
			m.Append(model.Node{Name: name, Layer: name, Op: model.ReLU, Attr: model.Attr{Cap: randomCap(rnd)}})
		}
	}
	shape = append(model.Shape(nil), in...)
	for i := range pick(1, 3) {
		name := fmt.Sprintf("c%d", i+1)
		conv(name)
		after(name)
		if rnd.IntN(2) == 0 && min(shape[0], shape[1]) > 1 {
			a := model.Attr{Kernel: [2]int{2, 2}, Stride: [2]int{pick(1, 2), pick(1, 2)}, Pad: [4]int{pick(0, 1), pick(0, 1)}}
			for axis := range 2 {
				shape[axis] = (shape[axis]+a.Pad[axis]-2)/a.Stride[axis] + 1
			}
			m.Append(model.Node{Name: name + ".pool", Layer: name + ".pool", Op: model.MaxPool, Attr: a})
			if rnd.IntN(2) == 0 {
				m.Append(model.Node{Name: name + ".act", Layer: name + ".act", Op: model.ReLU, Attr: model.Attr{Cap: randomCap(rnd)}})
			}
		}
		if rnd.IntN(2) == 0 {
			residual(fmt.Sprintf("r%d", i+1))
		}
	}
	if rnd.IntN(4) == 0 {
		conv("head")
	} else {
		op := model.Flatten
		if rnd.IntN(2) == 0 {
			op = model.GlobalAvgPool
		}
		m.Append(model.Node{Name: "flat", Layer: "flat", Op: op})
		m.Append(model.Node{Name: "fc.product", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: pick(2, 20)}})
		after("fc")
		m.Append(model.Node{Name: "out", Layer: "out", Op: model.Dense, Attr: model.Attr{Units: pick(1, 10), Bias: true, Relu: rnd.IntN(4) == 0}})
	}
	return filled(t, m, rnd)
}

// randomCap is no upper limit, or one that some values reach.
func randomCap(rnd *rand.Rand) float32 {
	if rnd.IntN(2) == 0 {
		return 0
	}
	return 0.2 + 2*rnd.Float32()
}

// filled shapes and fuses m and gives it random parameters; every fourth gamma is 0 and half are negative.
func filled(t testing.TB, m *model.Model, rnd *rand.Rand) *model.Model {
	t.Helper()
	m = pass(t, m, model.Shapes, model.Fuse)
	for i := range m.Nodes {
		n := &m.Nodes[i]
		for _, role := range []string{model.Weight, model.Bias, model.Gamma, model.Beta, model.Mean, model.Var} {
			p := m.Params[n.Param(role)]
			if p == nil {
				continue
			}
			for i := range p.Data {
				p.Data[i] = 2*rnd.Float32() - 1
				switch {
				case role == model.Gamma && rnd.IntN(4) == 0:
					p.Data[i] = 0
				case role == model.Var:
					p.Data[i] = 0.05 + rnd.Float32()
				}
			}
		}
	}
	return m
}

func pass(t testing.TB, m *model.Model, passes ...func(*model.Model) (*model.Model, error)) *model.Model {
	t.Helper()
	var err error
	for _, p := range passes {
		if m, err = p(m); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func compile(t testing.TB, m *model.Model, o infer.Options) *infer.Engine {
	t.Helper()
	e, err := infer.Compile(m, o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func randomBytes(rnd *rand.Rand, n int) []uint8 {
	x := make([]uint8, n)
	for i := range x {
		x[i] = uint8(rnd.IntN(256))
	}
	return x
}

// quantized places precision p on a float model and takes activation ranges from a trace of the float engine over x, cut
// by a random factor so that some values saturate.
func quantized(t testing.TB, m *model.Model, precision string, x []uint8, rnd *rand.Rand) *model.Model {
	t.Helper()
	p, err := quant.ParsePrecision(precision)
	if err != nil {
		t.Fatal(err)
	}
	q := pass(t, m, func(m *model.Model) (*model.Model, error) { return model.Place(m, model.DefaultQuant(p)) }, model.Share)
	if !p.IsInteger() {
		return q
	}
	e := compile(t, m, infer.Options{Workers: 1})
	lo, hi := map[string]float32{}, map[string]float32{}
	err = e.Trace(x, len(x)/e.InputSize(), func(v infer.Tensor) error {
		for _, y := range v.Values {
			lo[v.Name], hi[v.Name] = min(lo[v.Name], y), max(hi[v.Name], y)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range q.QuantNames() {
		if a := q.Quant[name]; !a.Ready() && m.Node(name) != nil && m.Node(name).Op.HasQuantizer() {
			cut := 0.4 + 0.8*rnd.Float32()
			s, z := a.Spec.Choose(lo[name]*cut, hi[name]*cut)
			a.Scale, a.Zero = []float32{s}, []int32{z}
		}
	}
	return q
}
