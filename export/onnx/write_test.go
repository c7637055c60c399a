package onnx_test

import (
	"bytes"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/export/onnx"
	"github.com/narrow-ml/narrow/export/onnx/eval"
	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// write goes through the bytes.
func write(t testing.TB, m *model.Model, o onnx.Options) ([]byte, *eval.Program) {
	t.Helper()
	var file bytes.Buffer
	if err := onnx.Write(&file, m, o); err != nil {
		t.Fatal(err)
	}
	pb, err := onnxpb.Unmarshal(file.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	p, err := eval.Load(pb)
	if err != nil {
		t.Fatal(err)
	}
	return file.Bytes(), p
}

func run(t testing.TB, m *model.Model, p *eval.Program, x []uint8, n int, r eval.Reading) map[string]eval.Tensor {
	t.Helper()
	in := m.Inputs[0]
	seen := map[string]eval.Tensor{}
	_, err := p.Run(map[string]eval.Tensor{in.Name: onnx.InputTensor(in, x, n)}, r, func(name string, v eval.Tensor) error {
		seen[name] = v.ChannelsLast()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

// The file, read as integers, gives the codes and logits of the Frozen model to the bit, tensor by tensor.
func TestWriteIsTheModel(t *testing.T) {
	const n = 6
	for _, p := range precisions(t, "int8", "w4a8", "w2a8", "w4a4", "w2a4", "w3a5", "w8a2") {
		m := frozen(t, p, 11)
		for _, o := range []onnx.Options{{}, {PackInt4: true}} {
			_, program := write(t, m, o)
			x := bytesFor(m, n, 5)
			seen := run(t, m, program, x, n, eval.Integer)
			size := m.Inputs[0].Shape.Size()
			for i := range n {
				codes, reals := reference(m, x[i*size:(i+1)*size])
				for name, want := range codes {
					if node := m.Node(name); node == nil || node.Op == model.Flatten {
						continue // the input's codes have another name, a flattened image another order
					}
					got := seen[name].Ints[i*len(want) : (i+1)*len(want)]
					for k, q := range want {
						if int64(q) != got[k] {
							t.Fatalf("%v: example %d: tensor %q[%d] is %d in the file, %d in the model (%s)", p, i, name, k, got[k], q, spread(want))
						}
					}
				}
				for name, want := range reals {
					got := seen[name].Float32s()[i*len(want) : (i+1)*len(want)]
					if !slices.Equal(got, want) {
						t.Errorf("%v: example %d: %q is %v, want %v", p, i, name, got, want)
					}
				}
				if i == 0 {
					t.Logf("%v: c1_relu %s, fc1_relu %s", p, spread(codes["c1_relu"]), spread(codes["fc1_relu"]))
				}
			}
		}
	}
}

// Read operator by operator, the same file differs by one step at most in the first layer, where errors cannot add up.
func TestFloatReadingIsClose(t *testing.T) {
	m := frozen(t, precisions(t, "int8")[0], 11)
	_, p := write(t, m, onnx.Options{})
	x := bytesFor(m, 8, 6)
	a, b := run(t, m, p, x, 8, eval.Float), run(t, m, p, x, 8, eval.Integer)
	off := 0
	for i, q := range a["c1_relu"].Ints {
		if d := q - b["c1_relu"].Ints[i]; d != 0 {
			off++
			if d < -1 || d > 1 {
				t.Errorf("c1_relu[%d]: %d and %d", i, q, b["c1_relu"].Ints[i])
			}
		}
	}
	if off*1000 > len(a["c1_relu"].Ints) {
		t.Errorf("%d of %d codes differ", off, len(a["c1_relu"].Ints))
	}
}

// Float models: the interpreter's float64 sums against the same layer in the model's layout.
func TestWriteFloat(t *testing.T) {
	for i, p := range precisions(t, "fp32", "fp16", "bf16", "w8a16", "w3a16", "w4a16", "w4a16") {
		m := frozenGroups(t, p, 12, []int{5: 32, 6: 128}[i])
		_, program := write(t, m, onnx.Options{})
		x := bytesFor(m, 3, 7)
		seen := run(t, m, program, x, 3, eval.Float)
		want := floatReference(t, m, x, 3)
		for i := range m.Nodes {
			n := &m.Nodes[i]
			if n.Op == model.Flatten {
				continue
			}
			got, ref := seen[n.Name].Float32s(), want[n.Name]
			if len(got) != len(ref) {
				t.Fatalf("%v: %q has %d values, want %d", p, n.Name, len(got), len(ref))
			}
			tolerance := map[quant.Format]float64{quant.FP32: 1e-5, quant.FP16: 4e-3, quant.BF16: 3e-2}[p.Act]
			for k := range ref {
				if d := math.Abs(float64(got[k] - ref[k])); !(d <= tolerance*(1+math.Abs(float64(ref[k])))) {
					t.Fatalf("%v: %q[%d] is %v, want %v", p, n.Name, k, got[k], ref[k])
				}
			}
			if p.Act.Rounds16() && !m.IsOutput(n.Name) {
				if err := quant.Round16(ref[:len(got)], got, p.Act); err != nil || !slices.Equal(ref, got) {
					t.Errorf("%v: %q holds values that are not %v (%v)", p, n.Name, p.Act, err)
				}
			}
		}
	}
}

// floatReference computes a Frozen float model in float64 with rounding at every stored tensor.
func floatReference(t *testing.T, m *model.Model, x []uint8, n int) map[string][]float32 {
	in := m.Inputs[0]
	store := func(name string, v []float32) []float32 {
		if q := m.Quant[name]; q != nil {
			if err := quant.Round16(v, v, q.Spec.Format); err != nil {
				t.Fatal(err)
			}
		}
		return v
	}
	first := make([]float32, len(x))
	for i, p := range x {
		first[i] = in.Scale * float32(int32(p)-in.Zero)
	}
	at := map[string][]float32{in.Name: store(in.Name, first)}
	for i := range m.Nodes {
		node := &m.Nodes[i]
		shape, _ := m.ShapeOf(node.In[0])
		size, outSize := shape.Size(), node.Shape.Size()
		out := make([]float32, 0, n*outSize)
		for e := range n {
			v := at[node.In[0]][e*size : (e+1)*size]
			y := make([]float64, outSize)
			switch node.Op {
			case model.Flatten:
				for k := range y {
					y[k] = float64(v[k])
				}
			case model.MaxPool:
				for k := range y {
					y[k] = math.Inf(-1)
				}
				windows(node, shape, func(to, from, _ int) {
					for c := range shape[2] {
						y[to*shape[2]+c] = max(y[to*shape[2]+c], float64(v[from*shape[2]+c]))
					}
				})
			default:
				w, units := m.Params[node.Param(model.Weight)], node.Attr.Units
				weight := func(k int) float64 {
					if w.Half != nil {
						return float64(quant.Decode16(w.Half[k], m.Quant[node.Param(model.Weight)].Spec.Format))
					}
					if w.Codes != nil {
						return value(m, node, k)
					}
					return float64(w.Data[k])
				}
				if node.Op == model.Dense {
					for k, a := range v {
						for c := range units {
							y[c] += float64(a) * weight(k*units+c)
						}
					}
				} else {
					per, perOut := shape[2]/node.Attr.Groups, units/node.Attr.Groups
					windows(node, shape, func(to, from, tap int) {
						for c := range units {
							for k := range per {
								y[to*units+c] += float64(v[from*shape[2]+c/perOut*per+k]) * weight((tap*per+k)*units+c)
							}
						}
					})
				}
				for k := range y {
					if node.Attr.Norm {
						y[k] = y[k]*float64(m.Params[node.Param(model.NormMul)].Data[k%units]) + float64(m.Params[node.Param(model.NormAdd)].Data[k%units])
					} else if b := m.Params[node.Param(model.Bias)]; b != nil {
						y[k] += float64(b.Data[k%units])
					}
					if node.Attr.Relu {
						y[k] = max(0, y[k])
					}
				}
			}
			for _, r := range y {
				out = append(out, float32(r))
			}
		}
		at[node.Name] = store(node.Name, out)
	}
	return at
}

// The form that runtimes fuse: limits as a Clip on codes, only where saturation does not give them; no float Clip; the
// bias as int32 in units of the accumulator; weights never quantized from floats.
func TestGraphForm(t *testing.T) {
	ops := func(m *model.Model, o onnx.Options) (map[string]int, *onnxpb.Model) {
		file, err := onnx.Build(m, o)
		if err != nil {
			t.Fatal(err)
		}
		count := map[string]int{}
		for _, n := range file.Graph.Nodes {
			count[n.Op]++
		}
		return count, file
	}
	full, file := ops(frozen(t, precisions(t, "int8")[0], 1), onnx.Options{})
	if full["Clip"] != 1 || full["Relu"] != 0 || full["Conv"] != 3 || full["Gemm"] != 2 { // fc1_relu alone has lo = 1
		t.Errorf("int8: %v", full)
	}
	if file.IRVersion != 8 || file.Opsets[0].Version != 17 || file.Graph.Inputs[0].Type.Shape.Dims[0].Param != "N" {
		t.Errorf("IR %d, opset %+v, input %+v", file.IRVersion, file.Opsets, file.Graph.Inputs[0].Type)
	}
	if got := file.Metadata[2]; got.Key != "narrow.labels" || got.Value != `["cat","dog","cow","hen","owl"]` {
		t.Errorf("labels: %+v", got)
	}
	narrow, _ := ops(frozen(t, precisions(t, "w4a4")[0], 1), onnx.Options{})
	if narrow["Clip"] != 4 {
		t.Errorf("w4a4: %v", narrow)
	}
	_, packed := ops(frozen(t, precisions(t, "w4a8")[0], 1), onnx.Options{PackInt4: true})
	for _, in := range packed.Graph.Initializers {
		if in.Name == "c2.weight" && in.Type != onnxpb.Int4 {
			t.Errorf("%s is %v", in.Name, in.Type)
		}
	}
	if packed.IRVersion != 10 || packed.Opsets[0].Version != 21 {
		t.Errorf("int4: IR %d, opset %+v", packed.IRVersion, packed.Opsets)
	}
}

func TestWriteIsDeterministic(t *testing.T) {
	for _, p := range precisions(t, "int8", "w4a4", "fp16", "w4a16", "int16") {
		a, _ := write(t, frozen(t, p, 2), onnx.Options{})
		b, _ := write(t, frozen(t, p, 2), onnx.Options{})
		if !bytes.Equal(a, b) {
			t.Errorf("%v: two exports differ", p)
		}
	}
}

func TestPresets(t *testing.T) {
	for _, name := range []string{"", "ort-x64"} {
		if p, err := onnx.ParsePreset(name); err != nil || p != onnx.ORTx64 {
			t.Errorf("%q: %v, %v", name, p, err)
		}
	}
	for name, hint := range map[string]string{"ort-x64-novnni": "int7", "tensorrt": "int8 activations", "qoperator": "QDQ", "x": "allowed: ort-x64"} {
		if _, err := onnx.ParsePreset(name); !errors.Is(err, onnx.ErrPreset) || !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := onnx.Build(frozen(t, precisions(t, "int8")[0], 1), onnx.Options{Preset: "arm"}); !errors.Is(err, onnx.ErrPreset) {
		t.Errorf("arm: %v", err)
	}
}

// Only a Frozen model can be written.
func TestWriteNeedsFrozen(t *testing.T) {
	m := frozen(t, precisions(t, "int8")[0], 1)
	m.Stage = model.Quantized
	if err := onnx.Write(&bytes.Buffer{}, m, onnx.Options{}); err == nil || !strings.Contains(err.Error(), "freeze") {
		t.Errorf("%v", err)
	}
}

// Helper tensors step aside for layers that have their names.
func TestNamesDoNotCollide(t *testing.T) {
	m := frozen(t, precisions(t, "w4a4")[0], 1)
	rename := map[string]string{"c1_relu": "image_codes", "fc1_relu": "image_codes_wide"}
	for i := range m.Nodes {
		for _, s := range []*string{&m.Nodes[i].Name, &m.Nodes[i].In[0]} {
			if to := rename[*s]; to != "" {
				*s = to
			}
		}
	}
	for from, to := range rename {
		m.Quant[to] = m.Quant[from]
		delete(m.Quant, from)
	}
	x := bytesFor(m, 1, 1)
	_, p := write(t, m, onnx.Options{})
	seen := run(t, m, p, x, 1, eval.Integer)
	codes, _ := reference(m, x)
	for _, name := range rename {
		for k, q := range codes[name] {
			if seen[name].Ints[k] != int64(q) {
				t.Fatalf("%q[%d] is %d, want %d", name, k, seen[name].Ints[k], q)
			}
		}
	}
}

// The bytes of an input survive the way through reals, for every scale: s*(p-z) divided by s rounds to p-z.
func TestInputTensor(t *testing.T) {
	for _, s := range []float32{1.0 / 255, 1 / (255 * 0.3081), 0.007843138, 1, 3e-20, 0.1} {
		for _, z := range []int32{0, 33, 255} {
			in := model.Input{Name: "x", Shape: model.Shape{2, 64, 2}, Scale: s, Zero: z}
			all := make([]uint8, 256)
			for i := range all {
				all[i] = uint8(i)
			}
			x := onnx.InputTensor(in, all, 1)
			if !slices.Equal(x.Shape, []int{1, 2, 2, 64}) {
				t.Fatalf("shape %v", x.Shape)
			}
			for i, v := range x.ChannelsLast().Float32s() {
				if q := int32(math.RoundToEven(float64(v/s))) + z; q != int32(i) {
					t.Errorf("s=%v z=%d: byte %d came back as %d", s, z, i, q)
				}
			}
		}
	}
}

// The files pass the ONNX project's own checker (package python3-onnx), shape inference included.
func TestChecker(t *testing.T) {
	const python = "/usr/bin/python3"
	if exec.Command(python, "-c", "import onnx").Run() != nil {
		t.Skip("python3-onnx is not installed")
	}
	dir := t.TempDir()
	args := []string{"-c", "import onnx,sys\nfor f in sys.argv[1:]: onnx.checker.check_model(onnx.load(f), full_check=True)"}
	for i, p := range precisions(t, "int8", "w4a4", "w2a4", "fp32", "fp16", "bf16", "w8a16", "w4a16") {
		file, _ := write(t, frozenGroups(t, p, 2, []int{7: 32}[i]), onnx.Options{})
		path := filepath.Join(dir, p.Weight.String()+p.Act.String()+".onnx")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	if out, err := exec.Command(python, args...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
