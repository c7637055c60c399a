package ptq_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat/ptq"
	"github.com/narrow-ml/narrow/quant"
)

// teacher is a random net: conv, pool, flatten, dense+relu, dense. Its weights are normal, so that low-bit min-max scales
// are far from the best. The last bias takes away the mean logits: all classes are about equally frequent.
func teacher(t testing.TB) *model.Model {
	t.Helper()
	m := model.New("teacher", model.Input{Name: "x", Shape: model.Shape{6, 6, 1}, Scale: 1.0 / 64, Zero: 128})
	m.Append(model.Node{Name: "c1/conv", Layer: "c1", Op: model.Conv, Attr: model.Attr{Kernel: [2]int{3, 3}, Stride: [2]int{1, 1}, Pad: [4]int{1, 1, 1, 1}, Groups: 1, Units: 6}})
	m.Append(model.Node{Name: "c1/norm", Layer: "c1", Op: model.BatchNorm, Attr: model.Attr{Eps: 1e-5, Momentum: 0.1}})
	m.Append(model.Node{Name: "c1", Layer: "c1", Op: model.ReLU})
	m.Append(model.Node{Name: "pool1", Layer: "pool1", Op: model.MaxPool, Attr: model.Attr{Kernel: [2]int{2, 2}, Stride: [2]int{2, 2}}})
	m.Append(model.Node{Name: "flat", Layer: "flat", Op: model.Flatten})
	m.Append(model.Node{Name: "fc1/dense", Layer: "fc1", Op: model.Dense, Attr: model.Attr{Units: 24, Bias: true}})
	m.Append(model.Node{Name: "fc1", Layer: "fc1", Op: model.ReLU})
	m.Append(model.Node{Name: "fc2", Layer: "fc2", Op: model.Dense, Attr: model.Attr{Units: 5, Bias: true}})
	m, err := model.Shapes(m)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = model.Fuse(m); err != nil {
		t.Fatal(err)
	}
	s := rng.New(11, rng.Test)
	for _, name := range m.ParamNames() {
		p := m.Params[name]
		switch {
		case strings.HasSuffix(name, ".weight"):
			for i := range p.Data {
				p.Data[i] = float32(s.Norm()) * 0.4
			}
		case strings.HasSuffix(name, ".bias"):
			for i := range p.Data {
				p.Data[i] = float32(s.Norm()) * 0.1
			}
		}
	}
	set := images(m, 256, 12)
	logits := run(t, m, set)
	bias := m.Params["fc2.bias"].Data
	for c := range bias {
		sum := 0.0
		for i := c; i < len(logits); i += len(bias) {
			sum += float64(logits[i])
		}
		bias[c] -= float32(sum / float64(set.Len()))
	}
	return m
}

// images draws n examples of uniform noise, without labels.
func images(m *model.Model, n int, seed uint64) *datasets.Set {
	set := &datasets.Set{Shape: slices.Clone([]int(m.Inputs[0].Shape)), X: make([]uint8, n*m.Inputs[0].Shape.Size()), Labels: make([]int32, n)}
	s := rng.New(seed, rng.Test)
	for i := range set.X {
		set.X[i] = uint8(s.IntN(256))
	}
	return set
}

// lesson is n images labelled by the float net itself.
func lesson(t testing.TB, m *model.Model, n int, seed uint64) *datasets.Set {
	t.Helper()
	set := images(m, n, seed)
	for i, l := range answers(t, m, set) {
		set.Labels[i] = int32(l)
	}
	return set
}

func run(t testing.TB, m *model.Model, set *datasets.Set) []float32 {
	t.Helper()
	e, err := infer.Compile(m, infer.Options{Workers: 1, MaxBatch: 64})
	if err != nil {
		t.Fatal(err)
	}
	logits := make([]float32, set.Len()*e.Classes())
	if err := e.Run(logits, set.X, set.Len()); err != nil {
		t.Fatal(err)
	}
	return logits
}

func answers(t testing.TB, m *model.Model, set *datasets.Set) []int {
	t.Helper()
	logits := run(t, m, set)
	out := make([]int, set.Len())
	classes := len(logits) / len(out)
	for i := range out {
		out[i] = infer.ArgMax(logits[i*classes : (i+1)*classes])
	}
	return out
}

func agreement(t testing.TB, m *model.Model, set *datasets.Set) float64 {
	t.Helper()
	right := 0
	for i, a := range answers(t, m, set) {
		if int32(a) == set.Labels[i] {
			right++
		}
	}
	return 100 * float64(right) / float64(set.Len())
}

func precision(t testing.TB, name string) model.QuantConfig {
	t.Helper()
	p, err := quant.ParsePrecision(name)
	if err != nil {
		t.Fatal(err)
	}
	return model.DefaultQuant(p)
}

func TestCalibrateFillsWhatFreezeNeeds(t *testing.T) {
	m := teacher(t)
	train := lesson(t, m, 300, 1)
	for _, name := range []string{"int8", "w4a8", "w4a4", "w3a5", "w2a4", "fp16", "bf16", "w8a16", "w3a16", "int16"} {
		for _, method := range []ptq.Method{ptq.MinMax, ptq.Percentile, ptq.MSE, ptq.KL, ptq.Histogram} {
			q, err := ptq.Calibrate(t.Context(), m, precision(t, name), train, ptq.Options{Method: method, Examples: 200, Workers: 1})
			if err != nil {
				t.Fatalf("%s by %s: %v", name, method, err)
			}
			if _, err := model.Freeze(q); err != nil {
				t.Errorf("%s by %s: %v", name, method, err)
			}
			if q.Quant["pool1"] != q.Quant["c1"] || q.Quant["flat"] != q.Quant["c1"] && q.Precision.IsInteger() {
				t.Errorf("%s by %s: pool and flatten no longer share the conv's quantizer", name, method)
			}
		}
	}
	if m.Stage != model.Float || len(m.Quant) != 0 {
		t.Errorf("calibration changed the float model: stage %s, %d quantizers", m.Stage, len(m.Quant))
	}
}

func TestCalibrateSeesTheTensorAfterReLU(t *testing.T) {
	m := teacher(t)
	q, err := ptq.Calibrate(t.Context(), m, precision(t, "int8"), lesson(t, m, 200, 1), ptq.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"c1", "fc1"} {
		if p := q.Quant[name]; p.Zero[0] != 0 {
			t.Errorf("%s: zero point %d; after a ReLU nothing is negative and it must be 0", name, p.Zero[0])
		}
	}
	if p := q.Quant["x"]; p.Scale[0] != 1.0/64 || p.Zero[0] != 128 {
		t.Errorf("input quantizer changed: %+v", p)
	}
	if q.Quant["fc2"] != nil {
		t.Error("the logits got a quantizer")
	}
}

func TestInt8KeepsTheAnswers(t *testing.T) {
	m := teacher(t)
	train, test := lesson(t, m, 300, 1), lesson(t, m, 400, 2)
	q, err := ptq.Calibrate(t.Context(), m, precision(t, "int8"), train, ptq.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	if got := agreement(t, q, test); got < 97 {
		t.Errorf("int8 agrees with float on %.1f %%, want at least 97", got)
	}
}

func TestMSEBeatsMinMaxAtFewBits(t *testing.T) {
	m := teacher(t)
	train, test := lesson(t, m, 300, 1), lesson(t, m, 600, 2)
	for _, name := range []string{"w2a4", "w2a2", "w4a2"} {
		got := map[ptq.Method]float64{}
		for _, method := range []ptq.Method{ptq.MinMax, ptq.MSE} {
			q, err := ptq.Calibrate(t.Context(), m, precision(t, name), train, ptq.Options{Method: method, Workers: 1})
			if err != nil {
				t.Fatal(err)
			}
			got[method] = agreement(t, q, test)
		}
		t.Logf("%s: minmax %.1f %%, mse %.1f %%", name, got[ptq.MinMax], got[ptq.MSE])
		if got[ptq.MSE] <= got[ptq.MinMax] {
			t.Errorf("%s: mse agrees on %.1f %%, minmax on %.1f %%", name, got[ptq.MSE], got[ptq.MinMax])
		}
	}
}

func TestAutoKeepsTheBestOnValidation(t *testing.T) {
	m := teacher(t)
	train, val := lesson(t, m, 300, 1), lesson(t, m, 300, 3)
	r, err := ptq.Quantize(t.Context(), m, precision(t, "w2a4"), train, val, ptq.Options{Method: ptq.Auto, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Trials) != 4 || r.Method == ptq.Auto {
		t.Fatalf("trials %+v, method %s", r.Trials, r.Method)
	}
	for _, trial := range r.Trials {
		q, err := ptq.Calibrate(t.Context(), m, precision(t, "w2a4"), train, ptq.Options{Method: trial.Method, Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		if got := agreement(t, q, val); math.Abs(got-trial.Accuracy()) > 1e-9 {
			t.Errorf("%s: reported %.2f %%, measured %.2f %%", trial.Method, trial.Accuracy(), got)
		}
		if got := agreement(t, r.Model, val); trial.Accuracy() > got {
			t.Errorf("%s has %.2f %%, the winner %s only %.2f %%", trial.Method, trial.Accuracy(), r.Method, got)
		}
	}
	one, err := ptq.Quantize(t.Context(), m, precision(t, "w2a4"), train, nil, ptq.Options{Method: r.Method, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(one.Model.Quant, r.Model.Quant) {
		t.Error("the winner of auto is not what its method gives by itself")
	}
	half, err := ptq.Quantize(t.Context(), m, precision(t, "fp16"), train, val, ptq.Options{Method: ptq.Auto, Workers: 1})
	if err != nil || len(half.Trials) != 0 || half.Method != ptq.MinMax {
		t.Errorf("fp16: %+v, %v; there is nothing to choose", half, err)
	}
}

func TestSameForAnyWorkersAndBatch(t *testing.T) {
	m := teacher(t)
	train := lesson(t, m, 300, 1)
	run := func(o ptq.Options) map[string]*quant.Params {
		q, err := ptq.Calibrate(t.Context(), m, precision(t, "w4a4"), train, o)
		if err != nil {
			t.Fatal(err)
		}
		return q.Quant
	}
	for _, method := range []ptq.Method{ptq.MinMax, ptq.Percentile, ptq.MSE, ptq.KL, ptq.Histogram} {
		want := run(ptq.Options{Method: method, Examples: 128, Seed: 9, Workers: 1})
		for _, o := range []ptq.Options{{Workers: 2}, {Workers: 3, Batch: 5}, {Workers: 1, Batch: 1000}, {}} {
			o.Method, o.Examples, o.Seed = method, 128, 9
			if !reflect.DeepEqual(run(o), want) {
				t.Errorf("%s: workers %d, batch %d give other ranges", method, o.Workers, o.Batch)
			}
		}
		if reflect.DeepEqual(run(ptq.Options{Method: method, Examples: 128, Seed: 10, Workers: 1}), want) {
			t.Errorf("%s: another seed draws the same sample", method)
		}
	}
	all := run(ptq.Options{Examples: 300, Seed: 1, Workers: 1})
	if !reflect.DeepEqual(run(ptq.Options{Examples: 5000, Seed: 2, Workers: 1}), all) {
		t.Error("the whole set calibrates differently under another seed")
	}
}

func TestASpecNamesItsOwnMethod(t *testing.T) {
	m := teacher(t)
	train := lesson(t, m, 200, 1)
	q := precision(t, "w4a4")
	own := q.Act
	own.Range = quant.MinMax
	q.Rules = []model.Rule{{Layer: "c1", Act: &own}}
	mixed, err := ptq.Calibrate(t.Context(), m, q, train, ptq.Options{Method: ptq.MSE, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	pick := func(method ptq.Method) map[string]*quant.Params {
		c, err := ptq.Calibrate(t.Context(), m, precision(t, "w4a4"), train, ptq.Options{Method: method, Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		return c.Quant
	}
	if got, want := mixed.Quant["c1"].Scale[0], pick(ptq.MinMax)["c1"].Scale[0]; got != want {
		t.Errorf("c1 asks for minmax: scale %v, want %v", got, want)
	}
	if got, want := mixed.Quant["fc1"].Scale[0], pick(ptq.MSE)["fc1"].Scale[0]; got != want {
		t.Errorf("fc1 follows the options: scale %v, want %v", got, want)
	}
}

func TestForTraining(t *testing.T) {
	m := teacher(t)
	train := lesson(t, m, 200, 1)
	q := precision(t, "w2a4")
	c, err := ptq.Calibrate(t.Context(), m, q, train, ptq.Options{Method: ptq.MSE, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	if c.Quant["fc1.weight"].Spec.Range != quant.MSE {
		t.Fatalf("weights have range %s after method mse", c.Quant["fc1.weight"].Spec.Range)
	}
	start, err := ptq.ForTraining(c, q)
	if err != nil {
		t.Fatal(err)
	}
	if w := start.Quant["fc1.weight"]; w.Spec != q.Weight || len(w.Scale) != 0 {
		t.Errorf("weight quantizer %+v, want the config's %s without a fixed scale", w, q.Weight)
	}
	if !reflect.DeepEqual(start.Quant["fc1"], c.Quant["fc1"]) || start.Quant["pool1"] != start.Quant["c1"] {
		t.Error("activation quantizers changed")
	}
	q.Weight.Range = quant.LSQ
	if start, err = ptq.ForTraining(c, q); err != nil {
		t.Fatal(err)
	}
	if w := start.Quant["fc1.weight"]; w.Spec.Range != quant.LSQ || !slices.Equal(w.Scale, c.Quant["fc1.weight"].Scale) {
		t.Errorf("learned scales do not start from the calibrated ones: %+v", w)
	}
	plain, err := ptq.Calibrate(t.Context(), m, precision(t, "w2a4"), train, ptq.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ptq.ForTraining(plain, q); err == nil || !strings.Contains(err.Error(), "needs a calibrated scale") {
		t.Errorf("lsq without a scale: error %v", err)
	}
	if _, err := ptq.ForTraining(c, precision(t, "w4a4")); err == nil || !strings.Contains(err.Error(), "calibrate again") {
		t.Errorf("another width: error %v", err)
	}
	if _, err := ptq.ForTraining(m, q); err == nil {
		t.Error("a float model was accepted")
	}
}

func TestErrors(t *testing.T) {
	m := teacher(t)
	train := lesson(t, m, 100, 1)
	frozen, err := model.Freeze(m)
	if err != nil {
		t.Fatal(err)
	}
	damaged := m.Clone()
	damaged.Params["fc1.weight"].Data[3] = float32(math.NaN())
	infinite := m.Clone() // unit 3 of fc1 overflows float32
	units := infinite.Node("fc1").Attr.Units
	for i := 3; i < len(infinite.Params["fc1.weight"].Data); i += units {
		infinite.Params["fc1.weight"].Data[i] = math.MaxFloat32
	}
	diverged := m.Clone() // unit 2 of fc1 is Inf - Inf
	for i := 2; i < len(diverged.Params["fc1.weight"].Data); i += units {
		diverged.Params["fc1.weight"].Data[i] = math.MaxFloat32 * float32(1-i/units%2*2)
	}
	loud := m.Clone()
	for i := range loud.Params["fc1.weight"].Data {
		loud.Params["fc1.weight"].Data[i] = 60000
	}
	empty := &datasets.Set{Shape: []int{6, 6, 1}}
	other := &datasets.Set{Shape: []int{4}, X: make([]uint8, 8), Labels: make([]int32, 2)}
	full := precision(t, "fp32")
	for _, tc := range []struct {
		name string
		m    *model.Model
		q    model.QuantConfig
		set  *datasets.Set
		o    ptq.Options
		want string
	}{
		{"empty set", m, precision(t, "int8"), empty, ptq.Options{}, "calibration set is empty"},
		{"no set", m, precision(t, "int8"), nil, ptq.Options{}, "calibration set is empty"},
		{"other shape", m, precision(t, "int8"), other, ptq.Options{}, "has 4 values per example"},
		{"frozen", frozen, precision(t, "int8"), train, ptq.Options{}, "starts from a float model"},
		{"fp32", m, full, train, ptq.Options{}, "fp32 is not quantized"},
		{"auto", m, precision(t, "int8"), train, ptq.Options{Method: ptq.Auto}, "call Quantize"},
		{"negative", m, precision(t, "int8"), train, ptq.Options{Examples: -1}, "must all be positive"},
		{"percentile", m, precision(t, "int8"), train, ptq.Options{Percentile: 50}, "above 50"},
		{"method", m, precision(t, "int8"), train, ptq.Options{Method: 99}, "Method(99)"},
		{"NaN weight", damaged, precision(t, "int8"), train, ptq.Options{Method: ptq.MSE}, `dense "fc1"`},
		{"Inf - Inf", diverged, precision(t, "int8"), train, ptq.Options{}, `dense "fc1": output element 2 of calibration example`},
		{"infinity", infinite, precision(t, "int8"), train, ptq.Options{}, `dense "fc1": output element 3 of calibration example`},
		{"overflow", loud, precision(t, "fp16"), train, ptq.Options{}, "fc1"},
	} {
		_, err := ptq.Calibrate(t.Context(), tc.m, tc.q, tc.set, tc.o)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
	}
	var act *ptq.ActivationError
	if _, err := ptq.Calibrate(t.Context(), diverged, precision(t, "int8"), train, ptq.Options{}); !errors.As(err, &act) || act.Layer != "fc1" || act.Index != 2 {
		t.Errorf("Inf - Inf: %v is not an ActivationError at unit 2 of fc1", err)
	}
	var over *quant.OverflowError
	if _, err := ptq.Calibrate(t.Context(), loud, precision(t, "fp16"), train, ptq.Options{}); !errors.As(err, &over) {
		t.Errorf("fp16: %v is not an OverflowError", err)
	}
	if _, err := ptq.Quantize(t.Context(), m, precision(t, "int8"), train, nil, ptq.Options{Method: ptq.Auto}); err == nil || !strings.Contains(err.Error(), "validation set is empty") {
		t.Errorf("auto without validation: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ptq.Calibrate(ctx, m, precision(t, "int8"), train, ptq.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestParseMethod(t *testing.T) {
	for _, m := range []ptq.Method{ptq.MinMax, ptq.Percentile, ptq.MSE, ptq.KL, ptq.Histogram, ptq.Auto} {
		if got, err := ptq.ParseMethod(m.String()); err != nil || got != m {
			t.Errorf("%s: %s, %v", m, got, err)
		}
	}
	if _, err := ptq.ParseMethod("entropy"); err == nil || err.Error() != `unknown calibration method "entropy" (allowed: minmax, percentile, mse, kl, histogram, auto)` {
		t.Errorf("entropy: %v", err)
	}
	if s := fmt.Sprint(ptq.Method(0)); s != "Method(0)" {
		t.Errorf("zero method prints as %q", s)
	}
}
