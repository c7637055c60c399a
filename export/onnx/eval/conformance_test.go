package eval_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/export/onnx/eval"
	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

type jsonTensor struct {
	Name  string
	DType string
	Shape []int
	Data  []any
	Bits  []int64
}

type jsonCase struct {
	Name         string
	Nodes        []struct{ Op string }
	GraphInputs  []string     `json:"graph_inputs"`
	Initializers []jsonTensor `json:"initializers"`
	DataSets     []struct {
		Inputs, Outputs []jsonTensor
	} `json:"data_sets"`
	B64 string `json:"model_b64"`
}

func readCase(path string) (jsonCase, []byte, error) {
	var c jsonCase
	b, err := os.ReadFile(path)
	if err != nil {
		return c, nil, err
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, nil, err
	}
	model, err := base64.StdEncoding.DecodeString(c.B64)
	return c, model, err
}

// tensor converts the JSON form. Numbers are exact: float32 in the shortest decimal that reads back.
func (j jsonTensor) tensor() (eval.Tensor, error) {
	t := eval.Tensor{Shape: j.Shape}
	for d := onnxpb.Float; d <= onnxpb.Int2; d++ {
		if d.String() == j.DType {
			t.Type = d
		}
	}
	real := t.Type == onnxpb.Float || t.Type == onnxpb.Double || t.Type == onnxpb.Float16 || t.Type == onnxpb.BFloat16
	_, _, small := t.Type.IntRange()
	if !real && !small && t.Type != onnxpb.Int64 && t.Type != onnxpb.Bool {
		return t, fmt.Errorf("element type %q", j.DType)
	}
	for _, d := range j.Data {
		v := 0.0
		switch d := d.(type) {
		case float64:
			v = d
		case bool:
			if d {
				v = 1
			}
		case string:
			v = map[string]float64{"NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1)}[d]
		}
		switch {
		case t.Type == onnxpb.Float:
			t.Reals = append(t.Reals, float64(float32(v)))
		case real:
			t.Reals = append(t.Reals, v)
		default:
			t.Ints = append(t.Ints, int64(v))
		}
	}
	return t, nil
}

func runCase(c jsonCase, file []byte) error {
	model, err := onnxpb.Unmarshal(file)
	if err != nil {
		return err
	}
	p, err := eval.Load(model)
	if err != nil {
		return err
	}
	for _, set := range c.DataSets {
		inputs := map[string]eval.Tensor{}
		next := 0
		for _, name := range p.Inputs() {
			if next >= len(set.Inputs) {
				return fmt.Errorf("no value for input %q", name)
			}
			t, err := set.Inputs[next].tensor()
			if err != nil {
				return err
			}
			inputs[name] = t
			next++
		}
		got, err := p.Run(inputs, eval.Float, nil)
		if err != nil {
			return err
		}
		for i, name := range p.Outputs() {
			want, err := set.Outputs[i].tensor()
			if err != nil {
				return err
			}
			if err := compare(got[name], want); err != nil {
				return fmt.Errorf("output %q: %w", name, err)
			}
		}
	}
	return nil
}

// compare is exact for integers; reals within the tolerance of the suite's README.
func compare(got, want eval.Tensor) error {
	if got.Type != want.Type || !slices.Equal(got.Shape, want.Shape) {
		return fmt.Errorf("%v%v, want %v%v", got.Type, got.Shape, want.Type, want.Shape)
	}
	if !slices.Equal(got.Ints, want.Ints) {
		return fmt.Errorf("%v, want %v", got.Ints, want.Ints)
	}
	rel := 1e-3
	if want.Type == onnxpb.Float16 {
		rel = 2e-3
	}
	for i, w := range want.Reals {
		g := got.Reals[i]
		if g != w && !(g != g && w != w) && !(math.Abs(g-w) <= 1e-5+rel*math.Abs(w)) {
			return fmt.Errorf("element %d is %v, want %v", i, g, w)
		}
	}
	return nil
}

// Every case of the table is present and passes. The files are copies of the ONNX suite (see testdata/README.md).
func TestConformance(t *testing.T) {
	for _, name := range supported {
		c, file, err := readCase(filepath.Join("testdata", "cases", name+".json"))
		if err == nil {
			err = runCase(c, file)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The table leaves nothing out: each case of the whole suite that is about an operator of this package is either
// supported or excused with a reason, and the copies in testdata are those of the suite.
func TestConformanceTableIsComplete(t *testing.T) {
	shared := os.Getenv("NARROW_SHARED")
	if shared == "" {
		t.Skip("NARROW_SHARED is not set: the whole suite is not at hand")
	}
	paths, err := filepath.Glob(filepath.Join(shared, "conformance", "onnx", "cases", "*.json"))
	if err != nil || len(paths) != 613 {
		t.Fatalf("%d cases (%v), want 613", len(paths), err)
	}
	for _, path := range paths {
		c, file, err := readCase(path)
		if err != nil {
			t.Fatal(err)
		}
		about := false
		for _, n := range c.Nodes {
			about = about || slices.Contains(operators, n.Op)
		}
		isSupported := slices.Contains(supported, c.Name)
		reason, isExcused := excused[c.Name]
		switch {
		case isSupported && isExcused:
			t.Errorf("%s is both supported and excused", c.Name)
		case isSupported:
			original, err1 := os.ReadFile(path)
			copied, err2 := os.ReadFile(filepath.Join("testdata", "cases", c.Name+".json"))
			if err1 != nil || err2 != nil || !bytes.Equal(original, copied) {
				t.Errorf("%s: the copy differs from the suite's (%v, %v)", c.Name, err1, err2)
			}
		case isExcused:
			err := runCase(c, file)
			if err == nil {
				t.Errorf("%s passes, yet it is excused (%s)", c.Name, reason)
			}
			if err != nil && !errors.Is(err, eval.ErrUnsupported) && !strings.Contains(err.Error(), "element type") {
				t.Errorf("%s is excused (%s) but fails otherwise: %v", c.Name, reason, err)
			}
		case about:
			t.Errorf("%s: neither supported nor excused (runs: %v)", c.Name, runCase(c, file))
		}
	}
}
