package qtest

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"
)

//go:embed testdata/torch/*.json
var embedded embed.FS

// Tensor is one tensor of a golden case: flat, row-major.
type Tensor struct {
	DType string  `json:"dtype"`
	Shape []int   `json:"shape"`
	Data  Numbers `json:"data"`
	Bits  []int   `json:"bits"` // raw codes of float16 and bfloat16 data
}

// Numbers is a list of numbers in which NaN and the infinities are the
// strings "NaN", "Infinity" and "-Infinity".
type Numbers []float64

// UnmarshalJSON reads numbers and the three strings.
func (n *Numbers) UnmarshalJSON(b []byte) error {
	var raw []any
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	out := make(Numbers, len(raw))
	for i, v := range raw {
		switch v := v.(type) {
		case float64:
			out[i] = v
		case bool:
			if v {
				out[i] = 1
			}
		case string:
			switch v {
			case "NaN":
				out[i] = math.NaN()
			case "Infinity":
				out[i] = math.Inf(1)
			case "-Infinity":
				out[i] = math.Inf(-1)
			default:
				return fmt.Errorf("element %d: %q is not a number", i, v)
			}
		default:
			return fmt.Errorf("element %d: %T is not a number", i, v)
		}
	}
	*n = out
	return nil
}

// F32 returns the data as float32; golden float32 values are exact in it.
func (t Tensor) F32() []float32 {
	out := make([]float32, len(t.Data))
	for i, v := range t.Data {
		out[i] = float32(v)
	}
	return out
}

// I32 returns the data as int32.
func (t Tensor) I32() []int32 {
	out := make([]int32, len(t.Data))
	for i, v := range t.Data {
		out[i] = int32(v)
	}
	return out
}

// Case is one golden case. Upstream is the gradient fed into an output, Grads
// the resulting gradient of an input.
type Case struct {
	Name     string            `json:"name"`
	Params   map[string]any    `json:"params"`
	Inputs   map[string]Tensor `json:"inputs"`
	Outputs  map[string]Tensor `json:"outputs"`
	Upstream map[string]Tensor `json:"upstream"`
	Grads    map[string]Tensor `json:"grads"`
	Note     string            `json:"note"`
}

// Float returns a numeric parameter, or def when the case has none.
func (c Case) Float(name string, def float64) float64 {
	if v, ok := c.Params[name].(float64); ok {
		return v
	}
	return def
}

// Int returns an integer parameter, or def when the case has none.
func (c Case) Int(name string, def int) int { return int(c.Float(name, float64(def))) }

// Bool returns a boolean parameter; a missing one is false.
func (c Case) Bool(name string) bool {
	v, _ := c.Params[name].(bool)
	return v
}

// Str returns a string parameter; a missing one is "".
func (c Case) Str(name string) string {
	v, _ := c.Params[name].(string)
	return v
}

// Cases returns the golden cases of an operation. It skips the test when the
// operation's file is neither here nor under NARROW_SHARED.
func Cases(t testing.TB, op string) []Case {
	t.Helper()
	b, err := embedded.ReadFile("testdata/torch/" + op + ".json")
	if errors.Is(err, fs.ErrNotExist) {
		dir := os.Getenv("NARROW_SHARED")
		if dir == "" {
			t.Skipf("golden vectors of %q are not in this repository: set NARROW_SHARED to the directory that holds conformance/torch", op)
		}
		b, err = os.ReadFile(filepath.Join(dir, "conformance", "torch", op+".json"))
	}
	if err != nil {
		t.Fatalf("golden vectors of %q: %v", op, err)
	}
	var file struct {
		Format int    `json:"format"`
		Op     string `json:"op"`
		Cases  []Case `json:"cases"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatalf("golden vectors of %q: %v", op, err)
	}
	if file.Format != 1 || file.Op != op || len(file.Cases) == 0 {
		t.Fatalf("golden vectors of %q: format %d, op %q, %d cases", op, file.Format, file.Op, len(file.Cases))
	}
	return file.Cases
}

// Exceptions maps the name of a case that cannot pass to the reason.
type Exceptions map[string]string

// Conform runs check on every case of op. A case outside exceptions must pass;
// a case inside must fail, so that the list never outlives its reasons, and
// each name listed must exist.
func Conform(t *testing.T, op string, exceptions Exceptions, check func(Case) error) {
	t.Helper()
	passed, seen := 0, 0
	for _, c := range Cases(t, op) {
		err := check(c)
		why, listed := exceptions[c.Name]
		if listed {
			seen++
		}
		switch {
		case !listed && err != nil:
			t.Errorf("%s: %v (params %v)", c.Name, err, c.Params)
		case listed && err == nil:
			t.Errorf("%s passes but is listed as an exception (%s): remove it from the list", c.Name, why)
		case !listed:
			passed++
		}
	}
	if seen != len(exceptions) {
		t.Errorf("%s: %d exceptions listed, %d of them are cases", op, len(exceptions), seen)
	}
	t.Logf("%s: %d cases pass, %d exceptions", op, passed, seen)
}
