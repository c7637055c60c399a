package model_test

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

func reads(n model.Node, in ...string) model.Node { n.In = in; return n }

func add(name, a, b string) model.Node {
	return model.Node{Layer: name, Op: model.Add, In: []string{a, b}}
}

func gap(name string) model.Node { return model.Node{Layer: name, Op: model.GlobalAvgPool} }

func relu6(name string) model.Node {
	return model.Node{Layer: name, Op: model.ReLU, Attr: model.Attr{Cap: 6}}
}

// named gives a node another tensor name than its layer's.
func named(n model.Node, name string) model.Node { n.Name = name; return n }

// residual is a conv, a depthwise block with ReLU6, an addition with a shortcut, a global average and the logits.
func residual(t testing.TB) *model.Model {
	depthwise := edit(conv("dw", 4, 3, 2, 1), func(n *model.Node) { n.Attr.Groups, n.Attr.Bias = 4, false })
	return must(t)(model.Shapes(chain(model.Shape{6, 6, 2},
		named(conv("c1", 4, 3, 1, 1), "c1/conv"), named(relu("c1"), "c1"),
		named(depthwise, "dw/conv"), named(norm("dw", ""), "dw/norm"), named(relu6("dw"), "dw"),
		reads(conv("short", 4, 1, 2, 0), "c1"),
		named(add("sum", "dw", "short"), "sum/add"), named(relu6("sum"), "sum"),
		gap("mean"), relu6("own"), dense("fc", 3))))
}

func TestResidualShapesAndFuse(t *testing.T) {
	m := residual(t)
	f := must(t)(model.Fuse(m))
	if got, want := names(f), []string{"c1", "dw", "short", "sum", "mean", "own", "fc"}; !slices.Equal(got, want) {
		t.Fatalf("nodes %v, want %v", got, want)
	}
	for name, want := range map[string]model.Shape{"c1": {6, 6, 4}, "dw": {3, 3, 4}, "short": {3, 3, 4}, "sum": {3, 3, 4}, "mean": {4}, "own": {4}} {
		if got := f.Node(name).Shape; !slices.Equal(got, want) {
			t.Errorf("%s has shape %v, want %v", name, got, want)
		}
	}
	type after struct {
		norm, relu bool
		cap        float32
	}
	for name, want := range map[string]after{"c1": {relu: true}, "dw": {true, true, 6}, "short": {}, "sum": {relu: true, cap: 6}, "own": {cap: 6}} {
		if a := f.Node(name).Attr; (after{a.Norm, a.Relu, a.Cap}) != want {
			t.Errorf("%s: %+v, want %+v", name, a, want)
		}
	}
	if got := f.Node("sum").In; !slices.Equal(got, []string{"dw", "short"}) {
		t.Errorf("sum reads %v", got)
	}
	if again := must(t)(model.Fuse(f)); !reflect.DeepEqual(again, f) {
		t.Error("fusing twice is not fusing once")
	}
	// A sum that others read before its ReLU keeps it apart; nothing is fused into a global average.
	m = must(t)(model.Shapes(chain(model.Shape{4, 4, 2}, conv("a", 2, 1, 1, 0), reads(conv("b", 2, 1, 1, 0), "x"), add("s", "a", "b"), relu("r"), add("s2", "s", "r"), gap("g"), relu("gr"), dense("fc", 2))))
	if got := names(must(t)(model.Fuse(m))); !slices.Equal(got, []string{"a", "b", "s", "r", "s2", "g", "gr", "fc"}) {
		t.Errorf("nodes %v", got)
	}
	if macs := f.MACs(f.Node("dw")); macs != 3*3*4*9 {
		t.Errorf("depthwise: %d MACs", macs)
	}
	if f.MACs(f.Node("sum")) != 0 || f.NodeWeightBytes(f.Node("mean")) != 0 {
		t.Error("operations without weights have a cost in weights")
	}
}

func TestResidualShapesRefuses(t *testing.T) {
	for want, m := range map[string]*model.Model{
		`net.yaml:4: add "s": needs 2 inputs, has 1`:                          chain(model.Shape{4}, dense("a", 4), reads(add("s", "", ""), "a")),
		`net.yaml:4: add "s": adds "a" to itself; name two different tensors`: chain(model.Shape{4}, dense("a", 4), add("s", "a", "a")),
		`net.yaml:4: add "s": reads "b", which no earlier layer makes`:        chain(model.Shape{4}, dense("a", 4), add("s", "a", "b")),
		`net.yaml:4: add "s": "a" has shape [3] and "x" has [4]; a sum needs equal shapes: bring one branch to the other's with a 1x1 conv and its stride`: chain(
			model.Shape{4}, dense("a", 3), add("s", "a", "x")),
		`net.yaml:3: gap "g": input has shape [4]; it needs height, width and channels`:                       chain(model.Shape{4}, gap("g")),
		`net.yaml:3: gap "g": the mean of 4096x4096 cells could leave 32 bits; at most 8421504 are supported`: chain(model.Shape{4096, 4096, 1}, gap("g")),
		`net.yaml:3: relu "r": cap -1 must be finite and positive, or 0 for none`:                             chain(model.Shape{4}, edit(relu("r"), func(n *model.Node) { n.Attr.Cap = -1 })),
	} {
		if _, err := model.Shapes(m); text(err) != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

func TestResidualPlace(t *testing.T) {
	f := must(t)(model.Fuse(residual(t)))
	q := model.DefaultQuant(precision(t, "w4a8"))
	a4, w8 := quant.ActSpec(quant.Int4), quant.WeightSpec(quant.Int8)
	q.Rules = []model.Rule{{Layer: "sum", Act: &a4}, {Layer: "dw", Weight: &w8}}
	m := must(t)(model.Share(must(t)(model.Place(f, q))))
	if err := model.Check(m); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]quant.Spec{"sum": a4, "mean": quant.ActSpec(quant.Int8), "dw.weight": w8, "short.weight": quant.WeightSpec(quant.Int4)} {
		if m.Quant[name] == nil || m.Quant[name].Spec != want {
			t.Errorf("%s: %v, want %s", name, m.Quant[name], want)
		}
	}
	if m.Quant["own"] != m.Quant["mean"] {
		t.Error("a ReLU of its own must share the quantizer of its input")
	}
	for _, c := range []struct {
		rule model.Rule
		want string
	}{
		{model.Rule{Layer: "sum", Weight: &w8, Origin: "net.yaml:30"}, `net.yaml:30: rule for layer "sum": its weight applies to nothing: none of these layers has weights`},
		{model.Rule{Layer: "own", Act: &a4}, `rule for layer "own": matches no layer that is quantized by itself (layers: c1, dw, short, sum, mean, fc), or an earlier rule matches first`},
	} {
		q := model.DefaultQuant(precision(t, "int8"))
		q.Rules = []model.Rule{c.rule}
		if _, err := model.Place(f, q); text(err) != c.want {
			t.Errorf("%v\nwant %s", err, c.want)
		}
	}
	// 16-bit formats round what an addition and an average store.
	h := must(t)(model.Share(must(t)(model.Place(f, model.DefaultQuant(precision(t, "bf16"))))))
	if h.Quant["sum"].Spec.Format != quant.BF16 || h.Quant["mean"].Spec.Format != quant.BF16 || model.Check(h) != nil {
		t.Errorf("bf16: %v", model.Check(h))
	}
}

func TestResidualCheckRefuses(t *testing.T) {
	end := func(nodes ...model.Node) *model.Model {
		f := must(t)(model.Fuse(must(t)(model.Shapes(chain(model.Shape{4, 4, 2}, nodes...)))))
		m := must(t)(model.Place(f, model.DefaultQuant(precision(t, "int8"))))
		out, err := model.Share(m)
		if err != nil {
			return m
		}
		return out
	}
	const logits = `a quantized model must end in a dense or conv layer, whose float32 logits are the output`
	for want, m := range map[string]*model.Model{
		`net.yaml:4: gap "g": ` + logits: end(conv("a", 2, 1, 1, 0), gap("g")),
		`net.yaml:5: add "s": ` + logits: end(conv("a", 2, 1, 1, 0), conv("b", 2, 1, 1, 0), add("s", "a", "b")),
		`net.yaml:4: dense "fc": the logits are float32 and have no upper limit: remove relu6 from the last layer`: end(flatten("f"), named(dense("fc", 2), "fc/dense"), named(relu6("fc"), "fc")),
	} {
		if err := model.Check(m); text(err) != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

func unsigned(f quant.Format, scale float32, zero int32) *quant.Params {
	return &quant.Params{Spec: quant.ActSpec(f), Scale: []float32{scale}, Zero: []int32{zero}}
}

func TestLimits(t *testing.T) {
	node := func(relu bool, cap float32) *model.Node {
		return &model.Node{Op: model.Conv, Attr: model.Attr{Relu: relu, Cap: cap}}
	}
	for _, c := range []struct {
		n      *model.Node
		q      *quant.Params
		lo, hi int32
	}{
		{node(false, 0), unsigned(quant.Int8, 0.1, 100), 0, 255},
		{node(true, 0), unsigned(quant.Int8, 0.1, 100), 100, 255},
		{node(true, 6), unsigned(quant.Int8, 0.1, 100), 100, 160},
		{node(true, 6), unsigned(quant.Int8, 0.01, 100), 100, 255},
		{node(true, 6), unsigned(quant.Int8, 4, 0), 0, 2},   // 1.5 to the even neighbour
		{node(true, 6), unsigned(quant.Int8, 2.4, 0), 0, 2}, // f32(6/2.4) is 2.5 or just below
		{node(true, 6), unsigned(quant.Int8, 100, 7), 7, 7},
		{node(true, 6), unsigned(quant.Int4, 0.5, 3), 3, 15},
		{node(true, 6), unsigned(quant.Int8, 0x1p-23, 0), 0, 255},
		{&model.Node{Op: model.ReLU, Attr: model.Attr{Cap: 6}}, unsigned(quant.Int8, 0.1, 5), 5, 65},
	} {
		zero, lo, hi := c.n.Limits(c.q)
		if zero != c.q.Zero[0] || lo != c.lo || hi != c.hi {
			t.Errorf("%+v at scale %v: zero %d, [%d, %d], want [%d, %d]", c.n.Attr, c.q.Scale[0], zero, lo, hi, c.lo, c.hi)
		}
	}
}

// TestPlainRequant holds the multipliers to plain divisions: one for each input of an addition, one for a mean.
func TestPlainRequant(t *testing.T) {
	a, b, y := unsigned(quant.Int8, 0.0371, 3), unsigned(quant.Int4, 0.21, 0), unsigned(quant.Int8, 0.0519, 9)
	n := &model.Node{Op: model.Add, Attr: model.Attr{Relu: true, Cap: 6}}
	r := model.NewAddRequant(n, a, b, y)
	if want := []float32{a.Scale[0] / y.Scale[0], b.Scale[0] / y.Scale[0]}; !slices.Equal(r.M, want) || r.Lo != 9 || r.Hi != 9+116 || r.Float {
		t.Errorf("%+v, want multipliers %v", r, want)
	}
	r = model.NewMeanRequant(&model.Node{Op: model.GlobalAvgPool}, 49, a, y)
	divisor := 49 * y.Scale[0]
	if want := []float32{a.Scale[0] / divisor}; !slices.Equal(r.M, want) || r.Lo != 0 || r.Hi != 255 {
		t.Errorf("%+v, want multiplier %v", r, want)
	}
}

func frozenResidual(t testing.TB, name string) *model.Model {
	f := must(t)(model.Fuse(residual(t)))
	randomise(f, 3)
	if name == "fp32" {
		return must(t)(model.Freeze(f))
	}
	m := must(t)(model.Share(must(t)(model.Place(f, model.DefaultQuant(precision(t, name))))))
	for i, tensor := range m.QuantNames() {
		if q := m.Quant[tensor]; q.Spec.Format.IsInteger() && !q.Spec.Signed && !q.Ready() {
			s, z := q.Spec.Choose(-0.25*float32(i%3), 1+float32(i))
			q.Scale, q.Zero = []float32{s}, []int32{z}
		}
	}
	return must(t)(model.Freeze(m))
}

func TestResidualFreezeAndFile(t *testing.T) {
	for _, name := range []string{"fp32", "fp16", "int8", "w4a4", "w2a4"} {
		m := frozenResidual(t, name)
		if err := model.Validate(m); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if integer := m.Precision.IsInteger(); (m.Node("sum").Requant != nil) != integer || (m.Node("mean").Requant != nil) != integer || m.Node("own").Requant != nil {
			t.Errorf("%s: requantization of sum %v, mean %v, own %v", name, m.Node("sum").Requant, m.Node("mean").Requant, m.Node("own").Requant)
		}
		data := encoded(t, m)
		back, err := model.Decode(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range m.Nodes {
			m.Nodes[i].Origin = "" // not stored
		}
		if !reflect.DeepEqual(back.Nodes, m.Nodes) || !bytes.Equal(encoded(t, back), data) {
			t.Errorf("%s: the model changed on its way through a file", name)
		}
	}
}

// TestAddScalesOutOfProportion: terms that could be infinite are refused, not rounded to something.
func TestAddScalesOutOfProportion(t *testing.T) {
	f := must(t)(model.Fuse(residual(t)))
	m := must(t)(model.Share(must(t)(model.Place(f, model.DefaultQuant(precision(t, "int8"))))))
	for _, tensor := range m.QuantNames() {
		if q := m.Quant[tensor]; !q.Spec.Signed && !q.Ready() {
			q.Scale, q.Zero = []float32{0.1}, []int32{0}
		}
	}
	m.Quant["short"].Scale[0], m.Quant["sum"].Scale[0] = 0x1p110, 0x1p-20
	_, err := model.Freeze(m)
	if !strings.Contains(text(err), `add "sum": multiplier[1] is +Inf; it must be finite and positive`) {
		t.Error(err)
	}
	m.Quant["sum"].Scale[0] = 0x1p-10
	if _, err := model.Freeze(m); !strings.Contains(text(err), `the scales of "short" and of the sum are out of all proportion`) {
		t.Error(err)
	}
}

func TestResidualValidateRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(m *model.Model)
		want string
	}{
		{"multiplier", func(m *model.Model) { m.Node("sum").Requant.M[1] *= 2 }, `add "sum": multiplier[1] is`},
		{"one multiplier", func(m *model.Model) { m.Node("sum").Requant.M = m.Node("sum").Requant.M[:1] }, `requantization has 1 multipliers, not 2`},
		{"mean multiplier", func(m *model.Model) { m.Node("mean").Requant.M[0] *= 2 }, `gap "mean": multiplier[0] is`},
		{"no requantization", func(m *model.Model) { m.Node("mean").Requant = nil }, `gap "mean": an integer layer needs its requantization`},
		{"limit", func(m *model.Model) { m.Node("sum").Requant.Hi = 255 }, `its quantizers give`},
		{"cap", func(m *model.Model) { m.Node("sum").Attr.Cap = 5 }, `its quantizers give`},
		{"cap without ReLU", func(m *model.Model) { m.Node("short").Attr.Cap = 6 }, `cap 6 is the limit of a ReLU, and there is none`},
		{"cap of logits", func(m *model.Model) { m.Node("fc").Attr.Relu, m.Node("fc").Attr.Cap = true, 6 }, `float32 logits have no upper limit`},
		{"bias", func(m *model.Model) { m.Node("sum").Attr.Bias = true }, `bias and norm are attributes of conv and dense`},
		{"relu of gap", func(m *model.Model) { m.Node("mean").Attr.Relu = true }, `relu of these and add`},
		{"float output", func(m *model.Model) { delete(m.Quant, "sum") }, `add "sum": its input "dw" and its output must both be on integer codes, or neither`},
		{"same input", func(m *model.Model) { m.Node("sum").In[1] = "dw" }, `adds "dw" to itself`},
		{"three inputs", func(m *model.Model) { m.Node("sum").In = append(m.Node("sum").In, "c1") }, `needs 2 inputs, has 3`},
	} {
		m := frozenResidual(t, "int8")
		c.edit(m)
		if err := model.Validate(m); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant %s", c.name, err, c.want)
		}
	}
}
