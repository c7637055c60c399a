package model_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/model"
)

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// chain is a float model whose nodes follow each other; a node without a name gets its layer's.
func chain(in model.Shape, nodes ...model.Node) *model.Model {
	m := model.New("net", model.Input{Name: "x", Shape: in, Scale: 1.0 / 255})
	for i, n := range nodes {
		if n.Name == "" {
			n.Name = n.Layer
		}
		n.Origin = fmt.Sprintf("net.yaml:%d", i+3)
		m.Append(n)
	}
	return m
}

func conv(name string, units, kernel, stride, pad int) model.Node {
	return model.Node{Layer: name, Op: model.Conv, Attr: model.Attr{
		Kernel: [2]int{kernel, kernel}, Stride: [2]int{stride, stride}, Pad: [4]int{pad, pad, pad, pad}, Groups: 1, Units: units, Bias: true}}
}

func pool(name string, size, stride, pad int) model.Node {
	return model.Node{Layer: name, Op: model.MaxPool, Attr: model.Attr{
		Kernel: [2]int{size, size}, Stride: [2]int{stride, stride}, Pad: [4]int{pad, pad, pad, pad}}}
}

func dense(name string, units int) model.Node {
	return model.Node{Layer: name, Op: model.Dense, Attr: model.Attr{Units: units, Bias: true}}
}

func norm(layer, name string) model.Node {
	return model.Node{Name: name, Layer: layer, Op: model.BatchNorm, Attr: model.Attr{Eps: 1e-5, Momentum: 0.1}}
}

func relu(name string) model.Node    { return model.Node{Layer: name, Op: model.ReLU} }
func flatten(name string) model.Node { return model.Node{Layer: name, Op: model.Flatten} }

func edit(n model.Node, f func(*model.Node)) model.Node { f(&n); return n }

func TestShapes(t *testing.T) {
	rect := conv("c", 6, 3, 1, 0)
	rect.Attr.Kernel, rect.Attr.Stride, rect.Attr.Pad, rect.Attr.Groups = [2]int{3, 5}, [2]int{2, 3}, [4]int{1, 0, 0, 2}, 2
	rows := []struct {
		name   string
		m      *model.Model
		shapes []model.Shape
		params map[string]model.Shape
	}{
		{"same padding", chain(model.Shape{28, 28, 1}, conv("c", 32, 3, 1, 1)), []model.Shape{{28, 28, 32}},
			map[string]model.Shape{"c.weight": {3, 3, 1, 32}, "c.bias": {32}}},
		{"valid", chain(model.Shape{28, 28, 3}, conv("c", 8, 5, 1, 0)), []model.Shape{{24, 24, 8}}, nil},
		{"stride rounds down", chain(model.Shape{8, 9, 1}, conv("c", 2, 3, 2, 0)), []model.Shape{{3, 4, 2}}, nil},
		{"kernel as large as the padded input", chain(model.Shape{3, 3, 1}, conv("c", 2, 5, 1, 1)), []model.Shape{{1, 1, 2}}, nil},
		{"all sides differ, groups", chain(model.Shape{8, 10, 4}, rect), []model.Shape{{4, 3, 6}}, map[string]model.Shape{"c.weight": {3, 5, 2, 6}, "c.bias": {6}}},
		{"pool", chain(model.Shape{7, 6, 3}, pool("p", 2, 2, 0)), []model.Shape{{3, 3, 3}}, map[string]model.Shape{}},
		{"overlapping padded pool", chain(model.Shape{7, 7, 3}, pool("p", 3, 2, 1)), []model.Shape{{4, 4, 3}}, nil},
		{"whole net", chain(model.Shape{8, 8, 1}, conv("c", 4, 3, 1, 1), norm("c", "c.norm"), relu("c.relu"), pool("p", 2, 2, 0), flatten("f"), dense("fc", 10)),
			[]model.Shape{{8, 8, 4}, {8, 8, 4}, {8, 8, 4}, {4, 4, 4}, {64}, {10}},
			map[string]model.Shape{"c.weight": {3, 3, 1, 4}, "c.bias": {4}, "c.gamma": {4}, "c.beta": {4}, "c.mean": {4}, "c.var": {4}, "fc.weight": {64, 10}, "fc.bias": {10}}},
		{"no bias", chain(model.Shape{5}, edit(dense("fc", 3), func(n *model.Node) { n.Attr.Bias = false })), []model.Shape{{3}}, map[string]model.Shape{"fc.weight": {5, 3}}},
	}
	for _, r := range rows {
		out, err := model.Shapes(r.m)
		if err != nil {
			t.Errorf("%s: %v", r.name, err)
			continue
		}
		for i, n := range out.Nodes {
			if !slices.Equal(n.Shape, r.shapes[i]) {
				t.Errorf("%s: %s has shape %v, want %v", r.name, n.Name, n.Shape, r.shapes[i])
			}
			if s, ok := out.ShapeOf(n.Name); !ok || !slices.Equal(s, n.Shape) {
				t.Errorf("%s: ShapeOf(%q) = %v, %v", r.name, n.Name, s, ok)
			}
		}
		if r.params != nil && len(out.Params) != len(r.params) {
			t.Errorf("%s: parameters %v, want %v", r.name, out.ParamNames(), r.params)
		}
		for name, shape := range r.params {
			p := out.Params[name]
			if p == nil || !slices.Equal(p.Shape, shape) || len(p.Data) != shape.Size() {
				t.Errorf("%s: parameter %s is %+v, want shape %v", r.name, name, p, shape)
			}
		}
		if len(r.m.Params) != 0 || r.m.Nodes[0].Shape != nil {
			t.Errorf("%s: the argument was changed", r.name)
		}
	}
}

func TestShapesStartsAndKeepsParameters(t *testing.T) {
	m := chain(model.Shape{2}, dense("fc", 2), norm("fc", "n"))
	m.Params["fc.weight"] = &model.Param{Shape: model.Shape{2, 2}, Data: []float32{1, 2, 3, 4}}
	out, err := model.Shapes(m)
	if err != nil {
		t.Fatal(err)
	}
	if out.Params["fc.weight"] != m.Params["fc.weight"] {
		t.Error("a master that was there is not shared")
	}
	for name, want := range map[string]float32{"fc.bias": 0, "fc.gamma": 1, "fc.beta": 0, "fc.mean": 0, "fc.var": 1} {
		for _, v := range out.Params[name].Data {
			if v != want {
				t.Errorf("%s starts at %v, want %v", name, v, want)
			}
		}
	}
}

func TestShapesRefuses(t *testing.T) {
	img := model.Shape{8, 8, 3}
	with := func(n model.Node, f func(*model.Attr)) model.Node { f(&n.Attr); return n }
	input := func(f func(*model.Input)) *model.Model {
		m := chain(model.Shape{4}, dense("fc", 2))
		f(&m.Inputs[0])
		return m
	}
	rows := []struct {
		m    *model.Model
		want string
	}{
		{chain(img, dense("fc", 4)), `net.yaml:3: dense "fc": input has shape [8 8 3]; put a flatten layer before it`},
		{chain(model.Shape{4}, dense("fc", 0)), `net.yaml:3: dense "fc": units is 0; it must be at least 1`},
		{chain(model.Shape{4}, conv("c", 2, 3, 1, 0)), `net.yaml:3: conv "c": input has shape [4]; it needs height, width and channels`},
		{chain(model.Shape{4}, pool("p", 2, 2, 0)), `net.yaml:3: maxpool "p": input has shape [4]; it needs height, width and channels`},
		{chain(img, conv("c", 2, 9, 1, 0)), `net.yaml:3: conv "c": kernel 9 is larger than the padded input 8`},
		{chain(img, conv("c", 2, 0, 1, 0)), `net.yaml:3: conv "c": kernel 0 and stride 1 must be at least 1, padding 0,0 at least 0`},
		{chain(img, conv("c", 2, 3, 0, 0)), `net.yaml:3: conv "c": kernel 3 and stride 0 must be at least 1, padding 0,0 at least 0`},
		{chain(img, conv("c", 2, 3, 1, -1)), `net.yaml:3: conv "c": kernel 3 and stride 1 must be at least 1, padding -1,-1 at least 0`},
		{chain(img, conv("c", 0, 3, 1, 0)), `net.yaml:3: conv "c": 3 input channels, 0 filters and 1 groups do not fit: both must be multiples of the groups`},
		{chain(img, with(conv("c", 4, 3, 1, 0), func(a *model.Attr) { a.Groups = 2 })), `net.yaml:3: conv "c": 3 input channels, 4 filters and 2 groups do not fit: both must be multiples of the groups`},
		{chain(img, with(conv("c", 4, 3, 1, 0), func(a *model.Attr) { a.Groups = 3 })), `net.yaml:3: conv "c": 3 input channels, 4 filters and 3 groups do not fit: both must be multiples of the groups`},
		{chain(img, pool("p", 2, 2, 2)), `net.yaml:3: maxpool "p": padding 2,2 must be smaller than the window 2`},
		{chain(model.Shape{16, 16, 1}, pool("p", 16, 16, 0)), `net.yaml:3: maxpool "p": a window of 256 cells; max-pool supports at most 254`},
		{chain(img, flatten("f"), dense("fc", 2), pool("p", 2, 2, 0)), `net.yaml:5: maxpool "p": input has shape [2]; it needs height, width and channels`},
		{chain(img, conv("c", 2, 3, 1, 0), edit(norm("c", "n"), func(n *model.Node) { n.Attr.Eps = 0 })), `net.yaml:4: batchnorm "c": eps 0 must be positive and momentum 0.1 in (0, 1]`},
		{chain(img, conv("c", 2, 3, 1, 0), edit(norm("c", "n"), func(n *model.Node) { n.Attr.Momentum = 1.5 })), `net.yaml:4: batchnorm "c": eps 1e-05 must be positive and momentum 1.5 in (0, 1]`},
		{chain(model.Shape{4}, model.Node{Layer: "z", Op: 99}), `net.yaml:3: Op(99) "z": unknown operation`},
		{chain(model.Shape{4}, dense("x", 2)), `net.yaml:3: dense "x": tensor name "x" is empty or used twice`},
		{chain(model.Shape{4}, dense("", 2)), `net.yaml:3: dense "": tensor name "" is empty or used twice`},
		{chain(model.Shape{4}, edit(dense("fc", 2), func(n *model.Node) { n.In = []string{"y"} })), `net.yaml:3: dense "fc": reads "y", which no earlier layer makes`},
		{chain(model.Shape{4}, edit(dense("fc", 2), func(n *model.Node) { n.In = []string{"x", "x"} })), `net.yaml:3: dense "fc": needs 1 input, has 2`},
		{chain(model.Shape{4}, edit(dense("fc", 4), func(n *model.Node) { n.Name = "a" }), edit(dense("fc", 4), func(n *model.Node) { n.Name = "b" })), `net.yaml:4: dense "fc": parameter "fc.bias" is that of tensor "a" already; give the layers different names`},
		{chain(model.Shape{4}, dense("fc", 4), relu("fc.weight"), dense("out", 2)), `net.yaml:4: relu "fc.weight": tensor name "fc.weight" is the name of a parameter`},
		{chain(model.Shape{4}), `model "net" has no layers`},
		{(&model.Model{Name: "bare"}), `model "bare" has no layers`},
		{input(func(in *model.Input) { in.Name = "" }), `input name "" is empty or used twice`},
		{input(func(in *model.Input) { in.Shape = nil }), `input "x": shape [] must have positive extents`},
		{input(func(in *model.Input) { in.Shape = model.Shape{0} }), `input "x": shape [0] must have positive extents`},
		{input(func(in *model.Input) { in.Scale = 0 }), `input "x": scale 0 must be finite and positive and zero point 0 a byte`},
		{input(func(in *model.Input) { in.Scale = float32(math.NaN()) }), `input "x": scale NaN must be finite and positive and zero point 0 a byte`},
		{input(func(in *model.Input) { in.Scale = float32(math.Inf(1)) }), `input "x": scale +Inf must be finite and positive and zero point 0 a byte`},
		{input(func(in *model.Input) { in.Zero = 256 }), `input "x": scale 0.003921569 must be finite and positive and zero point 256 a byte`},
	}
	for _, r := range rows {
		out, err := model.Shapes(r.m)
		if out != nil || text(err) != r.want {
			t.Errorf("%v\nwant %s", err, r.want)
		}
	}
	m := chain(model.Shape{4}, dense("fc", 2))
	m.Params["fc.weight"] = &model.Param{Shape: model.Shape{2, 4}, Data: make([]float32, 8)}
	if _, err := model.Shapes(m); text(err) != `net.yaml:3: dense "fc": parameter "fc.weight" has shape [2 4], the layer needs [4 2]` {
		t.Error(err)
	}
	m.Params["fc.weight"] = &model.Param{Shape: model.Shape{4, 2}, Data: make([]float32, 7)}
	if _, err := model.Shapes(m); text(err) != `net.yaml:3: dense "fc": parameter "fc.weight" has 7 float32 values, its shape [4 2] has 8` {
		t.Error(err)
	}
	delete(m.Params, "fc.weight")
	m.Outputs = []string{"gone"}
	if _, err := model.Shapes(m); text(err) != `output "gone" is not a tensor of model "net"` {
		t.Error(err)
	}
	m.Outputs = nil
	if _, err := model.Shapes(m); text(err) != `model "net" has no outputs` {
		t.Error(err)
	}
	empty := &model.Model{Name: "none", Params: map[string]*model.Param{}}
	empty.Append(dense("fc", 2))
	empty.Nodes[0].Name = "fc"
	if _, err := model.Shapes(empty); text(err) != `dense "fc": reads "", which no earlier layer makes` {
		t.Error(err)
	}
}

func TestOps(t *testing.T) {
	rows := []struct {
		op             model.Op
		name           string
		weight, shares bool
	}{
		{model.Conv, "conv", true, false}, {model.Dense, "dense", true, false}, {model.BatchNorm, "batchnorm", false, false},
		{model.ReLU, "relu", false, true}, {model.MaxPool, "maxpool", false, true}, {model.Flatten, "flatten", false, true},
	}
	for _, r := range rows {
		if got, err := model.ParseOp(r.name); got != r.op || err != nil || r.op.String() != r.name {
			t.Errorf("ParseOp(%q) = %v, %v", r.name, got, err)
		}
		if r.op.HasWeight() != r.weight || r.op.SharesScale() != r.shares {
			t.Errorf("%s: weight %v, shares scale %v", r.op, r.op.HasWeight(), r.op.SharesScale())
		}
	}
	for _, name := range []string{"", "Conv", "softmax"} {
		if _, err := model.ParseOp(name); err == nil {
			t.Errorf("ParseOp(%q) is accepted", name)
		}
	}
	for _, role := range []string{model.Weight, model.Bias, model.Gamma, model.Beta, model.Mean, model.Var, model.NormMul, model.NormAdd} {
		if want := role == "weight" || role == "bias" || role == "gamma" || role == "beta"; model.Trained(role) != want {
			t.Errorf("Trained(%q) = %v", role, !want)
		}
	}
}
