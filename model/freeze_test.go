package model_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// products calls f for every multiplication of a conv or dense node: output, input and weight index. Padding has none.
func products(n *model.Node, in model.Shape, f func(out, x, w int)) {
	a := n.Attr
	if n.Op == model.Dense {
		for o := range a.Units {
			for k := range in[0] {
				f(o, k, k*a.Units+o)
			}
		}
		return
	}
	perGroup, outPerGroup := in[2]/a.Groups, a.Units/a.Groups
	for oy := range n.Shape[0] {
		for ox := range n.Shape[1] {
			for o := range a.Units {
				for ky := range a.Kernel[0] {
					for kx := range a.Kernel[1] {
						y, x := oy*a.Stride[0]+ky-a.Pad[0], ox*a.Stride[1]+kx-a.Pad[1]
						if y < 0 || y >= in[0] || x < 0 || x >= in[1] {
							continue
						}
						for c := range perGroup {
							f((oy*n.Shape[1]+ox)*a.Units+o, (y*in[1]+x)*in[2]+o/outPerGroup*perGroup+c, ((ky*a.Kernel[1]+kx)*perGroup+c)*a.Units+o)
						}
					}
				}
			}
		}
	}
}

// floatForward runs a fused float model in float64 and returns every tensor.
func floatForward(t testing.TB, m *model.Model, x []float64) map[string][]float64 {
	all := map[string][]float64{m.Inputs[0].Name: x}
	for i := range m.Nodes {
		n := &m.Nodes[i]
		in := all[n.In[0]]
		shape, _ := m.ShapeOf(n.In[0])
		switch {
		case n.Op.HasWeight():
			a, err := m.Affine(n)
			if err != nil {
				t.Fatal(err)
			}
			out, w := make([]float64, n.Shape.Size()), m.Params[n.Param(model.Weight)].Data
			products(n, shape, func(o, x, k int) { out[o] += in[x] * float64(w[k]) })
			for o := range out {
				c := o % n.Attr.Units
				if a.F != nil {
					out[o] *= a.F[c]
				}
				out[o] += a.B[c]
				if n.Attr.Relu {
					out[o] = max(out[o], 0)
				}
			}
			all[n.Name] = out
		case n.Op == model.MaxPool:
			out := make([]float64, n.Shape.Size())
			for o := range out {
				c, ox, oy := o%shape[2], o/shape[2]%n.Shape[1], o/shape[2]/n.Shape[1]
				out[o] = math.Inf(-1)
				for ky := range n.Attr.Kernel[0] {
					for kx := range n.Attr.Kernel[1] {
						out[o] = max(out[o], in[((oy*n.Attr.Stride[0]+ky)*shape[1]+ox*n.Attr.Stride[1]+kx)*shape[2]+c])
					}
				}
			}
			all[n.Name] = out
		case n.Op == model.Flatten:
			all[n.Name] = in
		default:
			t.Fatalf("the test's forward has no %s", n.Op)
		}
	}
	return all
}

// randomise fills the masters; batch norm gets negative, zero and tiny gammas, and variances from tiny to large.
func randomise(m *model.Model, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 9))
	for _, name := range m.ParamNames() {
		p := m.Params[name]
		for i := range p.Data {
			v := float32(r.NormFloat64())
			switch {
			case strings.HasSuffix(name, ".weight"):
				v *= 0.3
			case strings.HasSuffix(name, ".var"):
				v = float32(math.Ldexp(0.5+r.Float64(), r.IntN(8)-6))
			case strings.HasSuffix(name, ".gamma"):
				v = []float32{v, -1.5, 0, 1e-9, 0.7}[i%5]
			}
			p.Data[i] = v
		}
	}
}

func input(m *model.Model, r *rand.Rand) (pixels []uint8, x []float64) {
	in := m.Inputs[0]
	for range in.Shape.Size() {
		p := uint8(r.UintN(256))
		pixels = append(pixels, p)
		x = append(x, float64(in.Scale)*float64(int32(p)-in.Zero))
	}
	return pixels, x
}

// calibrated is the network of cnn with random masters, placed at a precision (edited by rules, if any), with ranges
// from a few float runs.
func calibrated(t testing.TB, name string, rules func(*model.QuantConfig)) *model.Model {
	t.Helper()
	f := must(t)(model.Fuse(cnn(t)))
	f.Inputs[0].Scale, f.Inputs[0].Zero = 1.0/64, 30
	randomise(f, 1)
	q := model.DefaultQuant(precision(t, name))
	if rules != nil {
		rules(&q)
	}
	m := must(t)(model.Share(must(t)(model.Place(f, q))))
	if !m.Precision.IsInteger() {
		return m
	}
	r := rand.New(rand.NewPCG(2, 2))
	lo, hi := map[string]float64{}, map[string]float64{}
	for range 6 {
		_, x := input(f, r)
		for tensor, v := range floatForward(t, f, x) {
			lo[tensor], hi[tensor] = min(lo[tensor], slices.Min(v)), max(hi[tensor], slices.Max(v))
		}
	}
	for i := range m.Nodes {
		n := &m.Nodes[i]
		if q := m.Quant[n.Name]; q != nil && n.Op.HasWeight() {
			s, z := q.Spec.Choose(float32(lo[n.Name]), float32(hi[n.Name]))
			q.Scale, q.Zero = []float32{s}, []int32{z}
		}
	}
	return m
}

// TestFreezeInteger: each frozen layer, run on integers over random codes, means what the float layer means, to within
// the half step of its output and what half a step of each weight and of the bias can add up to.
func TestFreezeInteger(t *testing.T) {
	perTensor := func(q *model.QuantConfig) { q.Weight.Per = quant.PerTensor }
	evenWeights := func(q *model.QuantConfig) { q.Weight.Even = true }
	for _, c := range []struct {
		precision string
		rules     func(*model.QuantConfig)
	}{
		{"int8", nil}, {"int8", perTensor}, {"w4a8", nil}, {"w2a4", nil}, {"w4a4", nil}, {"w2a2", nil}, {"int3", nil}, {"w1a8", nil}, {"w1a4", perTensor}, {"w2a8", evenWeights}, {"w4a8", evenWeights},
		{"int6", func(q *model.QuantConfig) {
			s := quant.WeightSpec(quant.Int8)
			q.Rules = []model.Rule{{Layer: "fc2", Weight: &s}}
		}},
	} {
		t.Run(c.precision, func(t *testing.T) {
			m := calibrated(t, c.precision, c.rules)
			before := m.Clone()
			frozen := must(t)(model.Freeze(m))
			if !reflect.DeepEqual(m, before) {
				t.Fatal("Freeze changed its argument")
			}
			if frozen.Stage != model.Frozen {
				t.Errorf("stage %s", frozen.Stage)
			}
			if err := model.Validate(frozen); err != nil {
				t.Fatal(err)
			}
			for i := range frozen.Nodes {
				n := &frozen.Nodes[i]
				if n.Op.HasWeight() {
					checkLayer(t, m, frozen, n)
				} else if frozen.Quant[n.Name] != frozen.Quant[n.In[0]] {
					t.Errorf("%s lost the quantizer it shares", n.Name)
				}
			}
			if frozen.Quant["p1"] == m.Quant["p1"] {
				t.Error("the frozen model shares quantizers with the quantized one")
			}
		})
	}
}

func checkLayer(t *testing.T, m, frozen *model.Model, n *model.Node) {
	t.Helper()
	r := rand.New(rand.NewPCG(4, 4))
	in, shape := frozen.Quant[n.In[0]], model.Shape(nil)
	shape, _ = frozen.ShapeOf(n.In[0])
	sx, zx := in.At(0)
	xlo, xhi := in.Spec.Grid()
	c := n.Attr.Units

	w, bias := frozen.Params[n.Param(model.Weight)], frozen.Params[n.Param(model.Bias)]
	if w.Data != nil || w.Half != nil || len(w.Codes) != w.Shape.Size() || len(bias.Int32) != c || bias.Data != nil {
		t.Fatalf("%s: weight and bias are not codes", n.Name)
	}
	if n.Attr.Norm || !n.Attr.Bias || n.Requant == nil {
		t.Fatalf("%s: batch norm is not folded", n.Name)
	}
	lo, hi := frozen.Quant[n.Param(model.Weight)].Spec.Grid()
	scale := frozen.Quant[n.Param(model.Weight)].Scale // S[c], with batch norm inside
	for i, q := range w.Codes {
		if int32(q) < lo || int32(q) > hi {
			t.Fatalf("%s: weight code[%d] = %d is outside [%d, %d]", n.Name, i, q, lo, hi)
		}
	}

	master, a := m.Params[n.Param(model.Weight)].Data, affine(t, m, n.Name)
	factor := func(ch int) float64 {
		if a.F == nil {
			return 1
		}
		return a.F[ch]
	}
	for range 20 {
		codes := make([]int32, shape.Size())
		for i := range codes {
			codes[i] = xlo + r.Int32N(xhi-xlo+1)
		}
		acc, exact, spread := make([]int64, n.Shape.Size()), make([]float64, n.Shape.Size()), make([]float64, n.Shape.Size())
		coding := make([]float64, n.Shape.Size()) // what coding the weights changes, at most
		even := frozen.Quant[n.Param(model.Weight)].Spec.Even
		for o := range acc {
			acc[o] = int64(bias.Int32[o%c])
		}
		products(n, shape, func(o, x, k int) {
			real := float64(sx) * float64(codes[x]-zx)
			acc[o] += int64(codes[x]-zx) * int64(w.Codes[k])
			exact[o] += real * float64(master[k])
			spread[o] += math.Abs(real)
			if ch := o % c; even { // a binary weight may be anywhere from its level
				coding[o] += math.Abs(real * (factor(ch)*float64(master[k]) - float64(scale[ch])*float64(w.Codes[k])))
			} else {
				coding[o] += math.Abs(real) * float64(scale[ch]) / 2
			}
		})
		for o := range acc {
			ch := o % c
			if acc[o] > math.MaxInt32 || acc[o] < math.MinInt32 {
				t.Fatalf("%s: accumulator %d", n.Name, acc[o])
			}
			want := factor(ch)*exact[o] + a.B[ch]
			// half a step of each weight, half a step of the bias, and float32 roundings of scale and product
			slack := coding[o] + float64(sx)*float64(scale[ch])/2 + 1e-5*(math.Abs(want)+spread[o]*math.Abs(factor(ch)))
			if math.Abs(factor(ch)) < model.NormFloor && !even {
				slack = float64(sx)*float64(scale[ch])/2 + 1e-6*math.Abs(want) + math.Abs(factor(ch)*exact[o]) // the bias alone is left
			}
			var got float64
			if out := m.Quant[n.Name]; out == nil {
				if !n.Requant.Float {
					t.Fatalf("%s: the logits are not float32", n.Name)
				}
				got = float64(n.Requant.Value(int32(acc[o]), ch))
			} else {
				sy, zy := out.At(0)
				qlo, qhi := out.Spec.Grid()
				q := n.Requant.Code(int32(acc[o]), ch)
				if n.Attr.Relu && (n.Requant.Lo != zy || q < zy) {
					t.Fatalf("%s: code %d, lower limit %d; relu means the zero point %d", n.Name, q, n.Requant.Lo, zy)
				}
				got = float64(sy) * float64(q-zy)
				low, high := float64(sy)*float64(qlo-zy), float64(sy)*float64(qhi-zy)
				if n.Attr.Relu {
					low = 0
				}
				want = min(max(want, low), high)
				slack += float64(sy) / 2 * (1 + 1e-5)
			}
			if d := math.Abs(got - want); d > slack {
				t.Fatalf("%s[%d]: %v, the float layer gives %v: off by %v, allowed %v", n.Name, o, got, want, d, slack)
			}
		}
	}
}

func affine(t testing.TB, m *model.Model, name string) model.Affine {
	a, err := m.Affine(m.Node(name))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestFreezeSigns: a negative gamma flips the weight codes, gamma 0 clears them, and no scale depends on a division by it.
func TestFreezeSigns(t *testing.T) {
	m := calibrated(t, "int8", nil)
	frozen := must(t)(model.Freeze(m))
	w, in := m.Params["fc1.weight"].Data, m.Quant["flat"]
	a := affine(t, m, "fc1")
	codes, scale := make([]int8, len(w)), make([]float32, 5)
	if _, err := model.CodeWeights(codes, scale, w, m.Quant["fc1.weight"], in, &a); err != nil {
		t.Fatal(err)
	}
	seen := map[int8]bool{}
	for i, q := range frozen.Params["fc1.weight"].Codes {
		sign := int8(1)
		switch f := a.F[i%5]; {
		case math.Abs(f) < model.NormFloor:
			sign = 0
		case f < 0:
			sign = -1
		}
		seen[sign] = true
		if q != sign*codes[i] {
			t.Fatalf("code[%d] = %d, want %d times %d", i, q, sign, codes[i])
		}
	}
	if len(seen) != 3 {
		t.Errorf("signs seen: %v; the case needs all three", seen)
	}
	for ch, s := range frozen.Quant["fc1.weight"].Scale {
		if want := float32(float64(scale[ch]) * max(math.Abs(a.F[ch]), model.NormFloor)); s != want {
			t.Errorf("S[%d] = %v, want %v", ch, s, want)
		}
	}
}

func TestFreezeRequant(t *testing.T) {
	m := calibrated(t, "w4a4", nil)
	frozen := must(t)(model.Freeze(m))
	for _, name := range []string{"c1", "c2", "fc1", "fc2"} {
		n := frozen.Node(name)
		sx, _ := frozen.Quant[n.In[0]].At(0)
		for c, s := range frozen.Quant[n.Param(model.Weight)].Scale {
			want := sx * s
			if out := frozen.Quant[name]; out != nil {
				want = float32(sx*s) / out.Scale[0]
			}
			if n.Requant.M[c] != want {
				t.Errorf("%s: M[%d] = %v, want %v", name, c, n.Requant.M[c], want)
			}
		}
		if err := n.Requant.Validate(n.Attr.Units); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r := frozen.Node("fc1").Requant; r.Lo != 0 || r.Hi != 15 || r.Zero != m.Quant["fc1"].Zero[0] {
		t.Errorf("fc1 has no relu: limits [%d, %d], zero point %d", r.Lo, r.Hi, r.Zero)
	}
	if r := frozen.Node("fc2").Requant; !r.Float {
		t.Error("the logits are coded")
	}
}

func TestFreezeFloat(t *testing.T) {
	for _, name := range []string{"fp32", "fp16", "bf16"} {
		t.Run(name, func(t *testing.T) {
			p := precision(t, name)
			m := calibrated(t, name, nil)
			before := m.Clone()
			frozen := must(t)(model.Freeze(m))
			if err := model.Validate(frozen); err != nil {
				t.Fatal(err)
			}
			for _, layer := range []string{"c1", "c2", "fc1", "fc2"} {
				n, w, master := frozen.Node(layer), frozen.Params[layer+".weight"], m.Params[layer+".weight"].Data
				if n.Requant != nil {
					t.Errorf("%s: a float layer has a requantization", layer)
				}
				for i, v := range master {
					switch name {
					case "fp32":
						if w.Half != nil || w.Data[i] != v {
							t.Fatalf("%s: weight[%d] changed", layer, i)
						}
					default:
						if w.Data != nil || w.Half[i] != quant.Encode16(v, p.Weight) {
							t.Fatalf("%s: weight[%d] is not the rounded master", layer, i)
						}
					}
				}
				if !m.Node(layer).Attr.Norm {
					if b := frozen.Params[layer+".bias"]; !n.Attr.Bias || !slices.Equal(b.Data, m.Params[layer+".bias"].Data) {
						t.Errorf("%s: bias %v", layer, b)
					}
					continue
				}
				mul, add := affine(t, m, layer).Float32()
				if n.Attr.Bias || !n.Attr.Norm || !slices.Equal(frozen.Params[layer+".mul"].Data, mul) || !slices.Equal(frozen.Params[layer+".add"].Data, add) {
					t.Errorf("%s: batch norm is not mul*v + add", layer)
				}
			}
			for _, q := range frozen.Params { // nothing refers to the masters
				for i := range q.Data {
					q.Data[i] = 7
				}
			}
			if !reflect.DeepEqual(m, before) {
				t.Error("the frozen model shares memory with the masters, or Freeze changed them")
			}
		})
	}
	// A float model that was never placed freezes to fp32.
	frozen := must(t)(model.Freeze(must(t)(model.Fuse(cnn(t)))))
	if err := model.Validate(frozen); err != nil || frozen.Precision != quant.Full {
		t.Errorf("%v, precision %s", err, frozen.Precision)
	}
}

func TestFreezeRefuses(t *testing.T) {
	nan := float32(math.NaN())
	rows := []struct {
		name, precision string
		edit            func(*model.Model)
		want            string
	}{
		{"twice", "int8", func(m *model.Model) { m.Stage = model.Frozen }, `model "net" is frozen already`},
		{"unchecked", "int8", func(m *model.Model) { delete(m.Quant, "fc1.weight") }, `net.yaml:10: dense "fc1": its weight has no quantizer`},
		{"no range", "int8", func(m *model.Model) { m.Quant["c2"].Scale = nil }, `net.yaml:7: conv "c2": tensor "c2" has no range yet: calibrate or train first`},
		{"bad range", "int8", func(m *model.Model) { m.Quant["c2"].Scale[0] = nan }, `net.yaml:7: conv "c2": tensor "c2": scale[0] is NaN; it must be finite and positive`},
		{"NaN weight", "int8", func(m *model.Model) { m.Params["fc2.weight"].Data[4] = nan }, `net.yaml:12: dense "fc2": weight: value[4] is NaN and has no code`},
		{"NaN in batch norm", "int8", func(m *model.Model) { m.Params["c1.beta"].Data[2] = nan }, `net.yaml:3: conv "c1": bias or batch norm of channel 2 is NaN`},
		{"impossible bias", "int8", func(m *model.Model) {
			m.Params["fc2.bias"].Data[1] = 3e38
			m.Quant["fc1"].Scale[0] = 1e-36
		}, `net.yaml:12: dense "fc2": weight: channel 1: no scale keeps the accumulator within 32 bits; its bias or batch norm is out of all proportion to its weights`},
		{"multiplier overflow", "int8", func(m *model.Model) { m.Quant["c2"].Scale[0] = math.SmallestNonzeroFloat32 }, `net.yaml:7: conv "c2": multiplier[0] is +Inf; it must be finite and positive`},
		{"fp16 overflow", "fp16", func(m *model.Model) { m.Params["fc2.weight"].Data[3] = 1e5 }, `net.yaml:12: dense "fc2": weight: value[3] = 100000 overflows fp16; keep this layer in fp32 or bf16, or scale its inputs`},
		{"weight missing", "int8", func(m *model.Model) { delete(m.Params, "c2.weight") }, `net.yaml:7: conv "c2": parameter "c2.weight" has no float32 master: run Shapes first`},
		{"bias missing", "fp32", func(m *model.Model) { delete(m.Params, "fc2.bias") }, `net.yaml:12: dense "fc2": bias is missing`},
	}
	for _, r := range rows {
		m := calibrated(t, r.precision, nil)
		r.edit(m)
		if out, err := model.Freeze(m); out != nil || text(err) != r.want {
			t.Errorf("%s: %v\nwant %s", r.name, err, r.want)
		}
	}
	if _, err := model.Freeze(cnn(t)); text(err) != `net.yaml:4: batchnorm "c1": a frozen model has batch norm only inside conv and dense: run Fuse first` {
		t.Error(err)
	}
	if _, err := model.Freeze(chain(model.Shape{2}, dense("fc", 1))); text(err) != `net.yaml:3: dense "fc": has no shape yet: run Shapes first` {
		t.Error(err)
	}
}

func TestWeightBytes(t *testing.T) {
	elements := 3*3*2*4 + 3*3*2*6 + 2*2*6*5 + 5*3 // c1, c2 in 2 groups, fc1 after flatten of 2x2x6, fc2
	channels := 4 + 6 + 5 + 3
	full := must(t)(model.Freeze(calibrated(t, "fp32", nil))).WeightBytes()
	if full != 4*elements {
		t.Fatalf("fp32: %d bytes, want %d", full, 4*elements)
	}
	if got := must(t)(model.Fuse(cnn(t))).WeightBytes(); got != full {
		t.Errorf("float model: %d bytes, want %d", got, full)
	}
	packed := func(bits int) int {
		total := 0
		for _, n := range []int{72, 108, 120, 15} {
			total += (n*bits + 7) / 8
		}
		return total
	}
	for name, want := range map[string]int{
		"fp16": full / 2, "bf16": full / 2,
		"int8": elements + 4*channels, "w4a8": packed(4) + 4*channels, "int3": packed(3) + 4*channels, "w2a4": packed(2) + 4*channels, "w1a8": packed(1) + 4*channels,
	} {
		m := calibrated(t, name, nil)
		if got := m.WeightBytes(); got != want {
			t.Errorf("%s quantized: %d bytes, want %d", name, got, want)
		}
		if got := must(t)(model.Freeze(m)).WeightBytes(); got != want {
			t.Errorf("%s frozen: %d bytes, want %d", name, got, want)
		}
	}
	if got := calibrated(t, "int8", func(q *model.QuantConfig) { q.Weight.Per = quant.PerTensor }).WeightBytes(); got != elements+4*4 {
		t.Errorf("int8 per tensor: %d bytes, want one scale for each of 4 layers", got)
	}
	for bits, want := range map[quant.Format]int{quant.Int2: 2, quant.Int3: 3, quant.Int8: 7, quant.FP16: 14, quant.FP32: 28} {
		if got := model.PackedBytes(7, bits); got != want {
			t.Errorf("7 values of %s take %d bytes, want %d", bits, got, want)
		}
	}
}

func TestMACs(t *testing.T) {
	m := must(t)(model.Fuse(cnn(t)))
	for name, want := range map[string]int{"c1": 8 * 8 * 4 * 9 * 2, "p1": 0, "c2": 2 * 2 * 6 * 9 * 2, "flat": 0, "fc1": 24 * 5, "fc2": 15} {
		n := m.Node(name)
		if got := m.MACs(n); got != want {
			t.Errorf("%s: %d multiplications, want %d", name, got, want)
		}
	}
	// Counted by the loops themselves, where no padding makes the count smaller.
	inside := must(t)(model.Shapes(chain(model.Shape{9, 7, 6}, edit(conv("c", 4, 3, 2, 0), func(n *model.Node) { n.Attr.Groups = 2 }))))
	counted := 0
	products(&inside.Nodes[0], inside.Inputs[0].Shape, func(int, int, int) { counted++ })
	if got := inside.MACs(&inside.Nodes[0]); got != counted || counted != 4*3*4*9*3 {
		t.Errorf("grouped conv: %d multiplications, the loops make %d", got, counted)
	}
	bare := chain(model.Shape{2}, dense("fc", 1))
	if bare.MACs(&bare.Nodes[0]) != 0 || bare.WeightBytes() != 0 {
		t.Error("a model without shapes has sizes")
	}
}

func Example() {
	m := model.New("digits", model.Input{Name: "pixels", Shape: model.Shape{4}, Scale: 1.0 / 16})
	m.Append(model.Node{Name: "fc1.dense", Layer: "fc1", Op: model.Dense, Attr: model.Attr{Units: 3, Bias: true}})
	m.Append(model.Node{Name: "fc1", Layer: "fc1", Op: model.ReLU})
	m.Append(model.Node{Name: "fc2", Layer: "fc2", Op: model.Dense, Attr: model.Attr{Units: 2, Bias: true}})

	p, err := quant.ParsePrecision("w4a8")
	if err != nil {
		fmt.Println(err)
		return
	}
	passes := []func(*model.Model) (*model.Model, error){
		model.Shapes, model.Fuse,
		func(m *model.Model) (*model.Model, error) { return model.Place(m, model.DefaultQuant(p)) },
		model.Share,
	}
	for _, pass := range passes {
		if m, err = pass(m); err != nil {
			fmt.Println(err)
			return
		}
	}
	for _, name := range m.QuantNames() {
		fmt.Println(name, m.Quant[name].Spec)
	}
	// A range from calibration, weights from training; then the model can be deployed.
	m.Quant["fc1"].Scale, m.Quant["fc1"].Zero = []float32{0.01}, []int32{0}
	copy(m.Params["fc1.weight"].Data, []float32{0.7, -0.3, 0.1})
	frozen, err := model.Freeze(m)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(frozen.Params["fc1.weight"].Codes[:3], frozen.WeightBytes(), "bytes")
	// Output:
	// fc1 int8 affine/tensor/envelope
	// fc1.weight int4 symmetric/channel/minmax
	// fc2.weight int4 symmetric/channel/minmax
	// pixels int8 affine/tensor/minmax
	// [7 -7 7] 29 bytes
}
