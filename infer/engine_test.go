package infer_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/internal/cpu"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

func TestLoad(t *testing.T) {
	rnd := rand.New(rand.NewPCG(8, 8))
	m := randomNet(t, rnd)
	x := randomBytes(rnd, 4*m.Inputs[0].Shape.Size())
	path := filepath.Join(t.TempDir(), "model.narrow")
	var file bytes.Buffer
	for _, precision := range []string{"fp32", "fp16", "bf16", "int8", "w3a8", "w4a16", "int16"} {
		frozen := pass(t, quantized(t, m, precision, x, rnd), model.Freeze)
		file.Reset()
		if err := model.Encode(&file, frozen); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := infer.Load(path, infer.Options{})
		if err != nil {
			t.Fatal(err)
		}
		direct := compile(t, frozen, infer.Options{})
		got, want := make([]float32, 4*e.Classes()), make([]float32, 4*e.Classes())
		if err := errors.Join(e.Run(got, x, 4), direct.Run(want, x, 4)); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: the loaded model gives %v, want %v (%v)", precision, got, want, err)
		}
	}
	if err := os.WriteFile(path, file.Bytes()[:100], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := infer.Load(path, infer.Options{}); !errors.Is(err, model.ErrFileLength) || !strings.Contains(err.Error(), "model.narrow") {
		t.Errorf("cut file: %v", err)
	}
	if _, err := infer.Load(path+".none", infer.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// TestEngineKeepsItsWeights lets training go on after a float model was compiled.
func TestEngineKeepsItsWeights(t *testing.T) {
	rnd := rand.New(rand.NewPCG(10, 10))
	m := randomNet(t, rnd)
	x := randomBytes(rnd, m.Inputs[0].Shape.Size())
	for _, precision := range []string{"fp32", "int8"} {
		q := quantized(t, m, precision, x, rnd)
		e := compile(t, q, infer.Options{})
		before, after := make([]float32, e.Classes()), make([]float32, e.Classes())
		if err := e.Run(before, x, 1); err != nil {
			t.Fatal(err)
		}
		for _, p := range q.Params {
			for i := range p.Data {
				p.Data[i] += 1
			}
		}
		if err := e.Run(after, x, 1); err != nil || !slices.Equal(before, after) {
			t.Errorf("%s: logits changed with the masters (%v)", precision, err)
		}
	}
}

// TestTraceOrder holds what a visitor sees: every tensor of every batch by name, the input first, and shared memory where
// the operation is only another shape.
func TestTraceOrder(t *testing.T) {
	m := extremeNet(t, 128, 1)
	e := compile(t, m, infer.Options{Workers: 1, MaxBatch: 2})
	var seen []string
	err := e.Trace(make([]uint8, 3*e.InputSize()), 3, func(v infer.Tensor) error {
		n := max(len(v.Codes), len(v.Values))
		if n != v.N*v.Shape.Size() || (v.Codes != nil) == (v.Values != nil) || (v.Params != m.Quant[v.Name] && v.Name != "out") {
			t.Errorf("%+v", v)
		}
		seen = append(seen, fmt.Sprintf("%s:%d+%d:%t", v.Name, v.First, v.N, v.Acc != nil))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "x:0+2:false c:0+2:true act:0+2:false own:0+2:false flat:0+2:false out:0+2:true " +
		"x:2+1:false c:2+1:true act:2+1:false own:2+1:false flat:2+1:false out:2+1:true"
	if got := strings.Join(seen, " "); got != want {
		t.Errorf("visited %s\nwant    %s", got, want)
	}
}

func TestDescribe(t *testing.T) {
	e := compile(t, extremeNet(t, 3, 1), infer.Options{Workers: 2, MaxBatch: 7})
	text := e.Describe().String()
	for _, want := range []string{"tier " + cpu.Describe(), "workers 2, batches of 7", "rounds " + describedRounding, "c: u8 x s8 convolution", "act: u8 max-pool", "own: u8 maximum", "flat: none", "out: u8 x s8 matrix product, scaled to float32"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestRefusals(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 9))
	m := randomNet(t, rnd)
	x := randomBytes(rnd, m.Inputs[0].Shape.Size())
	e := compile(t, m, infer.Options{})
	for _, tt := range []struct{ logits, x, n int }{{e.Classes(), len(x) - 1, 1}, {e.Classes() - 1, len(x), 1}, {e.Classes(), len(x), 2}, {e.Classes(), len(x), -1}, {e.Classes(), len(x), math.MaxInt}} {
		if err := e.Run(make([]float32, tt.logits), x[:tt.x], tt.n); err == nil || !strings.Contains(err.Error(), "bytes of input") {
			t.Errorf("%+v: %v", tt, err)
		}
	}
	for _, n := range []int{-1, 2, math.MaxInt} {
		if err := e.Trace(x, n, func(infer.Tensor) error { return nil }); err == nil {
			t.Errorf("Trace of %d examples in the bytes of one passed", n)
		}
	}
	if err := e.Run(nil, nil, 0); err != nil {
		t.Errorf("no examples: %v", err)
	}
	stop := errors.New("stop")
	if err := e.Trace(x, 1, func(infer.Tensor) error { return stop }); err != stop {
		t.Errorf("the visitor's error came back as %v", err)
	}
	for _, o := range []infer.Options{{Workers: -1}, {MaxBatch: -1}} {
		if _, err := infer.Compile(m, o); err == nil {
			t.Errorf("%+v passed", o)
		}
	}
	q := pass(t, m, func(m *model.Model) (*model.Model, error) {
		return model.Place(m, model.DefaultQuant(quant.Precision{Weight: quant.Int8, Act: quant.Int8}))
	}, model.Share)
	if _, err := infer.Compile(q, infer.Options{}); err == nil || !strings.Contains(err.Error(), "calibrate") {
		t.Errorf("no ranges: %v", err)
	}
	q = quantized(t, m, "int8", x, rnd)
	frozen := pass(t, q, model.Freeze)
	frozen.Nodes[0].Requant.M[0] = 0
	if _, err := infer.Compile(frozen, infer.Options{}); err == nil || !strings.Contains(err.Error(), "multiplier[0] is 0") {
		t.Errorf("multiplier 0: %v", err)
	}
}

func TestArgMax(t *testing.T) {
	nan := float32(math.NaN())
	for _, tt := range []struct {
		logits []float32
		want   int
	}{{nil, -1}, {[]float32{3}, 0}, {[]float32{1, 3, 3, 2}, 1}, {[]float32{-1, -1}, 0}, {[]float32{nan, -5, 2}, 2}, {[]float32{1, nan}, 0}, {[]float32{nan, nan}, 0}} {
		if got := infer.ArgMax(tt.logits); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.logits, got, tt.want)
		}
	}
}

// TestCompileShapesAndFuses gives Compile a model as it was written: no shapes, batch norm and ReLU as nodes.
func TestCompileShapesAndFuses(t *testing.T) {
	m := model.New("raw", model.Input{Name: "x", Shape: model.Shape{1, 1, 2}, Scale: 1})
	m.Append(model.Node{Name: "c.product", Layer: "c", Op: model.Conv, Attr: model.Attr{Kernel: [2]int{1, 1}, Stride: [2]int{1, 1}, Groups: 1, Units: 2}})
	m.Append(model.Node{Name: "c.norm", Layer: "c", Op: model.BatchNorm, Attr: model.Attr{Eps: 0.25, Momentum: 0.1}})
	m.Append(model.Node{Name: "c", Layer: "c", Op: model.ReLU})
	for role, data := range map[string][]float32{
		model.Gamma: {2, -1}, model.Beta: {1, 3}, model.Mean: {4, 0}, model.Var: {0.75, 0}, // gamma/sqrt(var+eps) = 2, -2
	} {
		m.Params["c."+role] = &model.Param{Shape: model.Shape{2}, Data: data}
	}
	m.Params["c.weight"] = &model.Param{Shape: model.Shape{1, 1, 2, 2}, Data: []float32{1, 0, 0, 1}}
	e := compile(t, m, infer.Options{})
	logits := make([]float32, 2)
	if err := e.Run(logits, []uint8{5, 1}, 1); err != nil {
		t.Fatal(err)
	}
	if want := []float32{2*(5-4) + 1, -2*(1-0) + 3}; !slices.Equal(logits, want) {
		t.Errorf("%v, want %v", logits, want)
	}
	if err := e.Run(logits, []uint8{0, 2}, 1); err != nil || logits[0] != 0 || logits[1] != 0 {
		t.Errorf("%v (%v), want zeros: 2*(0-4)+1 and -2*2+3 are negative", logits, err)
	}
	for _, bad := range []func(m *model.Model){
		func(m *model.Model) { m.Nodes[1].Attr.Eps = 0 },
		func(m *model.Model) { m.Nodes[0].In = []string{"y"} },
		func(m *model.Model) { m.Inputs[0].Scale = 0 },
		func(m *model.Model) { m.Nodes[0].Attr.Stride[0] = 0 },
		func(m *model.Model) { m.Params["c.weight"].Data[0] = float32(math.NaN()) },
	} {
		c := m.Clone()
		bad(c)
		if e, err := infer.Compile(c, infer.Options{}); err == nil || e != nil {
			t.Errorf("a bad model compiled: %+v", c.Nodes)
		}
	}
}
