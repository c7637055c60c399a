package onnx_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/export/onnx"
	"github.com/narrow-ml/narrow/export/onnx/eval"
	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// square is a convolution of an odd kernel that keeps the extent at stride 1.
func square(name, from string, units, kernel, stride, groups int) model.Node {
	p := kernel / 2
	n := model.Node{Name: name, Layer: name, Op: model.Conv, Attr: model.Attr{
		Kernel: [2]int{kernel, kernel}, Stride: [2]int{stride, stride}, Pad: [4]int{p, p, p, p}, Groups: groups, Units: units, Bias: true}}
	if from != "" {
		n.In = []string{from}
	}
	return n
}

func limited(name string, limit float32) model.Node {
	return model.Node{Name: name, Layer: name, Op: model.ReLU, Attr: model.Attr{Cap: limit}}
}

// residual has an identity and a strided shortcut, a depthwise layer, limited ReLUs fused and alone, and a global average,
// on an image whose height, width and channels differ.
func residual() *model.Model {
	m := model.New("residual", model.Input{Name: "image", Shape: model.Shape{9, 7, 4}, Scale: 1.0 / 128, Zero: 117})
	m.Append(square("c1", "", 6, 3, 1, 1))
	m.Append(limited("c1_relu", 0))
	m.Append(square("b1", "", 6, 3, 1, 1))
	m.Append(model.Node{Name: "a1", Layer: "a1", Op: model.Add, In: []string{"b1", "c1_relu"}})
	m.Append(limited("a1_relu", 0))
	m.Append(square("d2", "a1_relu", 6, 3, 2, 6))
	m.Append(limited("d2_relu", 1.3))
	m.Append(square("b2", "", 8, 1, 1, 1))
	m.Append(square("s2", "a1_relu", 8, 1, 2, 1))
	m.Append(model.Node{Name: "a2", Layer: "a2", Op: model.Add, In: []string{"s2", "b2"}})
	m.Append(model.Node{Name: "p", Layer: "p", Op: model.MaxPool, Attr: model.Attr{Kernel: [2]int{2, 2}, Stride: [2]int{1, 1}}})
	m.Append(limited("own", 0.8))
	m.Append(square("c3", "own", 8, 3, 1, 1))
	m.Append(model.Node{Name: "a3", Layer: "a3", Op: model.Add, In: []string{"c3", "p"}})
	m.Append(limited("a3_relu", 2))
	m.Append(model.Node{Name: "mean", Layer: "mean", Op: model.GlobalAvgPool})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: 5, Bias: true}})
	return m
}

// frozenResidual gives m random masters and freezes it at a precision, with ranges that its values mostly fill.
func frozenResidual(t *testing.T, m *model.Model, p quant.Precision) *model.Model {
	t.Helper()
	step := func(f func(*model.Model) (*model.Model, error)) {
		t.Helper()
		var err error
		if m, err = f(m); err != nil {
			t.Fatal(err)
		}
	}
	step(model.Shapes)
	step(model.Fuse)
	rng := rand.New(rand.NewPCG(4, 4))
	for _, name := range m.ParamNames() {
		param := m.Params[name]
		fan := float64(len(param.Data) / param.Shape[len(param.Shape)-1])
		for i := range param.Data {
			param.Data[i] = float32(rng.NormFloat64() * 1.5 / math.Sqrt(fan))
		}
	}
	float := m
	if p != quant.Full {
		step(func(m *model.Model) (*model.Model, error) { return model.Place(m, model.DefaultQuant(p)) })
		step(model.Share)
	}
	if p.IsInteger() {
		e := compile(t, float)
		if err := e.Trace(bytesFor(float, 8, 12), 8, func(v infer.Tensor) error {
			if q := m.Quant[v.Name]; q != nil && m.Node(v.Name) != nil && m.Node(v.Name).Op.HasQuantizer() && !q.Ready() {
				part := float32(0.8) // some values saturate
				if m.Node(v.Name).Attr.Cap > 0 {
					part = 1.3 // the limit lies inside the grid
				}
				s, z := q.Spec.Choose(part*slices.Min(v.Values), part*slices.Max(v.Values))
				q.Scale, q.Zero = []float32{s}, []int32{z}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	step(model.Freeze)
	return m
}

func compile(t *testing.T, m *model.Model) *infer.Engine {
	t.Helper()
	e, err := infer.Compile(m, infer.Options{Workers: 1, MaxBatch: 8})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// The integer reading of the file is the engine, to the bit, tensor by tensor; a float file is close to it.
func TestResidualIsTheModel(t *testing.T) {
	const n = 8
	for _, p := range precisions(t, "int8", "w4a8", "w4a4", "w2a4", "fp32", "fp16", "bf16") {
		m := frozenResidual(t, residual(), p)
		_, program := write(t, m, onnx.Options{})
		x := bytesFor(m, n, 13)
		reading := eval.Float
		if p.IsInteger() {
			reading = eval.Integer
		}
		seen := run(t, m, program, x, n, reading)
		compared := 0
		if err := compile(t, m).Trace(x, n, func(v infer.Tensor) error {
			if m.Node(v.Name) == nil {
				return nil
			}
			got, ok := seen[v.Name]
			if !ok || got.Len() != len(v.Codes)+len(v.Values) {
				t.Fatalf("%v: tensor %q has %d elements in the file, %d in the engine", p, v.Name, got.Len(), len(v.Codes)+len(v.Values))
			}
			for i, q := range v.Codes {
				if got.Ints[i] != int64(q) {
					t.Fatalf("%v: %q[%d] is %d in the file, %d in the engine", p, v.Name, i, got.Ints[i], q)
				}
			}
			tolerance := map[quant.Format]float64{quant.FP32: 1e-5, quant.FP16: 8e-3, quant.BF16: 6e-2}[p.Act]
			for i, y := range v.Values {
				if d := math.Abs(got.Reals[i] - float64(y)); !(d <= tolerance*(1+math.Abs(float64(y)))) {
					t.Fatalf("%v: %q[%d] is %v in the file, %v in the engine", p, v.Name, i, got.Reals[i], y)
				}
			}
			compared++
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if compared != len(m.Nodes) {
			t.Errorf("%v: %d of %d tensors compared", p, compared, len(m.Nodes))
		}
	}
}

// TestResidualForm: sums and means between DequantizeLinear and QuantizeLinear, limits on the codes.
func TestResidualForm(t *testing.T) {
	m := frozenResidual(t, residual(), precisions(t, "int8")[0])
	file, err := onnx.Build(m, onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	maker := map[string]*onnxpb.Node{}
	for _, n := range file.Graph.Nodes {
		maker[n.Outputs[0]] = n
	}
	for name, want := range map[string][]string{
		"a2":      {"QuantizeLinear", "Add", "DequantizeLinear", "s2"},
		"mean":    {"Flatten", "QuantizeLinear", "GlobalAveragePool", "DequantizeLinear", "a3_relu"},
		"own":     {"Clip", "p"},
		"d2_relu": {"Clip", "QuantizeLinear", "Conv", "DequantizeLinear", "a1_relu"},
	} {
		var got []string
		for at := name; len(got) < len(want); at = maker[at].Inputs[0] {
			if len(got) == len(want)-1 {
				got = append(got, at)
				break
			}
			got = append(got, maker[at].Op)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s is made by %v, want %v", name, got, want)
		}
	}
}

// A sum of a flattened image and of a vector would add elements in two orders.
func TestRefusesMixedOrders(t *testing.T) {
	m := model.New("mixed", model.Input{Name: "x", Shape: model.Shape{2, 3, 4}, Scale: 1})
	m.Append(model.Node{Name: "flat", Layer: "flat", Op: model.Flatten})
	m.Append(model.Node{Name: "d", Layer: "d", Op: model.Dense, Attr: model.Attr{Units: 24}})
	m.Append(model.Node{Name: "s", Layer: "s", Op: model.Add, In: []string{"d", "flat"}})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: 2}})
	err := onnx.Write(&bytes.Buffer{}, frozenResidual(t, m, precisions(t, "int8")[0]), onnx.Options{})
	if err == nil || !strings.Contains(err.Error(), `add "s": adds a flattened image`) {
		t.Error(err)
	}
}

// Each layer, fed our codes: ONNX Runtime's own arithmetic for sums and means stays within one step.
func TestONNXRuntimeResidual(t *testing.T) {
	const n = 128
	for _, p := range precisions(t, "int8", "w4a8", "w4a4", "w2a4") {
		t.Run(p.String(), func(t *testing.T) {
			m := frozenResidual(t, residual(), p)
			file, err := onnx.Build(m, onnx.Options{})
			if err != nil {
				t.Fatal(err)
			}
			codes := engineCodes(t, compile(t, m), bytesFor(m, n, 14), n)
			in := m.Inputs[0].Name
			var models []*onnxpb.Model
			var feeds [][]eval.Tensor
			var names []string
			for i := range m.Nodes {
				node := &m.Nodes[i]
				if m.IsOutput(node.Name) {
					continue
				}
				var from []string
				var feed []eval.Tensor
				for _, name := range node.In {
					feed = append(feed, codes[name])
					if name == in {
						name += "_codes"
					}
					from = append(from, name)
				}
				models = append(models, cutMany(file, from, node.Name, feed, codes[node.Name]))
				feeds, names = append(feeds, feed), append(names, node.Name)
			}
			out, fused := runORTMany(t, models, feeds)
			for i, name := range names {
				l := &tally{}
				l.add(t, name, out[i][name], codes[name])
				t.Logf("%s: %d codes, %d off by one, %d further; %v", name, l.elements, l.offByOne, l.worse, opsOf(fused[i]))
				if l.worse > 0 || 100*l.offByOne > l.elements {
					t.Errorf("%s: %d of %d codes off by one, %d further", name, l.offByOne, l.elements, l.worse)
				}
			}
		})
	}
}
