package model_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

func must(t testing.TB) func(*model.Model, error) *model.Model {
	return func(m *model.Model, err error) *model.Model {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
}

// cnn is conv+norm+relu, pool, conv+relu, flatten, dense+norm, dense.
func cnn(t testing.TB) *model.Model {
	return must(t)(model.Shapes(chain(model.Shape{8, 8, 2},
		edit(conv("c1", 4, 3, 1, 1), func(n *model.Node) { n.Name, n.Attr.Bias = "c1.conv", false }), norm("c1", "c1.norm"), edit(relu("c1"), func(n *model.Node) { n.Name = "c1" }),
		pool("p1", 2, 2, 0),
		edit(conv("c2", 6, 3, 2, 1), func(n *model.Node) { n.Name, n.Attr.Groups = "c2.conv", 2 }), edit(relu("c2"), func(n *model.Node) { n.Name = "c2" }),
		flatten("flat"),
		edit(dense("fc1", 5), func(n *model.Node) { n.Name = "fc1.dense" }), norm("fc1", "fc1"),
		dense("fc2", 3))))
}

func names(m *model.Model) []string {
	var out []string
	for _, n := range m.Nodes {
		out = append(out, n.Name)
	}
	return out
}

func TestFuse(t *testing.T) {
	m := cnn(t)
	before := m.Clone()
	f := must(t)(model.Fuse(m))
	if got, want := names(f), []string{"c1", "p1", "c2", "flat", "fc1", "fc2"}; !slices.Equal(got, want) {
		t.Fatalf("nodes %v, want %v", got, want)
	}
	type attrs struct {
		norm, relu bool
		eps        float32
		in         string
	}
	for name, want := range map[string]attrs{
		"c1": {true, true, 1e-5, "x"}, "c2": {false, true, 0, "p1"}, "fc1": {true, false, 1e-5, "flat"}, "fc2": {false, false, 0, "fc1"},
	} {
		n := f.Node(name)
		if got := (attrs{n.Attr.Norm, n.Attr.Relu, n.Attr.Eps, n.In[0]}); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	if !slices.Equal(f.Outputs, []string{"fc2"}) || f.Stage != model.Float {
		t.Errorf("outputs %v, stage %s", f.Outputs, f.Stage)
	}
	if !reflect.DeepEqual(m, before) {
		t.Error("Fuse changed its argument")
	}
	if again := must(t)(model.Fuse(f)); !reflect.DeepEqual(again, f) {
		t.Error("fusing twice is not fusing once")
	}
}

func TestFuseLeavesSharedTensors(t *testing.T) {
	// fc is read by its relu and by another layer: nothing may be merged into it.
	m := chain(model.Shape{4}, dense("fc", 4), relu("r"), edit(dense("side", 2), func(n *model.Node) { n.In = []string{"fc"} }), edit(dense("out", 2), func(n *model.Node) { n.In = []string{"r"} }))
	f := must(t)(model.Fuse(must(t)(model.Shapes(m))))
	if got := names(f); !slices.Equal(got, []string{"fc", "r", "side", "out"}) || f.Node("fc").Attr.Relu {
		t.Errorf("nodes %v, relu in fc: %v", got, f.Node("fc").Attr.Relu)
	}
	// A tensor that is an output stays too.
	m = chain(model.Shape{4}, dense("fc", 4), relu("r"))
	m.Outputs = []string{"fc", "r"}
	if f := must(t)(model.Fuse(must(t)(model.Shapes(m)))); len(f.Nodes) != 2 {
		t.Errorf("an output was merged away: %v", names(f))
	}
	// Two ReLUs in a row: the second stays, and shares its scale.
	f = must(t)(model.Fuse(must(t)(model.Shapes(chain(model.Shape{4}, dense("fc", 4), relu("r"), relu("rr"), dense("out", 2))))))
	if got := names(f); !slices.Equal(got, []string{"r", "rr", "out"}) {
		t.Errorf("nodes %v", got)
	}
}

func TestFuseRefuses(t *testing.T) {
	const hint = `: batch norm is supported right after conv or dense; write it as ` + "`norm: batch`" + ` of that layer`
	rows := map[string]*model.Model{
		`net.yaml:5: batchnorm "fc"` + hint:    chain(model.Shape{4}, dense("fc", 4), relu("r"), norm("fc", "n")),
		`net.yaml:3: batchnorm "b"` + hint:     chain(model.Shape{4}, norm("b", "b"), dense("fc", 4)),
		`net.yaml:4: batchnorm "other"` + hint: chain(model.Shape{4}, dense("fc", 4), norm("other", "n")),
	}
	for want, m := range rows {
		if _, err := model.Fuse(must(t)(model.Shapes(m))); text(err) != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	if _, err := model.Fuse(chain(model.Shape{4}, dense("fc", 4))); text(err) != `net.yaml:3: dense "fc": has no shape yet: run Shapes first` {
		t.Error(err)
	}
}

func precision(t testing.TB, name string) quant.Precision {
	p, err := quant.ParsePrecision(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPlace(t *testing.T) {
	fused := must(t)(model.Fuse(cnn(t)))
	before := fused.Clone()
	w4, a4 := quant.WeightSpec(quant.Int4), quant.ActSpec(quant.Int4)
	w8 := quant.WeightSpec(quant.Int8)
	q := model.DefaultQuant(precision(t, "w2a8"))
	q.Rules = []model.Rule{{Layer: "c1", Weight: &w8}, {Layer: "c?", Weight: &w4, Act: &a4}, {Layer: "*", Weight: nil}}
	m := must(t)(model.Place(fused, q))
	if m.Stage != model.Quantized || m.Precision != q.Precision || m.Target != quant.ONNX {
		t.Errorf("stage %s, precision %s, target %s", m.Stage, m.Precision, m.Target)
	}
	input := quant.ActSpec(quant.Int8)
	input.Range = quant.MinMax
	want := map[string]quant.Spec{
		"x":         input,
		"c1.weight": w8, "c1": quant.ActSpec(quant.Int8),
		"c2.weight": w4, "c2": a4,
		"fc1.weight": quant.WeightSpec(quant.Int2), "fc1": quant.ActSpec(quant.Int8),
		"fc2.weight": quant.WeightSpec(quant.Int2), // and no "fc2": the logits stay float32
	}
	if got := m.QuantNames(); len(got) != len(want) {
		t.Errorf("quantized tensors %v, want those of %v", got, want)
	}
	for name, spec := range want {
		if q := m.Quant[name]; q == nil || q.Spec != spec {
			t.Errorf("%s: %+v, want %s", name, q, spec)
		}
	}
	if s, z := m.Quant["x"].At(0); s != m.Inputs[0].Scale || z != m.Inputs[0].Zero {
		t.Errorf("the input's codes are not its bytes: scale %v, zero point %d", s, z)
	}
	if m.Quant["c1"].Ready() {
		t.Error("an activation has a range before calibration")
	}
	if !reflect.DeepEqual(fused, before) {
		t.Error("Place changed its argument")
	}
	for name := range fused.Params {
		if fused.Params[name] != m.Params[name] {
			t.Errorf("master %s is not shared", name)
		}
	}
}

func TestPlaceFloatPrecisions(t *testing.T) {
	for _, name := range []string{"fp16", "bf16", "fp32"} {
		p := precision(t, name)
		m := must(t)(model.Share(must(t)(model.Place(must(t)(model.Fuse(cnn(t))), model.DefaultQuant(p)))))
		for _, tensor := range []string{"x", "c1", "c1.weight", "p1", "fc2.weight"} {
			if q := m.Quant[tensor]; q == nil || q.Spec.Format != p.Weight || !q.Ready() {
				t.Errorf("%s: %s has %+v", name, tensor, q)
			}
		}
		if err := model.Check(m); err != nil {
			t.Error(err)
		}
	}
}

func TestPlaceRefuses(t *testing.T) {
	fused := must(t)(model.Fuse(cnn(t)))
	w4, a4, half := quant.WeightSpec(quant.Int4), quant.ActSpec(quant.Int4), quant.WeightSpec(quant.FP16)
	rows := []struct {
		precision string
		rules     []model.Rule
		want      string
	}{
		{"int8", []model.Rule{{Layer: "conv*", Weight: &w4, Origin: "net.yaml:20"}},
			`net.yaml:20: rule for layer "conv*": matches no layer that is quantized by itself (layers: c1, c2, fc1, fc2), or an earlier rule matches first`},
		{"int8", []model.Rule{{Layer: "*", Weight: &w4}, {Layer: "c1", Weight: &w4, Origin: "net.yaml:21"}},
			`net.yaml:21: rule for layer "c1": matches no layer that is quantized by itself (layers: c1, c2, fc1, fc2), or an earlier rule matches first`},
		{"int8", []model.Rule{{Layer: "p1", Act: &a4}},
			`rule for layer "p1": matches no layer that is quantized by itself (layers: c1, c2, fc1, fc2), or an earlier rule matches first`},
		{"int8", []model.Rule{{Layer: "[", Weight: &w4, Origin: "net.yaml:22"}},
			`net.yaml:22: rule for layer "[": layer pattern: syntax error in pattern`},
		{"int8", []model.Rule{{Layer: "fc2", Weight: &w4, Act: &a4, Origin: "net.yaml:23"}},
			`net.yaml:23: rule for layer "fc2": its act applies to nothing: the output of the last layer is float32 logits`},
		{"int8", []model.Rule{{Layer: "c1", Weight: &half}},
			`net.yaml:3: conv "c1": formats fp16 and int8 mix integers with floats under precision int8; keep every layer on integers (a wider one, such as int8, for a sensitive layer) or use fp16 for the whole model`},
		{"bf16", []model.Rule{{Layer: "fc1", Weight: &w4}},
			`net.yaml:10: dense "fc1": formats int4 and bf16 mix integers with floats under precision bf16; keep every layer on integers (a wider one, such as int8, for a sensitive layer) or use fp16 for the whole model`},
	}
	for _, r := range rows {
		q := model.DefaultQuant(precision(t, r.precision))
		q.Rules = r.rules
		if _, err := model.Place(fused, q); text(err) != r.want {
			t.Errorf("%v\nwant %s", err, r.want)
		}
	}
	// The last layer may be among those a rule's act matches.
	q := model.DefaultQuant(precision(t, "int8"))
	q.Rules = []model.Rule{{Layer: "fc*", Act: &a4}}
	if m := must(t)(model.Place(fused, q)); m.Quant["fc1"].Spec != a4 || m.Quant["fc2"] != nil {
		t.Errorf("fc1 %v, fc2 %v", m.Quant["fc1"].Spec, m.Quant["fc2"])
	}
	frozen := must(t)(model.Freeze(fused))
	if _, err := model.Place(frozen, q); text(err) != `model "net" is frozen; its masters are gone, so start from the float model` {
		t.Error(err)
	}
}

func placed(t testing.TB, name string) *model.Model {
	return must(t)(model.Share(must(t)(model.Place(must(t)(model.Fuse(cnn(t))), model.DefaultQuant(precision(t, name))))))
}

func TestShareIsOneQuantizer(t *testing.T) {
	m := placed(t, "int8")
	if m.Quant["p1"] != m.Quant["c1"] || m.Quant["flat"] != m.Quant["c2"] {
		t.Error("a pool or flatten does not have the very quantizer of its input")
	}
	if m.Quant["c1"] == m.Quant["c2"] {
		t.Error("two layers share a quantizer")
	}
	m.Quant["c1"].Scale, m.Quant["c1"].Zero = []float32{0.5}, []int32{3}
	for what, c := range map[string]*model.Model{"Clone": m.Clone(), "Share": must(t)(model.Share(m))} {
		if c.Quant["p1"] != c.Quant["c1"] || c.Quant["c1"] == m.Quant["c1"] {
			t.Errorf("%s: sharing inside the copy %v, with the original %v", what, c.Quant["p1"] == c.Quant["c1"], c.Quant["c1"] == m.Quant["c1"])
		}
		c.Quant["c1"].Scale[0] = 9
		if m.Quant["c1"].Scale[0] != 0.5 {
			t.Errorf("%s: a scale is shared with the original", what)
		}
	}
}

func TestShareRefuses(t *testing.T) {
	place := func(nodes ...model.Node) (*model.Model, error) {
		m := must(t)(model.Place(must(t)(model.Fuse(must(t)(model.Shapes(chain(model.Shape{4, 4, 1}, nodes...))))), model.DefaultQuant(precision(t, "int8"))))
		return model.Share(m)
	}
	if _, err := place(conv("c", 2, 3, 1, 1), pool("p", 2, 2, 0)); text(err) != `net.yaml:4: maxpool "p": a quantized model must end in a dense or conv layer, whose float32 logits are the output` {
		t.Error(err)
	}
	m := placed(t, "int8")
	delete(m.Quant, "c1")
	if _, err := model.Share(m); text(err) != `net.yaml:6: maxpool "p1": its input "c1" has no quantizer` {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	if err := model.Check(placed(t, "w2a4")); err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name string
		edit func(*model.Model)
		want string
	}{
		{"stage", func(m *model.Model) { m.Stage = model.Float }, `model "net" is float; only a quantized model can be checked`},
		{"target", func(m *model.Model) { m.Target = 7 }, `model "net": target Target(7) is not supported`},
		{"spec", func(m *model.Model) { m.Quant["c2"].Spec.Scheme = 0 }, `tensor "c2": scheme is not set`},
		{"batch norm alone", func(m *model.Model) { m.Nodes[1].Op = model.BatchNorm }, `net.yaml:6: batchnorm "p1": has no quantized arithmetic`},
		{"no weight quantizer", func(m *model.Model) { delete(m.Quant, "c2.weight") }, `net.yaml:7: conv "c2": its weight has no quantizer`},
		{"no input quantizer", func(m *model.Model) { delete(m.Quant, "x") }, `net.yaml:3: conv "c1": its input "x" has no quantizer`},
		{"unsigned weight", func(m *model.Model) {
			m.Quant["fc2.weight"].Spec.Signed, m.Quant["fc2.weight"].Spec.Narrow = false, false
		},
			`net.yaml:12: dense "fc2": weight int8 symmetric/channel/minmax: weights must be signed, without zero point, and of at most 8 bits where activations are floats`},
		{"affine weight", func(m *model.Model) {
			s := &m.Quant["fc2.weight"].Spec
			s.Scheme, s.Per = quant.Affine, quant.PerTensor
		}, `net.yaml:12: dense "fc2": weight int8 affine/tensor/minmax: weights must be signed, without zero point, and of at most 8 bits where activations are floats`},
		{"wide weight", func(m *model.Model) { m.Quant["fc2.weight"].Spec.Format = quant.Int16 }, ""},
		{"weight range", func(m *model.Model) { m.Quant["fc2.weight"].Spec.Range = quant.EMA },
			`net.yaml:12: dense "fc2": weight range "ema" is for activations; use minmax, lsq or mse`},
		{"power of two with batch norm", func(m *model.Model) { m.Quant["c1.weight"].Spec.Scheme = quant.PowerOfTwo },
			`net.yaml:3: conv "c1": weight int8 pow2/channel/minmax: folding batch norm multiplies each scale by gamma/sqrt(var+eps), which leaves no power of two; use scheme symmetric here, or no batch norm`},
		{"activation range", func(m *model.Model) {
			m.Quant["c1"].Spec.Range, m.Quant["c1"].Spec.Scheme = quant.TQT, quant.PowerOfTwo
		}, ""},
		{"clipped behind a relu", func(m *model.Model) { m.Quant["c1"].Spec.Range = quant.PACT }, ""},
		{"clipped without a relu", func(m *model.Model) { m.Quant["c1"].Spec.Range = quant.PACT; m.Node("c1").Attr.Relu = false },
			`net.yaml:3: conv "c1": activation int8 affine/tensor/pact: pact clips at 0, and this output has negative values, which it would cut off; use lsq+ here, or put a relu behind the layer`},
		{"floor of 16 bits", func(m *model.Model) {
			s := &m.Quant["c1"].Spec
			s.Format, s.Signed, s.Scheme, s.Rounding = quant.Int16, true, quant.Symmetric, quant.Floor
		}, `net.yaml:3: conv "c1": activation int16 symmetric/tensor/envelope floor: activations become codes by ONNX's QuantizeLinear, which rounds halves to even; only weights have another rounding`},
		{"power of two without", func(m *model.Model) { m.Quant["fc2.weight"].Spec.Scheme = quant.PowerOfTwo }, ""},
		{"signed activation", func(m *model.Model) { m.Quant["c1"].Spec.Signed = true },
			`net.yaml:3: conv "c1": activation int8 affine/tensor/envelope: activations must be per tensor, and unsigned up to 8 bits or signed with 16`},
		{"activation per channel", func(m *model.Model) {
			s := &m.Quant["c1"].Spec
			s.Scheme, s.Per = quant.Symmetric, quant.PerChannel
		}, `net.yaml:3: conv "c1": activation int8 symmetric/channel/envelope: activations must be per tensor, and unsigned up to 8 bits or signed with 16`},
		{"wide activation", func(m *model.Model) { m.Quant["c1"].Spec.Format = quant.Int16 },
			`net.yaml:3: conv "c1": activation int16 affine/tensor/envelope: activations must be per tensor, and unsigned up to 8 bits or signed with 16`},
		{"wide affine activation", func(m *model.Model) {
			s := &m.Quant["c1"].Spec
			s.Format, s.Signed = quant.Int16, true
		}, `net.yaml:3: conv "c1": activation int16 affine/tensor/envelope: 16-bit activations have zero point 0: use scheme symmetric`},
	}
	for _, r := range rows {
		m := placed(t, "int8")
		r.edit(m)
		if got := text(model.Check(m)); got != r.want {
			t.Errorf("%s: %q\nwant %q", r.name, got, r.want)
		}
	}
}

func TestCloneIsDeep(t *testing.T) {
	m := must(t)(model.Freeze(calibrated(t, "int8", nil)))
	m.Inputs[0].Labels = []string{"a", "b"}
	before := m.Clone()
	if !reflect.DeepEqual(m, before) {
		t.Fatal("a clone differs from its original")
	}
	c := m.Clone()
	c.Inputs[0].Labels[0], c.Inputs[0].Shape[0], c.Inputs[0].Zero = "z", 99, 7
	c.Outputs[0] = "z"
	for i := range c.Nodes {
		n := &c.Nodes[i]
		n.In[0], n.Shape[0] = "z", 99
		if n.Requant != nil {
			n.Requant.M[0], n.Requant.Lo = 99, 99
		}
	}
	for _, p := range c.Params {
		p.Shape[0] = 99
		if p.Codes != nil {
			p.Codes[0]++
		}
		if p.Int32 != nil {
			p.Int32[0]++
		}
	}
	for _, q := range c.Quant {
		q.Scale[0], q.Zero[0] = 99, 99
	}
	c.Append(dense("more", 1))
	c.Params["more"], c.Quant["more"] = &model.Param{}, &quant.Params{}
	if !reflect.DeepEqual(m, before) {
		t.Error("changing a clone changed the original")
	}
}

func TestLookups(t *testing.T) {
	m := cnn(t)
	if m.Node("nope") != nil || m.Input("nope") != nil || m.Input("x") != &m.Inputs[0] || m.Node("c2") != &m.Nodes[5] {
		t.Error("Node or Input finds the wrong thing")
	}
	if s, ok := m.ShapeOf("x"); !ok || !slices.Equal(s, model.Shape{8, 8, 2}) {
		t.Errorf("ShapeOf(input) = %v, %v", s, ok)
	}
	if _, ok := m.ShapeOf("nope"); ok {
		t.Error("ShapeOf finds a tensor that is not there")
	}
	if r := m.Readers("c1"); len(r) != 1 || r[0].Name != "p1" || !m.IsOutput("fc2") || m.IsOutput("c1") {
		t.Error("Readers or IsOutput is wrong")
	}
	if !slices.IsSorted(m.ParamNames()) || len(m.ParamNames()) != len(m.Params) {
		t.Error("ParamNames is not the sorted list of parameters")
	}
	if got := (model.Shape{}).Size() + (model.Shape{}).Channels() + (model.Shape{2, 3}).Size() + (model.Shape{2, 3}).Channels(); got != 1+1+6+3 {
		t.Errorf("Size and Channels sum to %d", got)
	}
	if got := model.Float.String() + model.Quantized.String() + model.Frozen.String() + model.Stage(9).String(); got != "floatquantizedfrozenStage(9)" {
		t.Error(got)
	}
}
