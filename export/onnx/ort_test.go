package onnx_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/export/onnx"
	"github.com/narrow-ml/narrow/export/onnx/eval"
	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// ortTensor and ortJob are what testdata/clients/run.js reads and prints.
type ortTensor struct {
	Name string `json:"name"`
	Type string `json:"type"`
	Dims []int  `json:"dims"`
	File string `json:"file"`
}

type ortJob struct {
	Model     string      `json:"model"`
	Optimized string      `json:"optimized,omitempty"`
	Dir       string      `json:"dir"`
	Inputs    []ortTensor `json:"inputs"`
}

// runORT runs each model on its input in ONNX Runtime, and returns the outputs and the fused graphs.
func runORT(t *testing.T, models []*onnxpb.Model, inputs []eval.Tensor) (out []map[string]eval.Tensor, fused []*onnxpb.Model) {
	t.Helper()
	lists := make([][]eval.Tensor, len(inputs))
	for i, in := range inputs {
		lists[i] = []eval.Tensor{in}
	}
	return runORTMany(t, models, lists)
}

// runORTMany is runORT for models with several inputs.
func runORTMany(t *testing.T, models []*onnxpb.Model, inputs [][]eval.Tensor) (out []map[string]eval.Tensor, fused []*onnxpb.Model) {
	t.Helper()
	home := os.Getenv("NARROW_ORT")
	if home == "" {
		t.Skip("NARROW_ORT is not set: no ONNX Runtime (see testdata/clients/README.md)")
	}
	var jobs []ortJob
	for i, m := range models {
		dir := filepath.Join(t.TempDir(), fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		job := ortJob{Model: filepath.Join(dir, "m.onnx"), Optimized: filepath.Join(dir, "fused.onnx"), Dir: dir}
		for k, in := range m.Graph.Inputs {
			x := inputs[i][k]
			feed := ortTensor{Name: in.Name, Type: "uint8", Dims: x.Shape, File: filepath.Join(dir, fmt.Sprintf("x%d.bin", k))}
			if x.IsReal() {
				feed.Type = "float32"
			}
			if err := os.WriteFile(feed.File, rawBytes(x), 0o600); err != nil {
				t.Fatal(err)
			}
			job.Inputs = append(job.Inputs, feed)
		}
		if err := os.WriteFile(job.Model, onnxpb.Marshal(m), 0o600); err != nil {
			t.Fatal(err)
		}
		jobs = append(jobs, job)
	}
	request, err := json.Marshal(jobs)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", filepath.Join("testdata", "clients", "run.js"))
	cmd.Stdin = bytes.NewReader(request)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	answer, err := cmd.Output()
	if err != nil {
		t.Fatalf("onnxruntime: %v\n%s", err, stderr.String())
	}
	var answers [][]ortTensor
	if err := json.Unmarshal(answer, &answers); err != nil {
		t.Fatal(err)
	}
	for i, list := range answers {
		seen := map[string]eval.Tensor{}
		for _, o := range list {
			raw, err := os.ReadFile(o.File)
			if err != nil {
				t.Fatal(err)
			}
			seen[o.Name] = fromBytes(o, raw)
		}
		out = append(out, seen)
		raw, err := os.ReadFile(jobs[i].Optimized)
		if err != nil {
			t.Fatal(err)
		}
		g, err := onnxpb.Unmarshal(raw)
		if err != nil {
			t.Fatal(err)
		}
		fused = append(fused, g)
	}
	return out, fused
}

func rawBytes(t eval.Tensor) []byte {
	var b []byte
	for _, v := range t.Float32s() {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	for _, q := range t.Ints {
		b = append(b, byte(q))
	}
	return b
}

func fromBytes(o ortTensor, raw []byte) eval.Tensor {
	if o.Type == "float32" {
		v := make([]float32, len(raw)/4)
		for i := range v {
			v[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		return eval.FloatTensor(o.Dims, v)
	}
	t := eval.Tensor{Type: onnxpb.Uint8, Shape: o.Dims}
	for _, q := range raw {
		t.Ints = append(t.Ints, int64(q))
	}
	return t
}

// cut makes a model of the nodes that lead from one tensor of codes to another tensor.
func cut(m *onnxpb.Model, from string, to string, in, out eval.Tensor) *onnxpb.Model {
	return cutMany(m, []string{from}, to, []eval.Tensor{in}, out)
}

// cutMany is cut for nodes that lead from several tensors.
func cutMany(m *onnxpb.Model, from []string, to string, in []eval.Tensor, out eval.Tensor) *onnxpb.Model {
	need := map[string]bool{to: true}
	var nodes []*onnxpb.Node
	for i := len(m.Graph.Nodes) - 1; i >= 0; i-- {
		n := m.Graph.Nodes[i]
		if !need[n.Outputs[0]] || slices.Contains(from, n.Outputs[0]) {
			continue
		}
		nodes = append(nodes, n)
		for _, name := range n.Inputs {
			need[name] = true
		}
	}
	slices.Reverse(nodes)
	g := &onnxpb.Graph{Name: to, Nodes: nodes}
	for _, t := range m.Graph.Initializers {
		if need[t.Name] {
			g.Initializers = append(g.Initializers, t)
		}
	}
	info := func(name string, t eval.Tensor) *onnxpb.ValueInfo {
		shape := &onnxpb.Shape{Dims: []onnxpb.Dim{onnxpb.SymbolicDim("N")}}
		for _, d := range t.Shape[1:] {
			shape.Dims = append(shape.Dims, onnxpb.FixedDim(int64(d)))
		}
		return &onnxpb.ValueInfo{Name: name, Type: onnxpb.TensorType(t.Type, shape)}
	}
	for i, name := range from {
		g.Inputs = append(g.Inputs, info(name, in[i]))
	}
	g.Outputs = []*onnxpb.ValueInfo{info(to, out)}
	return &onnxpb.Model{IRVersion: m.IRVersion, Opsets: m.Opsets, Graph: g}
}

// Each layer, fed with our codes: at most one step from the integer reading, in fewer than 0.1 % of the codes; logits
// within 1e-4 of the largest. And the layers run as integer kernels.
func TestONNXRuntimePerLayer(t *testing.T) {
	const n = 256
	for _, p := range precisions(t, "int8", "w4a8", "w4a4", "w2a4") {
		t.Run(p.String(), func(t *testing.T) {
			m := frozen(t, p, 21)
			file, err := onnx.Build(m, onnx.Options{})
			if err != nil {
				t.Fatal(err)
			}
			program, err := eval.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			codes := map[string]eval.Tensor{}
			in := m.Inputs[0]
			if _, err := program.Run(map[string]eval.Tensor{in.Name: onnx.InputTensor(in, bytesFor(m, n, 8), n)}, eval.Integer,
				func(name string, v eval.Tensor) error { codes[name] = v; return nil }); err != nil {
				t.Fatal(err)
			}
			var models []*onnxpb.Model
			var feeds []eval.Tensor
			for i := range m.Nodes {
				from, to := m.Nodes[i].In[0], m.Nodes[i].Name
				if from == in.Name {
					from = in.Name + "_codes"
				}
				models = append(models, cut(file, from, to, codes[from], codes[to]))
				feeds = append(feeds, codes[from])
			}
			out, fused := runORT(t, models, feeds)
			for i := range m.Nodes {
				node := &m.Nodes[i]
				comparePerLayer(t, node.Name, out[i][node.Name], codes[node.Name])
				if want := map[model.Op]string{model.Conv: "QLinearConv", model.Dense: "QGemm"}[node.Op]; want != "" && !hasOp(fused[i], want) {
					t.Errorf("%s: not fused to %s: %v", node.Name, want, opsOf(fused[i]))
				}
			}
		})
	}
}

func comparePerLayer(t *testing.T, name string, got, want eval.Tensor) {
	t.Helper()
	if !slices.Equal(got.Shape, want.Shape) {
		t.Fatalf("%s: shape %v, want %v", name, got.Shape, want.Shape)
	}
	if want.IsReal() {
		top, worst := 0.0, 0.0
		for i, v := range want.Reals {
			top, worst = max(top, math.Abs(v)), max(worst, math.Abs(v-got.Reals[i]))
		}
		t.Logf("%s: %d values, largest %.3g, largest difference %.3g", name, want.Len(), top, worst)
		if worst > 1e-4*top {
			t.Errorf("%s: differs by %v of %v", name, worst, top)
		}
		return
	}
	off := 0
	for i, q := range want.Ints {
		if d := got.Ints[i] - q; d != 0 {
			off++
			if d < -1 || d > 1 {
				t.Fatalf("%s[%d]: %d, want %d", name, i, got.Ints[i], q)
			}
		}
	}
	t.Logf("%s: %d codes, %d differ by 1", name, want.Len(), off)
	if off*1000 > want.Len() {
		t.Errorf("%s: %d of %d codes differ", name, off, want.Len())
	}
}

func opsOf(m *onnxpb.Model) []string {
	var ops []string
	for _, n := range m.Graph.Nodes {
		ops = append(ops, n.Op)
	}
	return ops
}

func hasOp(m *onnxpb.Model, op string) bool { return slices.Contains(opsOf(m), op) }

// The whole file runs as integer kernels from the input's QuantizeLinear to the logits, with no layer in float.
func TestONNXRuntimeFusesEverything(t *testing.T) {
	const n = 64
	for _, p := range precisions(t, "int8", "w4a4") {
		m := frozen(t, p, 22)
		file, program := write(t, m, onnx.Options{})
		pb, err := onnxpb.Unmarshal(file)
		if err != nil {
			t.Fatal(err)
		}
		in := m.Inputs[0]
		x := onnx.InputTensor(in, bytesFor(m, n, 9), n)
		out, fused := runORT(t, []*onnxpb.Model{pb}, []eval.Tensor{x})
		ops := opsOf(fused[0])
		count := func(op string) (k int) {
			for _, o := range ops {
				if o == op {
					k++
				}
			}
			return k
		}
		t.Logf("%v: %v", p, ops)
		if count("QLinearConv") != 3 || count("QGemm") != 2 || count("Conv")+count("Gemm")+count("FusedConv") != 0 ||
			count("QuantizeLinear") != 1 || count("DequantizeLinear") != 0 {
			t.Errorf("%v: fused to %v", p, ops)
		}
		want, err := program.Run(map[string]eval.Tensor{in.Name: x}, eval.Integer, nil)
		if err != nil {
			t.Fatal(err)
		}
		same, worst := 0, 0.0
		for i := range n {
			a, b := out[0]["fc2"].Reals[i*5:(i+1)*5], want["fc2"].Reals[i*5:(i+1)*5]
			if slices.Index(a, slices.Max(a)) == slices.Index(b, slices.Max(b)) {
				same++
			}
			for k := range a {
				worst = max(worst, math.Abs(a[k]-b[k]))
			}
		}
		t.Logf("%v: same class in %d of %d, largest difference of logits %.3g", p, same, n, worst)
		if same < n-2 {
			t.Errorf("%v: the class differs in %d of %d", p, n-same, n)
		}
	}
}

// Float files, and int4 weights, give the interpreter's values.
func TestONNXRuntimeFloat(t *testing.T) {
	const n = 32
	for _, c := range []struct {
		precision string
		options   onnx.Options
		relative  float64
		group     int
	}{
		{"fp32", onnx.Options{}, 1e-5, 0}, {"fp16", onnx.Options{}, 0x1p-9, 0}, {"bf16", onnx.Options{}, 0x1p-6, 0}, {"w4a8", onnx.Options{PackInt4: true}, 2e-2, 0},
		{"int16", onnx.Options{}, 1e-4, 0}, {"w8a16", onnx.Options{}, 0x1p-9, 0}, {"w4a16", onnx.Options{}, 0x1p-9, 32}, {"w4a16", onnx.Options{PackInt4: true}, 0x1p-9, 32},
	} {
		p := precisions(t, c.precision)[0]
		m := frozenGroups(t, p, 23, c.group)
		file, program := write(t, m, c.options)
		pb, err := onnxpb.Unmarshal(file)
		if err != nil {
			t.Fatal(err)
		}
		in := m.Inputs[0]
		x := onnx.InputTensor(in, bytesFor(m, n, 10), n)
		pb.Graph.Outputs = append(pb.Graph.Outputs, &onnxpb.ValueInfo{Name: "c1_relu"})
		if p.Act.IsInteger() {
			pb.Graph.Outputs = pb.Graph.Outputs[:1]
		}
		out, fused := runORT(t, []*onnxpb.Model{pb}, []eval.Tensor{x})
		want, err := program.Run(map[string]eval.Tensor{in.Name: x}, eval.Float, nil)
		if err != nil {
			t.Fatal(err)
		}
		top, worst := 0.0, 0.0
		for i, v := range want["fc2"].Reals {
			top, worst = max(top, math.Abs(v)), max(worst, math.Abs(v-out[0]["fc2"].Reals[i]))
		}
		t.Logf("%v: largest logit %.3g, largest difference %.3g; %v", p, top, worst, opsOf(fused[0]))
		if worst > c.relative*top {
			t.Errorf("%v: logits differ by %v of %v", p, worst, top)
		}
		if p.Act.Rounds16() { // the runtime keeps the rounding casts
			got := out[0]["c1_relu"].Float32s()
			rounded := make([]float32, len(got))
			if err := quant.Round16(rounded, got, p.Act); err != nil || !slices.Equal(rounded, got) {
				t.Errorf("%v: c1_relu holds values that are not %v (%v)", p, p.Act, err)
			}
		}
	}
}
