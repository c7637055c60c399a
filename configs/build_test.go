package configs_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

func image(h, w, c int) model.Input {
	return model.Input{Name: "input", Shape: model.Shape{h, w, c}, Scale: 1.0 / 255, Labels: strings.Split("0123456789", "")}
}

// TestBuildPresets: every preset builds for its data, and its layers have the shapes of the published networks.
func TestBuildPresets(t *testing.T) {
	for _, c := range []struct {
		preset string
		in     model.Input
		shapes []model.Shape // of every node after fusing
		params int           // trained parameters
	}{
		{"digits-mlp", image(8, 8, 1), []model.Shape{{64}, {128}, {64}, {10}}, 64*128 + 128 + 128*64 + 64 + 64*10 + 10},
		{"digits-cnn", image(8, 8, 1), []model.Shape{{8, 8, 16}, {8, 8, 32}, {4, 4, 32}, {512}, {64}, {10}},
			9*16 + 2*16 + 9*16*32 + 2*32 + 512*64 + 64 + 64*10 + 10},
		{"mnist-mlp", image(28, 28, 1), []model.Shape{{784}, {256}, {256}, {10}}, 784*256 + 256 + 256*256 + 256 + 256*10 + 10},
		{"fashion-mlp", image(28, 28, 1), []model.Shape{{784}, {256}, {256}, {10}}, 784*256 + 256 + 256*256 + 256 + 256*10 + 10},
		{"fashion-cnn", image(28, 28, 1), []model.Shape{{28, 28, 32}, {14, 14, 32}, {14, 14, 64}, {7, 7, 64}, {3136}, {128}, {10}},
			9*32 + 2*32 + 9*32*64 + 2*64 + 3136*128 + 128 + 128*10 + 10},
		{"fashion-mbnet", image(28, 28, 1), []model.Shape{{28, 28, 16}, {28, 28, 16}, {28, 28, 32}, {14, 14, 32}, {14, 14, 64}, {14, 14, 64}, {14, 14, 64}, {7, 7, 64}, {7, 7, 128}, {128}, {10}},
			9*16 + 9*16 + 16*32 + 9*32 + 32*64 + 9*64 + 64*64 + 9*64 + 64*128 + 2*(16+16+32+32+64+64+64+64+128) + 128*10 + 10},
		{"cifar-resnet8", image(32, 32, 3), []model.Shape{{32, 32, 16}, {32, 32, 16}, {32, 32, 16}, {32, 32, 16}, {16, 16, 32}, {16, 16, 32}, {16, 16, 32}, {16, 16, 32},
			{8, 8, 64}, {8, 8, 64}, {8, 8, 64}, {8, 8, 64}, {64}, {10}},
			27*16 + 9*16*16*2 + 9*16*32 + 9*32*32 + 16*32 + 32 + 9*32*64 + 9*64*64 + 32*64 + 64 + 2*(16*3+32*2+64*2) + 64*10 + 10},
	} {
		t.Run(c.preset, func(t *testing.T) {
			cfg, err := configs.Preset(c.preset)
			if err != nil {
				t.Fatal(err)
			}
			m, err := cfg.BuildModel(c.in)
			if err != nil {
				t.Fatal(err)
			}
			var shapes []model.Shape
			params := 0
			for _, n := range m.Nodes {
				shapes = append(shapes, n.Shape)
				for _, role := range []string{model.Weight, model.Bias, model.Gamma, model.Beta} {
					if p := m.Params[n.Param(role)]; p != nil {
						params += p.Shape.Size()
					}
				}
			}
			if !slices.EqualFunc(shapes, c.shapes, slices.Equal) || params != c.params {
				t.Errorf("shapes %v, %d parameters; want %v, %d", shapes, params, c.shapes, c.params)
			}
			// Every precision that the preset compares can be placed.
			for _, name := range cfg.Compare.Precisions {
				p, err := quant.ParsePrecision(name)
				if err != nil {
					t.Fatal(err)
				}
				q, err := cfg.QuantConfig(p)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				placed, err := model.Place(m, q)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if placed, err = model.Share(placed); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if err := model.Check(placed); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

func TestBuildNodes(t *testing.T) {
	c := parse(t, strings.Replace(small, "  - flatten: {}", `  - conv: {name: a, filters: 4, kernel: 3, stride: 2, norm: batch, eps: 0.001, momentum: 0.2, act: relu}
  - conv: {name: b, filters: 6, kernel: 1, groups: 2, bias: true, norm: batch}
  - relu: {name: r}
  - maxpool: {name: p, size: 2, stride: 1, pad: same}
  - flatten: {name: f}`, 1))
	m, err := c.BuildModel(image(9, 7, 1))
	if err != nil {
		t.Fatal(err)
	}
	type node struct {
		name, layer string
		op          model.Op
		shape       string
		attr        model.Attr
	}
	want := []node{
		{"a", "a", model.Conv, "[5 4 4]", model.Attr{Kernel: [2]int{3, 3}, Stride: [2]int{2, 2}, Pad: [4]int{1, 1, 1, 1}, Groups: 1, Units: 4, Norm: true, Relu: true, Eps: 0.001, Momentum: 0.2}},
		{"r", "b", model.Conv, "[5 4 6]", model.Attr{Kernel: [2]int{1, 1}, Stride: [2]int{1, 1}, Groups: 2, Units: 6, Bias: true, Norm: true, Relu: true, Eps: 0.00001, Momentum: 0.1}},
		{"p", "p", model.MaxPool, "[5 4 6]", model.Attr{Kernel: [2]int{2, 2}, Stride: [2]int{1, 1}, Pad: [4]int{0, 0, 1, 1}}},
		{"f", "f", model.Flatten, "[120]", model.Attr{}},
		{"fc1", "fc1", model.Dense, "[16]", model.Attr{Units: 16, Bias: true, Relu: true}},
		{"fc2", "fc2", model.Dense, "[10]", model.Attr{Units: 10, Bias: true}},
	}
	if len(m.Nodes) != len(want) {
		t.Fatalf("%d nodes, want %d", len(m.Nodes), len(want))
	}
	for i, w := range want {
		n := m.Nodes[i]
		if n.Name != w.name || n.Layer != w.layer || n.Op != w.op || fmt.Sprint(n.Shape) != w.shape || n.Attr != w.attr {
			t.Errorf("node %d: %+v\nwant %+v", i, n, w)
		}
	}
	if got := m.Nodes[0].Origin; got != "small.yaml:4" {
		t.Errorf("origin %s", got)
	}
}

// TestBuildBranches: what each node reads, with branches by name, the model's input, and layers in order.
func TestBuildBranches(t *testing.T) {
	c := parse(t, strings.Replace(small, "  - flatten: {}", `  - conv: {name: a, filters: 3, kernel: 1, act: relu6}
  - conv: {name: b, from: input, filters: 3, kernel: 3, groups: 1, norm: batch}
  - conv: {name: d, filters: 3, kernel: 3, groups: depthwise}
  - add: {name: s, from: [d, a], act: relu6}
  - relu: {name: r, from: b, cap: 2}
  - add: {from: [r, s]}
  - gap: {}`, 1))
	text, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := configs.Parse("again.yaml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, c := range []*configs.Config{c, again} {
		in := image(8, 8, 1)
		in.Name = "pixels"
		m, err := c.BuildModel(in)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range m.Nodes {
			got = append(got, fmt.Sprintf("%s %s%v groups %d relu %t cap %v", n.Name, n.Op, n.In, n.Attr.Groups, n.Attr.Relu, n.Attr.Cap))
		}
		want := []string{
			"a conv[pixels] groups 1 relu true cap 6", "b conv[pixels] groups 1 relu false cap 0", "d conv[b] groups 3 relu false cap 0",
			"s add[d a] groups 0 relu true cap 6", "r relu[b] groups 0 relu false cap 2", "add2 add[r s] groups 0 relu false cap 0",
			"gap1 gap[add2] groups 0 relu false cap 0", "fc1 dense[gap1] groups 0 relu true cap 0", "fc2 dense[fc1] groups 0 relu false cap 0",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// TestBuildProblems: what only the shapes can show is reported at the layer's line.
func TestBuildProblems(t *testing.T) {
	for _, c := range []struct {
		name, from, to string
		set            []string
		want           string
	}{
		{"dense on an image", "  - flatten: {}\n", "", nil,
			`small.yaml:4: model[0].dense: dense "fc1": input has shape [8 8 1]; put a flatten layer before it`},
		{"conv on a row", "  - flatten: {}\n", "  - flatten: {}\n  - conv: {filters: 2, kernel: 3}\n", nil,
			`small.yaml:5: model[1].conv: conv "conv1": input has shape [64]; it needs height, width and channels`},
		{"kernel too large", "  - flatten: {}\n", "  - conv: {filters: 2, kernel: 9, pad: valid}\n  - flatten: {}\n", nil,
			`small.yaml:4: model[0].conv: conv "conv1": kernel 9 is larger than the padded input 8`},
		{"groups", "  - flatten: {}\n", "  - conv: {filters: 2, kernel: 3, groups: 2}\n  - flatten: {}\n", nil,
			`small.yaml:4: model[0].conv: conv "conv1": 1 input channels, 2 filters and 2 groups do not fit: both must be multiples of the groups`},
		{"too few logits", "units: 10", "units: 7", nil,
			`small.yaml:6: model[2].dense: the last layer gives shape [7], data set "digits" has 10 classes; end with - dense: {units: 10}`},
		{"too many weights", "  - flatten: {}\n", "  - conv: {filters: 65536, kernel: 255, pad: 1024}\n  - conv: {filters: 65536, kernel: 255}\n  - flatten: {}\n", nil,
			`small.yaml:4: model[0].conv: the model has too many weights here (allowed: at most 268435456); use fewer units or filters, or a stride or maxpool before this layer`},
		{"too many weights in all", "  - flatten: {}\n", "  - conv: {filters: 1000, kernel: 255, pad: 200}\n  - conv: {filters: 4, kernel: 255}\n  - flatten: {}\n", nil,
			`small.yaml:5: model[1].conv: the model has too many weights here (allowed: at most 268435456); use fewer units or filters, or a stride or maxpool before this layer`},
		{"depthwise", "  - flatten: {}\n", "  - conv: {filters: 6, kernel: 3, groups: depthwise}\n  - flatten: {}\n", nil,
			`small.yaml:4: model[0].conv: groups: depthwise needs as many filters as there are input channels: 1, not 6; follow it with a conv of kernel 1 for another number of channels`},
		{"sum of two shapes", "  - flatten: {}\n", "  - conv: {name: a, filters: 2, kernel: 3}\n  - add: {name: s, from: [a, input]}\n  - flatten: {}\n", nil,
			`small.yaml:5: model[1].add: add "s": "a" has shape [8 8 2] and "input" has [8 8 1]; a sum needs equal shapes: bring one branch to the other's with a 1x1 conv and its stride`},
		{"mean of a row", "  - flatten: {}\n", "  - flatten: {}\n  - gap: {}\n", nil,
			`small.yaml:5: model[1].gap: gap "gap1": input has shape [64]; it needs height, width and channels`},
		{"from the command line", "units: 10", "units: 10", []string{"model[0]={conv: {filters: 2, kernel: 3}}"},
			`small.yaml:5: model[1].dense: dense "fc1": input has shape [8 8 2]; put a flatten layer before it`},
		{"at the command line", "units: 10", "units: 10", []string{"model[0]={conv: {filters: 2, kernel: 9, pad: 0}}"},
			`--set model[0]={conv: {filters: 2, kernel: 9, pad: 0}}: model[0].conv: conv "conv1": kernel 9 is larger than the padded input 8`},
	} {
		cfg := parse(t, strings.Replace(small, c.from, c.to, 1), c.set...)
		_, err := cfg.BuildModel(image(8, 8, 1))
		var e *configs.Errors
		if !errors.As(err, &e) || len(e.Problems) != 1 {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := e.Problems[0].String(); got != c.want {
			t.Errorf("%s\ngot  %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestQuantConfig(t *testing.T) {
	c := parse(t, small+`quant:
  weight: {format: int4, range: lsq, per: tensor}
  act: {scheme: symmetric, range: ema}
  rules:
    - {layer: fc1, weight: {format: int8, range: minmax}, act: {range: lsq}}
    - {layer: 'fc*', weight: {per: channel}}
`)
	if p := c.Precision(); p != (quant.Precision{Weight: quant.Int4, Act: quant.Int8}) {
		t.Errorf("precision %s", p)
	}
	q, err := c.QuantConfig(quant.Precision{Weight: quant.Int2, Act: quant.Int4})
	if err != nil {
		t.Fatal(err)
	}
	if got := q.Weight.String() + ", " + q.Act.String(); got != "int2 symmetric/tensor/lsq, int4 symmetric/tensor/ema" {
		t.Errorf("defaults %s", got)
	}
	if !q.Weight.Signed || !q.Weight.Narrow || q.Act.Signed || q.Target != quant.ONNX {
		t.Errorf("%+v", q)
	}
	r := q.Rules[0]
	// The rule's format beats the precision; what it leaves out comes from the section, at the precision's format.
	if got := r.Layer + ": " + r.Weight.String() + ", " + r.Act.String(); got != "fc1: int8 symmetric/tensor/minmax, int4 symmetric/tensor/lsq" || r.Origin != "small.yaml:12" {
		t.Errorf("rule 0: %s at %s", got, r.Origin)
	}
	if r = q.Rules[1]; r.Act != nil || r.Weight.String() != "int2 symmetric/channel/lsq" {
		t.Errorf("rule 1: %+v", r)
	}

	half, err := c.QuantConfig(quant.Precision{Weight: quant.FP16, Act: quant.FP16})
	if err != nil {
		t.Fatal(err)
	}
	if half.Weight.Format != quant.FP16 || half.Act.Format != quant.FP16 || len(half.Rules) != 2 || half.Rules[0].Weight != nil || half.Rules[0].Act != nil {
		t.Errorf("fp16: %+v", half)
	}

	only, err := c.QuantConfig(quant.Precision{Weight: quant.Int4, Act: quant.FP16})
	if err != nil {
		t.Fatal(err)
	}
	if only.Act != quant.ActSpec(quant.FP16) || only.Weight.Format != quant.Int4 || only.Rules[0].Act != nil || only.Rules[0].Weight.String() != "int8 symmetric/tensor/minmax" {
		t.Errorf("weight-only: %+v", only)
	}
	if _, err := c.QuantConfig(quant.Precision{Weight: quant.Int8, Act: quant.BF16}); err == nil {
		t.Error("int8 weights with bf16 activations must be refused")
	}
	bare, err := parse(t, small).QuantConfig(quant.Precision{Weight: quant.Int8, Act: quant.Int8})
	if err != nil || bare.Weight != quant.WeightSpec(quant.Int8) || bare.Act != quant.ActSpec(quant.Int8) {
		t.Errorf("without a section: %+v, %v", bare, err)
	}
	if p := parse(t, small).Precision(); p != quant.Full {
		t.Errorf("precision without a section: %s", p)
	}
}
