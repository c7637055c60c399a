package ptq_test

import (
	"context"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat/ptq"
	"github.com/narrow-ml/narrow/quant"
)

// chain is a float net of dense layers and an optional ReLU with a cap.
func chain(t testing.TB, limit float32, units ...int) *model.Model {
	t.Helper()
	m := model.New("chain", model.Input{Name: "x", Shape: model.Shape{2}, Scale: 1})
	for i, u := range units {
		name := string(rune('a' + i))
		m.Append(model.Node{Name: name + "/dense", Layer: name, Op: model.Dense, Attr: model.Attr{Units: u, Bias: true}})
		if i < len(units)-1 {
			m.Append(model.Node{Name: name, Layer: name, Op: model.ReLU, Attr: model.Attr{Cap: limit}})
		}
	}
	m, err := model.Shapes(m)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = model.Fuse(m); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestEqualizeOnNumbers: ranges 8 and 2 of the first layer meet 2 and 8 of the second; both become 4.
func TestEqualizeOnNumbers(t *testing.T) {
	m := chain(t, 0, 2, 2)
	m.Params["a.weight"].Data = []float32{8, 1, -4, 2} // [In, Out]: column 0 has range 8, column 1 range 2
	m.Params["a.bias"].Data = []float32{2, 3}
	m.Params["b.weight"].Data = []float32{2, -1, 8, 4} // row 0 has range 2, row 1 range 8
	got, report, err := ptq.Equalize(m)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]float32{"a.weight": {4, 2, -2, 4}, "a.bias": {1, 6}, "b.weight": {4, -2, 4, 2}} {
		if !reflect.DeepEqual(got.Params[name].Data, want) {
			t.Errorf("%s = %v, want %v", name, got.Params[name].Data, want)
		}
	}
	if want := (ptq.Equalization{From: "a", To: "b", Least: 0.5, Most: 2, Before: 4, After: 1}); report[0] != want {
		t.Errorf("report %+v, want %+v", report[0], want)
	}
	if m.Params["a.bias"].Data[0] != 2 || got.Stage != model.Float {
		t.Error("the argument was changed, or the result is no float model")
	}
}

// TestEqualizeKeepsTheFunction holds on nets with batch norm of both signs, dead channels, pooling and depthwise layers.
func TestEqualizeKeepsTheFunction(t *testing.T) {
	names := []string{"digits-mlp", "depthwise", "digits-cnn"}
	if testing.Short() {
		names = names[:2]
	}
	for _, name := range names {
		n := trained(t, name)
		odd := rescaled(t, n.model, oneWide)
		for _, p := range []string{"c1.gamma", "fc1.bias"} {
			if q := odd.Params[p]; q != nil {
				q.Data[2] = -q.Data[2]
			}
		}
		if q := odd.Params["c1.gamma"]; q != nil {
			q.Data[3] = 0
		}
		for j := 4; j < len(odd.Params[odd.Nodes[len(odd.Nodes)-1].Layer+".weight"].Data); j += 320 {
			odd.Params[odd.Nodes[len(odd.Nodes)-1].Layer+".weight"].Data[j] = 0
		}
		got, _, err := ptq.Equalize(odd)
		if err != nil {
			t.Fatal(err)
		}
		want := run(t, odd, n.data.Val)
		for i, v := range run(t, got, n.data.Val) {
			if d := math.Abs(float64(v - want[i])); d > 1e-5*largest(want) {
				t.Fatalf("%s: logit %d is %v after equalization, %v before", name, i, v, want[i])
			}
		}
		again, report, err := ptq.Equalize(got)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range report {
			if math.Abs(e.Least-1) > 0.05 || math.Abs(e.Most-1) > 0.05 {
				t.Errorf("%s: equalizing twice moves %s by %v to %v", name, e.From, e.Least, e.Most)
			}
		}
		if again.Stage != model.Float {
			t.Errorf("stage %s", again.Stage)
		}
	}
}

// TestPassesDoNotDependOnWorkers: the same bytes for any number of workers and size of batch.
func TestPassesDoNotDependOnWorkers(t *testing.T) {
	n := trained(t, "depthwise")
	for _, r := range []ptq.Rounding{ptq.AdaRound, ptq.GPTQ} {
		var want *model.Model
		for i, o := range []ptq.Options{{Workers: 1}, {Workers: 2}, {Workers: 3, Batch: 17}} {
			o.Examples, o.Seed, o.Iterations, o.Method = 100, 4, 20, ptq.MSE
			o.Equalize, o.BiasCorrection, o.Rounding = true, true, r
			got := n.quantized(t, n.model, precision(t, "w4a8"), o).Model
			if i == 0 {
				want = got
				continue
			}
			if !reflect.DeepEqual(got.Params, want.Params) || !reflect.DeepEqual(got.Quant, want.Quant) {
				t.Errorf("%s: %d workers, batch %d give another model", r, o.Workers, o.Batch)
			}
		}
	}
}

// TestPassesLeaveTheirArgumentsAlone: a float model is quantized again and again by compare.
func TestPassesLeaveTheirArgumentsAlone(t *testing.T) {
	n := trained(t, "digits-mlp")
	before := n.model.Clone()
	o := quick()
	o.Examples, o.Iterations, o.Equalize, o.BiasCorrection, o.Rounding = 100, 10, true, true, ptq.AdaRound
	var steps []string
	o.Progress = func(s ptq.Step) {
		steps = append(steps, s.Pass+" "+s.Layer)
		if s.Total != 3 || s.Done > s.Total {
			t.Errorf("step %+v", s)
		}
	}
	r := n.quantized(t, n.model, precision(t, "w4a8"), o)
	if !reflect.DeepEqual(before, n.model) {
		t.Error("the float model changed")
	}
	want := "adaround fc1, adaround fc2, adaround fc3, adaround , bias correction fc1, bias correction fc2, bias correction fc3, bias correction "
	if got := strings.Join(steps, ", "); got != want {
		t.Errorf("progress: %s, want %s", got, want)
	}
	if got := r.Passes(); got != "equalize, adaround, bias correction" {
		t.Errorf("passes %q", got)
	}
	if len(r.Equalized) != 2 || len(r.Rounded) != 3 || len(r.Shifted) != 3 {
		t.Errorf("reports of %d pairs, %d and %d layers, want 2, 3, 3", len(r.Equalized), len(r.Rounded), len(r.Shifted))
	}
	calibrated := n.quantized(t, n.model, precision(t, "w4a8"), quick()).Model
	copied := calibrated.Clone()
	if _, _, err := ptq.RoundWeights(t.Context(), n.model, calibrated, n.data.Train, ptq.GPTQ, o); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ptq.CorrectBias(t.Context(), n.model, calibrated, n.data.Train, o); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(copied.Params, calibrated.Params) || !reflect.DeepEqual(copied.Quant, calibrated.Quant) {
		t.Error("a pass changed the calibrated model")
	}
}

func TestPassesRefuse(t *testing.T) {
	m := teacher(t)
	set := lesson(t, m, 80, 1)
	calibrated, err := ptq.Calibrate(t.Context(), m, precision(t, "int8"), set, ptq.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	half, err := ptq.Calibrate(t.Context(), m, precision(t, "fp16"), set, ptq.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	quantize := func(m *model.Model, p string, o ptq.Options) error {
		_, err := ptq.Quantize(t.Context(), m, precision(t, p), set, nil, o)
		return err
	}
	round := func(m, q *model.Model, r ptq.Rounding, o ptq.Options) error {
		_, _, err := ptq.RoundWeights(t.Context(), m, q, set, r, o)
		return err
	}
	correct := func(m, q *model.Model) error {
		_, _, err := ptq.CorrectBias(t.Context(), m, q, set, ptq.Options{})
		return err
	}
	equalize := func(m *model.Model) error {
		_, _, err := ptq.Equalize(m)
		return err
	}
	_, direct := ptq.Calibrate(t.Context(), m, precision(t, "int8"), set, ptq.Options{Rounding: ptq.GPTQ})
	capped := chain(t, 6, 2, 2)
	bare := chain(t, 0, 2, 2)
	for i := range bare.Nodes {
		bare.Nodes[i].Attr.Bias = false
	}
	flat := chain(t, 0, 2)
	nan := m.Clone()
	nan.Params["c1.weight"].Data[1] = float32(math.NaN())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, stopped := ptq.RoundWeights(ctx, m, calibrated, set, ptq.AdaRound, ptq.Options{})
	if !errors.Is(stopped, context.Canceled) {
		t.Errorf("cancelled: %v", stopped)
	}
	for _, tc := range []struct {
		name string
		err  error
		want string
	}{
		{"adaround of fp16", quantize(m, "fp16", ptq.Options{Rounding: ptq.AdaRound}), `rounding adaround is for integer weights and has nothing to work on here: leave it out`},
		{"bias correction of bf16", quantize(m, "bf16", ptq.Options{BiasCorrection: true}), `bias correction is for integer weights`},
		{"unknown rounding", quantize(m, "int8", ptq.Options{Rounding: 9}), "unknown rounding Rounding(9)"},
		{"negative iterations", quantize(m, "int8", ptq.Options{Iterations: -1}), "must all be positive"},
		{"a pass in Calibrate", direct, "call Quantize"},
		{"nearest is no pass", round(m, calibrated, ptq.Nearest, ptq.Options{}), "by nearest: it is no learned rounding (allowed: adaround, gptq)"},
		{"a float model", round(m, m, ptq.GPTQ, ptq.Options{}), "the model is float; calibrate it first"},
		{"a quantized reference", round(calibrated, calibrated, ptq.GPTQ, ptq.Options{}), "must be the float model"},
		{"16 bits", round(m, half, ptq.GPTQ, ptq.Options{}), "has no integer grid"},
		{"another net", round(chain(t, 0, 2, 2), calibrated, ptq.GPTQ, ptq.Options{}), "its layers are not those of the float model"},
		{"bias of 16 bits", correct(m, half), "has no integer grid"},
		{"equalize a quantized model", equalize(calibrated), "starts from a float model"},
		{"equalize relu6", equalize(capped), `dense "a": its ReLU has an upper limit`},
		{"equalize one layer", equalize(flat), "set equalize: false"},
		{"equalize NaN", equalize(nan), `conv "c1": weight: value[1] is NaN`},
	} {
		if tc.err == nil || !strings.Contains(tc.err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.name, tc.err, tc.want)
		}
	}
	tiny := images(bare, 20, 1)
	q, err := ptq.Calibrate(t.Context(), bare, precision(t, "int8"), tiny, ptq.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ptq.CorrectBias(t.Context(), bare, q, tiny, ptq.Options{}); err == nil || !strings.Contains(err.Error(), `dense "a": bias correction finds neither bias nor batch norm`) {
		t.Errorf("no bias: %v", err)
	}
	if _, err := ptq.ParseRounding("up"); err == nil || err.Error() != `unknown rounding "up" (allowed: nearest, adaround, gptq)` {
		t.Errorf("ParseRounding: %v", err)
	}
	if r, err := ptq.ParseRounding("gptq"); err != nil || r != ptq.GPTQ {
		t.Errorf("ParseRounding: %v %v", r, err)
	}
	if o := (ptq.Options{Rounding: ptq.GPTQ, BiasCorrection: true, Equalize: true}).For(quant.Precision{Weight: quant.FP16, Act: quant.FP16}); o.Rounding != ptq.Nearest || o.BiasCorrection || !o.Equalize {
		t.Errorf("for fp16: %+v", o.Rounding)
	}
}

// TestTrainingStartsFromRoundedWeights: quantization-aware training takes over the rounded masters, and with learned scales
// the very codes.
func TestTrainingStartsFromRoundedWeights(t *testing.T) {
	n := trained(t, "digits-mlp")
	q := precision(t, "w3a8")
	q.Weight.Range = quant.LSQ
	o := quick()
	o.Rounding = ptq.GPTQ
	r := n.quantized(t, n.model, q, o)
	start, err := ptq.ForTraining(r.Model, q)
	if err != nil {
		t.Fatal(err)
	}
	a, b := run(t, r.Model, n.data.Val), run(t, start, n.data.Val)
	if !reflect.DeepEqual(a, b) {
		t.Error("training starts from other logits than the rounded model gives")
	}
}
