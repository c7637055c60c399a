package model_test

import (
	"testing"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// TestInputTable: the code of a byte is that of the value it stands for.
func TestInputTable(t *testing.T) {
	in := model.Input{Name: "x", Shape: model.Shape{4}, Scale: 2.0 / 255, Zero: 128}
	own := &quant.Params{Spec: quant.ActSpec(quant.Int8), Scale: []float32{in.Scale}, Zero: []int32{in.Zero}}
	if in.InputTable(own) != nil {
		t.Error("bytes that are codes need no table")
	}
	narrow := quant.ActSpec(quant.Int2)
	narrow.Scheme, narrow.Range, narrow.Max, narrow.Narrow = quant.Symmetric, quant.Constant, 1, true
	for _, spec := range []quant.Spec{quant.ActSpec(quant.Binary), narrow} {
		s, z := spec.ConstantScale()
		table := in.InputTable(&quant.Params{Spec: spec, Scale: []float32{s}, Zero: []int32{z}})
		for p := range 256 {
			v := quant.Mul32(in.Scale, float32(p-128))
			if want := spec.Code(v, s, z); int32(table[p]) != want {
				t.Errorf("%s: byte %d, value %v: code %d, want %d", spec, p, v, table[p], want)
			}
		}
		if table[0] == table[255] || table[128] != map[bool]uint8{true: 2, false: 2}[spec.IsSign()] {
			t.Errorf("%s: bytes 0, 128 and 255 have codes %d, %d, %d", spec, table[0], table[128], table[255])
		}
	}
}

// TestSignsRefused: outputs that cannot be signs say so, before training.
func TestSignsRefused(t *testing.T) {
	plain := func(act model.Node) *model.Model {
		return must(t)(model.Fuse(must(t)(model.Shapes(chain(model.Shape{6}, dense("fc1", 5), act, dense("fc2", 3))))))
	}
	check := func(m *model.Model, q model.QuantConfig) error {
		placed, err := model.Place(m, q)
		if err == nil {
			placed, err = model.Share(placed)
		}
		if err == nil {
			err = model.Check(placed)
		}
		return err
	}
	binary := model.DefaultQuant(precision(t, "binary"))
	withInput := model.DefaultQuant(precision(t, "int4"))
	withInput.InputAct = true
	sum := func() *model.Model {
		m := chain(model.Shape{6}, dense("a", 6), dense("b", 6))
		m.Append(reads(named(model.Node{Layer: "sum", Op: model.Add}, "sum"), "a", "b"))
		m.Append(named(dense("fc", 3), "fc"))
		return must(t)(model.Fuse(must(t)(model.Shapes(m))))
	}
	for _, r := range []struct {
		name string
		err  error
		want string
	}{
		{"relu", check(plain(relu("act")), binary), `net.yaml:3: dense "fc1": activation binary symmetric/tensor/constant 1: the sign of a ReLU is always +1; remove the ReLU, or use a wider activation, for example int2`},
		{"sum", check(sum(), binary), `add "sum": activation binary symmetric/tensor/constant 1: only conv and dense layers have binary outputs; give this layer another act by a rule, for example int8`},
		{"input", check(plain(relu("act")), withInput), `input "x": the grid of activations int4 affine/tensor/envelope follows what layers compute, and nothing is computed before the input; use range constant with max, or leave the input its bytes`},
	} {
		if got := text(r.err); got != r.want {
			t.Errorf("%s: %q\nwant %q", r.name, got, r.want)
		}
	}
}

// TestWholeNorm: batch norm over the whole tensor has one of each parameter, which the fold gives to every unit; convs and
// dropout out of place are refused.
func TestWholeNorm(t *testing.T) {
	whole := model.Node{Name: "fc", Layer: "fc", Op: model.BatchNorm, Attr: model.Attr{Eps: 0.25, Momentum: 0.1, Whole: true}}
	product := dense("fc", 3)
	product.Name, product.Attr.Bias = "fc/dense", false
	m := must(t)(model.Fuse(must(t)(model.Shapes(chain(model.Shape{6}, product, whole)))))
	for role, v := range map[string]float32{model.Gamma: -3, model.Beta: 0.5, model.Mean: 2, model.Var: 2} {
		p := m.Params["fc."+role]
		if len(p.Data) != 1 {
			t.Fatalf("%s has %d values", role, len(p.Data))
		}
		p.Data[0] = v
	}
	a, err := m.Affine(m.Node("fc"))
	if err != nil {
		t.Fatal(err)
	}
	for c := range 3 {
		if a.F[c] != -2 || a.B[c] != 4.5 { // -3/sqrt(2.25), 0.5 - 2*-2
			t.Errorf("unit %d: F = %v, B = %v; want -2 and 4.5", c, a.F[c], a.B[c])
		}
	}
	frozen := must(t)(model.Freeze(m))
	if n := frozen.Node("fc"); n.Attr.Whole || len(frozen.Params["fc."+model.NormMul].Data) != 3 {
		t.Errorf("frozen: %+v", n.Attr)
	}
	if err := model.Validate(frozen); err != nil {
		t.Error(err)
	}
	image := conv("c", 2, 3, 1, 1)
	image.Name = "c/conv"
	over := whole
	over.Name, over.Layer = "c", "c"
	if _, err := model.Shapes(chain(model.Shape{4, 4, 1}, image, over)); text(err) != `net.yaml:4: batchnorm "c": norm over the whole tensor is for dense layers, and the input has shape [4 4 2]; use norm: batch` {
		t.Errorf("conv: %v", err)
	}
	drop := relu("act")
	drop.Attr.Dropout = 0.5
	if _, err := model.Shapes(chain(model.Shape{6}, drop)); text(err) != `net.yaml:3: relu "act": dropout is of the input of conv and dense layers` {
		t.Errorf("dropout of a relu: %v", err)
	}
}
