package onnxpb_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

// conformanceFile is the part of a conformance case that the wire format is tested on.
type conformanceFile struct {
	Name      string
	IRVersion int64            `json:"ir_version"`
	Opset     map[string]int64 `json:"opset"`
	Nodes     []struct {
		Op      string
		Inputs  []string
		Outputs []string
	}
	Initializers []struct {
		Name  string
		DType string
		Shape []int64
		Data  []any
	}
	Model []byte `json:"-"`
	B64   string `json:"model_b64"`
}

func readCases(t testing.TB, dir string) []conformanceFile {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases in %s (%v)", dir, err)
	}
	var out []conformanceFile
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		var c conformanceFile
		if err := json.Unmarshal(b, &c); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		if c.Model, err = base64.StdEncoding.DecodeString(c.B64); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		out = append(out, c)
	}
	return out
}

// checkRoundTrip holds a case against its own JSON description and returns whether the bytes came back unchanged.
func checkRoundTrip(t *testing.T, c conformanceFile) (sameBytes bool) {
	t.Helper()
	m, err := onnxpb.Unmarshal(c.Model)
	if err != nil {
		t.Errorf("%s: %v", c.Name, err)
		return false
	}
	if m.IRVersion != c.IRVersion || len(m.Graph.Nodes) != len(c.Nodes) || len(m.Graph.Initializers) != len(c.Initializers) {
		t.Errorf("%s: ir %d, %d nodes, %d initializers; want %d, %d, %d", c.Name, m.IRVersion, len(m.Graph.Nodes),
			len(m.Graph.Initializers), c.IRVersion, len(c.Nodes), len(c.Initializers))
		return false
	}
	for _, o := range m.Opsets {
		domain := o.Domain
		if domain == "" {
			domain = "ai.onnx"
		}
		if c.Opset[domain] != o.Version {
			t.Errorf("%s: opset %q is %d, want %d", c.Name, domain, o.Version, c.Opset[domain])
		}
	}
	for i, n := range m.Graph.Nodes {
		want := c.Nodes[i]
		if n.Op != want.Op || len(n.Inputs) != len(want.Inputs) || len(n.Outputs) != len(want.Outputs) {
			t.Errorf("%s: node %d is %s%v->%v, want %+v", c.Name, i, n.Op, n.Inputs, n.Outputs, want)
		}
	}
	for i, in := range m.Graph.Initializers {
		want := c.Initializers[i]
		if in.Name != want.Name || in.Type.String() != want.DType {
			t.Errorf("%s: initializer %q %v, want %q %s", c.Name, in.Name, in.Type, want.Name, want.DType)
		}
		checkElements(t, c.Name, in, want.Data)
	}
	out := onnxpb.Marshal(m)
	again, err := onnxpb.Unmarshal(out)
	if err != nil {
		t.Errorf("%s: reading back: %v", c.Name, err)
		return false
	}
	if !reflect.DeepEqual(m, again) {
		t.Errorf("%s: written and read back, the model differs", c.Name)
	}
	return bytes.Equal(out, c.Model)
}

// checkElements compares the decoded initializer with the numbers of the JSON description.
func checkElements(t *testing.T, name string, in *onnxpb.Tensor, want []any) {
	t.Helper()
	var got []float64
	switch in.Type {
	case onnxpb.Float, onnxpb.Double, onnxpb.Float16, onnxpb.BFloat16:
		v, err := in.Reals()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		got = v
	default:
		v, err := in.Ints()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		for _, x := range v {
			got = append(got, float64(x))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: initializer %q has %d elements, want %d", name, in.Name, len(got), len(want))
		return
	}
	for i, w := range want {
		f, ok := w.(float64)
		if b, is := w.(bool); is {
			ok = true
			if b {
				f = 1
			}
		}
		if in.Type == onnxpb.Float {
			f = float64(float32(f))
		}
		if ok && got[i] != f {
			t.Errorf("%s: initializer %q[%d] = %v, want %v", name, in.Name, i, got[i], f)
			return
		}
	}
}

// The models that travel with the repository (testdata of the interpreter).
func TestRoundTrip(t *testing.T) {
	cases := readCases(t, filepath.Join("..", "eval", "testdata", "cases"))
	same := 0
	for _, c := range cases {
		if checkRoundTrip(t, c) {
			same++
		}
	}
	if len(cases) != 230 || same < 227 {
		t.Errorf("%d cases, %d with equal bytes; want 230 and at least 227", len(cases), same)
	}
}

// Every model of the ONNX suite is read, matches its description, and survives a round trip.
func TestRoundTripConformance(t *testing.T) {
	shared := os.Getenv("NARROW_SHARED")
	if shared == "" {
		t.Skip("NARROW_SHARED is not set: the 613 conformance models are not at hand")
	}
	same := 0
	cases := readCases(t, filepath.Join(shared, "conformance", "onnx", "cases"))
	for _, c := range cases {
		if checkRoundTrip(t, c) {
			same++
		} else {
			t.Logf("%s: the bytes differ", c.Name)
		}
	}
	t.Logf("%d models, %d came back as the same bytes", len(cases), same)
	// Three function-expanded models list their constants' value before its name; all others come back byte for byte.
	if len(cases) != 613 || same < 610 {
		t.Errorf("%d cases, %d with equal bytes; want 613 and at least 610", len(cases), same)
	}
}
