package layers_test

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// Parameters and State are all there is: a graph built anew from copies of both goes on to the same bits.
func TestStateResumes(t *testing.T) {
	methods := learnedRanges(convNet(t))
	methods["envelope"], methods["ema"] = nil, perTensor
	for name, change := range methods {
		t.Run(name, func(t *testing.T) {
			m := quantized(t, convNet(t), precision(t, "w4a4"), change)
			net := build(t, m, layers.Options{Batch: 16, Train: true})
			x, labels := blobs(16, 96, 1)
			for range 3 {
				run(t, net, x, labels, 16)
			}
			copied := m.Clone()
			for tensor, q := range copied.Quant { // a checkpoint of the masters does not know the ranges
				if !q.Spec.Range.Learns() && tensor != "x" && !q.Spec.Signed {
					q.Scale[0], q.Zero[0] = 1, 0
				}
			}
			again := build(t, copied, layers.Options{Batch: 16, Train: true})
			if err := again.Restore(net.State()); err != nil {
				t.Fatal(err)
			}
			x, labels = blobs(16, 96, 2)
			for range 2 {
				run(t, net, x, labels, 16)
				run(t, again, x, labels, 16)
			}
			if !slices.Equal(fingerprint(m, net), fingerprint(copied, again)) {
				t.Error("the restored graph goes another way")
			}
		})
	}
}

func TestRestoreRefuses(t *testing.T) {
	m := quantized(t, convNet(t), precision(t, "int8"), nil)
	net := build(t, m, layers.Options{Batch: 2, Train: true})
	for _, row := range []struct {
		change func(map[string][]float32)
		want   string
	}{
		{func(s map[string][]float32) { delete(s, "c1") }, `"c1" is missing`},
		{func(s map[string][]float32) { s["other"] = []float32{0, 1, 1, 0} }, `no observer of activation "other"`},
		{func(s map[string][]float32) { s["c1"][2] = -1 }, "scale[0]"},
		{func(s map[string][]float32) { s["c1"][3] = 300 }, "outside the grid"},
		{func(s map[string][]float32) { s["c1"][0] = float32(math.NaN()) }, "finite range"},
		{func(s map[string][]float32) { s["c1"] = s["c1"][1:] }, "values, needs"},
	} {
		state := net.State()
		row.change(state)
		if err := net.Restore(state); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%v, want %q", err, row.want)
		}
	}
	if err := net.Restore(net.State()); err != nil {
		t.Error(err)
	}
}

// Ranges follow the batches with a delay of one step, unless frozen, and never in an evaluation graph; graphs of the
// same model see them at once.
func TestRangesAreDelayed(t *testing.T) {
	m := quantized(t, convNet(t), precision(t, "int8"), nil)
	p := m.Quant["c1"]
	p.Scale[0] /= 8
	small := p.Scale[0]
	net := build(t, m, layers.Options{Batch: 16, Train: true})
	eval := build(t, m, layers.Options{Batch: 16})
	x, labels := blobs(16, 96, 1)

	net.SetPhase(layers.Phase{FreezeRanges: true})
	run(t, net, x, labels, 16)
	run(t, eval, x, labels, 16)
	if p.Scale[0] != small {
		t.Fatal("a frozen range moved")
	}
	net.SetPhase(layers.Phase{})
	run(t, net, x, labels, 16)
	codes, _, _ := net.Tensor("c1")
	if slices.Max(codes) != 255 {
		t.Error("the step that widens the range must still be clamped by the old one")
	}
	if p.Scale[0] < 4*small {
		t.Errorf("scale went from %v to %v only: the envelope grows at once", small, p.Scale[0])
	}
	if m.Quant["p1"].Scale[0] != p.Scale[0] {
		t.Error("the pooled tensor no longer shares the scale")
	}
	wide := p.Scale[0]
	run(t, eval, x, labels, 16)
	if p.Scale[0] != wide {
		t.Error("an evaluation graph moved a range")
	}
}

func TestRunningStatistics(t *testing.T) {
	m := convNet(t)
	net := build(t, m, layers.Options{Batch: 9, Train: true})
	x, labels := blobs(7, 96, 1)
	bias := m.Params["fc1.bias"].Data
	for i := range bias {
		bias[i] = float32(i) - 3
	}
	run(t, net, x, labels, 7)
	_, in, ok := net.Tensor("f1")
	if !ok {
		t.Fatal("no tensor f1")
	}
	w := m.Params["fc1.weight"].Data
	const units = 8
	rows := len(in) / 7
	for c := range units {
		var v [7]float64
		mean, variance := 0.0, 0.0
		for e := range v {
			v[e] = float64(bias[c])
			for k := range rows {
				v[e] += float64(in[e*rows+k]) * float64(w[k*units+c])
			}
			mean += v[e] / 7
		}
		for _, a := range v {
			variance += (a - mean) * (a - mean) / 6 // unbiased
		}
		gotMean, gotVar := m.Params["fc1.mean"].Data[c], m.Params["fc1.var"].Data[c]
		if math.Abs(float64(gotMean)-0.1*mean) > 1e-5 || math.Abs(float64(gotVar)-(0.9+0.1*variance)) > 1e-5 {
			t.Errorf("channel %d: running mean %v, variance %v; want %v, %v", c, gotMean, gotVar, 0.1*mean, 0.9+0.1*variance)
		}
	}
	before := slices.Clone(m.Params["fc1.mean"].Data)
	net.SetPhase(layers.Phase{FreezeNorm: true})
	run(t, net, x, labels, 7)
	run(t, build(t, m, layers.Options{Batch: 7}), x, labels, 7)
	if !slices.Equal(before, m.Params["fc1.mean"].Data) {
		t.Error("frozen batch norm or an evaluation graph moved the running mean")
	}
}

func TestLearnedScaleStaysPositive(t *testing.T) {
	m := quantized(t, denseNet(t), precision(t, "w4a4"), learned)
	net := build(t, m, layers.Options{Batch: 4, Train: true})
	scales := 0
	for _, p := range net.Trainables() {
		if p.Learned == 0 {
			continue
		}
		scales++
		p.Value[0] = -1
	}
	if scales != 3 {
		t.Fatalf("%d learned scales, want those of two weights and one activation", scales)
	}
	x, labels := blobs(4, 96, 1)
	run(t, net, x, labels, 4)
	for _, p := range net.Trainables() {
		if p.Learned != 0 && p.Value[0] != quant.MinScale {
			t.Errorf("%s is %v", p.Name, p.Value[0])
		}
	}
}

// A bias out of all proportion to the weights raises the weights' scale instead of overflowing, everywhere alike.
func TestRaisedScales(t *testing.T) {
	m := denseNet(t)
	q := quantized(t, m, precision(t, "int8"), nil)
	q.Params["fc2.bias"].Data[1] = 3e7
	frozen, err := model.Freeze(q)
	if err != nil {
		t.Fatal(err)
	}
	if s := frozen.Quant["fc2.weight"].Scale; s[1] < 8*s[0] {
		t.Fatalf("scales %v: this bias raises nothing", s)
	}
	x, labels := blobs(3, 96, 1)
	eval := build(t, q, layers.Options{Batch: 3})
	run(t, eval, x, labels, 3)
	sameAsFrozen(t, eval, q, x, 3)
	train := build(t, q, layers.Options{Batch: 3, Train: true})
	train.SetPhase(layers.Phase{FreezeRanges: true})
	run(t, train, x, labels, 3)
	sameAsFrozen(t, train, q, x, 3)
}

func TestInit(t *testing.T) {
	m, again, other := convNet(t), convNet(t), convNet(t)
	if err := layers.Init(again, 11); err != nil {
		t.Fatal(err)
	}
	if err := layers.Init(other, 12); err != nil {
		t.Fatal(err)
	}
	for _, name := range m.ParamNames() {
		data := m.Params[name].Data
		if !slices.Equal(data, again.Params[name].Data) {
			t.Errorf("%s: the same seed gives other values", name)
		}
		var bound float32
		switch name {
		case "c1.weight":
			bound = 1 / float32(math.Sqrt(18))
		case "c2.weight", "c2.bias":
			bound = 1 / float32(math.Sqrt(12))
		case "fc1.weight", "fc1.bias":
			bound = 1 / float32(math.Sqrt(36))
		case "fc2.weight", "fc2.bias":
			bound = 1 / float32(math.Sqrt(8))
		default:
			one := strings.HasSuffix(name, ".gamma") || strings.HasSuffix(name, ".var")
			for _, v := range data {
				if one != (v == 1) || !one && v != 0 {
					t.Errorf("%s starts at %v", name, v)
				}
			}
			continue
		}
		if slices.Equal(data, other.Params[name].Data) {
			t.Errorf("%s: another seed gives the same values", name)
		}
		if hi, lo := slices.Max(data), slices.Min(data); hi > bound || lo < -bound || len(data) > 40 && (hi < 0.9*bound || lo > -0.9*bound) {
			t.Errorf("%s lies in [%v, %v], want nearly all of ±%v", name, lo, hi, bound)
		}
	}
}

func TestDot(t *testing.T) {
	m := quantized(t, convNet(t), precision(t, "w4a8"), nil)
	var a, b bytes.Buffer
	for _, w := range []*bytes.Buffer{&a, &b} {
		if err := build(t, m, layers.Options{Batch: 2, Train: true}).Dot(w); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("two drawings of one model differ")
	}
	text := a.String()
	for _, want := range []string{
		"fakequant input x", "fakequant weight c1 [int4 symmetric/channel/minmax]", "fakequant act fc1 [int8 affine/tensor/envelope]",
		"batchnorm c1", "gradient(weight of fc2)", "fillcolor=gold", "digraph",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the drawing lacks %q", want)
		}
	}
	if n := strings.Count(text, "fillcolor=gold"); n != 8 { // input, four weights, three activations
		t.Errorf("%d quantizers drawn, want 8", n)
	}
}

func TestBuildRefuses(t *testing.T) {
	unfused := func() *model.Model {
		m := model.New("m", model.Input{Name: "x", Shape: model.Shape{4}, Scale: 1})
		m.Append(model.Node{Name: "d", Layer: "d", Op: model.Dense, Attr: model.Attr{Units: 2}})
		m.Append(model.Node{Name: "n", Layer: "n", Op: model.BatchNorm, Origin: "a.yaml:7", Attr: model.Attr{Eps: 1, Momentum: 1}})
		m, err := model.Shapes(m)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	place := func(m *model.Model) *model.Model {
		q, err := model.Place(m, model.DefaultQuant(precision(t, "int8")))
		if err == nil {
			q, err = model.Share(q)
		}
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	noShapes := model.New("m", model.Input{Name: "x", Shape: model.Shape{4}, Scale: 1})
	noShapes.Append(model.Node{Name: "d", Layer: "d", Op: model.Dense, Attr: model.Attr{Units: 2}})
	image := model.New("m", model.Input{Name: "x", Shape: model.Shape{4, 4, 1}, Scale: 1})
	image.Append(model.Node{Name: "c", Layer: "c", Op: model.Conv, Attr: model.Attr{Units: 2, Kernel: [2]int{1, 1}, Stride: [2]int{1, 1}, Groups: 1}})
	reluEnd := model.New("m", model.Input{Name: "x", Shape: model.Shape{4}, Scale: 1})
	reluEnd.Append(model.Node{Name: "d/dense", Layer: "d", Op: model.Dense, Attr: model.Attr{Units: 2}})
	reluEnd.Append(model.Node{Name: "d", Layer: "d", Op: model.ReLU})
	frozen, err := model.Freeze(denseNet(t))
	if err != nil {
		t.Fatal(err)
	}
	ok := layers.Options{Batch: 2, Train: true}
	for name, row := range map[string]struct {
		m    *model.Model
		o    layers.Options
		want string
	}{
		"batch":        {denseNet(t), layers.Options{}, "batch size 0"},
		"loss":         {denseNet(t), layers.Options{Batch: 1, Loss: layers.Loss{Kind: "hinge"}}, "cross_entropy, mse"},
		"smoothing":    {denseNet(t), layers.Options{Batch: 1, Loss: layers.Loss{Smoothing: 1}}, "label smoothing 1"},
		"smoothing of": {denseNet(t), layers.Options{Batch: 1, Loss: layers.Loss{Kind: layers.MSE, Smoothing: 0.1}}, "belongs to cross_entropy"},
		"unfused":      {unfused(), ok, `a.yaml:7: batchnorm "n": is not fused`},
		"frozen":       {frozen, ok, "has no masters"},
		"no range":     {place(denseNet(t)), ok, "calibrate"},
		"no shapes":    {noShapes, ok, "run model.Shapes first"},
		"image out":    {fused(t, image), ok, "end with a dense layer"},
		"relu out":     {place(fused(t, reluEnd)), ok, "without activation"},
	} {
		if _, err := layers.Build(row.m, row.o); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
	}
}

func TestRunRefuses(t *testing.T) {
	net := build(t, denseNet(t), layers.Options{Batch: 2, Train: true})
	x, labels := blobs(4, 96, 1)
	if _, _, ok := net.Tensor("fc1"); ok {
		t.Error("a tensor before the first run")
	}
	run(t, net, x, labels, 2)
	if _, _, ok := net.Tensor("nothing"); ok {
		t.Error("a tensor of no name")
	}
	for name, f := range map[string]func() error{
		"0 rows":         func() error { _, err := net.Run(x, labels, 0); return err },
		"3 rows":         func() error { _, err := net.Run(x, labels, 3); return err },
		"95 input bytes": func() error { _, err := net.Run(x[:95], labels, 1); return err },
		"1 labels":       func() error { _, err := net.Run(x, labels[:1], 2); return err },
		"label 4 of 4":   func() error { _, err := net.Run(x, []int32{4, 0}, 2); return err },
		"label -2 of 4":  func() error { _, err := net.Run(x, []int32{-2, 0}, 2); return err },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	net.Close()
	if _, err := net.Run(x, labels, 2); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("closed: %v", err)
	}
}

// A value that is not a number is reported with the layer that met it, and the process lives.
func TestNaNNamesTheLayer(t *testing.T) {
	m := quantized(t, convNet(t), precision(t, "int8"), nil)
	net := build(t, m, layers.Options{Batch: 2, Train: true})
	x, labels := blobs(2, 96, 1)
	m.Params["c2.weight"].Data[5] = float32(math.NaN())
	if _, err := net.Run(x, labels, 2); err == nil || !strings.Contains(err.Error(), "weight c2") || !strings.Contains(err.Error(), "value[5] is NaN") {
		t.Errorf("NaN weight: %v", err)
	}
	m.Params["c2.weight"].Data[5] = 0
	m.Params["c1.gamma"].Data[1] = float32(math.NaN())
	if _, err := net.Run(x, labels, 2); err == nil || !strings.Contains(err.Error(), "act c1") {
		t.Errorf("NaN activation: %v", err)
	}
	m.Params["c1.gamma"].Data[1] = 1
	run(t, net, x, labels, 2)
	half, err := model.Place(convNet(t), model.DefaultQuant(precision(t, "fp16")))
	if err == nil {
		half, err = model.Share(half)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := rng.New(1, rng.Test)
	for i := range half.Params["c2.weight"].Data {
		half.Params["c2.weight"].Data[i] = 30000 + s.Float32()
	}
	if _, err := build(t, half, layers.Options{Batch: 2}).Run(x, labels, 2); err == nil || !strings.Contains(err.Error(), "act") || !strings.Contains(err.Error(), "overflows fp16") {
		t.Errorf("overflow: %v", err)
	}
}
