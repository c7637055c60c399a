package model_test

import (
	"math"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

func learnedAt(t testing.TB, name string) model.QuantConfig {
	t.Helper()
	p, err := quant.ParsePrecision(name)
	if err != nil {
		t.Fatal(err)
	}
	q := model.DefaultQuant(p)
	q.Weight.Range, q.Act.Range = quant.LSQ, quant.LSQ
	return q
}

// From grid to grid every range stays: a weight's largest value, an activation's smallest and largest to half a step.
func TestRegridKeepsRanges(t *testing.T) {
	float := must(t)(model.Fuse(cnn(t)))
	m := must(t)(model.Share(must(t)(model.Place(float, learnedAt(t, "int8")))))
	for i, name := range m.QuantNames() {
		q := m.Quant[name]
		if len(q.Scale) > 0 {
			continue
		}
		n := 1
		if q.Spec.Signed {
			n = float.Params[name].Shape.Channels()
		}
		q.Scale, q.Zero = make([]float32, n), make([]int32, n)
		for c := range q.Scale {
			q.Scale[c] = 0.01 + 0.001*float32(i+c)
		}
		if !q.Spec.Signed {
			q.Zero[0] = int32(20 * i)
		}
	}
	for _, to := range []string{"w4a4", "w2a8", "w2a4"} {
		out := must(t)(model.Regrid(m, learnedAt(t, to)))
		if err := model.Check(out); err != nil {
			t.Fatal(err)
		}
		if out.Precision.String() != to {
			t.Errorf("precision %s, want %s", out.Precision, to)
		}
		for _, name := range out.QuantNames() {
			old, now := m.Quant[name], out.Quant[name]
			lo, hi := old.Spec.Grid()
			newLo, newHi := now.Spec.Grid()
			for c := range now.Scale {
				s, z := old.At(c)
				r, y := now.At(c)
				tol := 1e-6
				if !now.Spec.Signed {
					tol = float64(r) / 2 * 1.0001 // the zero point is a code
				}
				if d := math.Abs(float64(s)*float64(hi-z) - float64(r)*float64(newHi-y)); d > tol {
					t.Errorf("%s: %s[%d]: the upper end moved by %v of %v", to, name, c, d, r)
				}
				if d := math.Abs(float64(s)*float64(lo-z) - float64(r)*float64(newLo-y)); d > tol {
					t.Errorf("%s: %s[%d]: the lower end moved by %v of %v", to, name, c, d, r)
				}
			}
		}
		if out.Quant["p1"] != out.Quant["c1"] {
			t.Error("a pooling no longer shares its input's quantizer")
		}
		if &out.Params["c1.weight"].Data[0] != &m.Params["c1.weight"].Data[0] {
			t.Error("the masters were copied")
		}
	}
	if m.Quant["c1"].Spec.Format != quant.Int8 {
		t.Error("the argument was changed")
	}
}

func TestRegridRefuses(t *testing.T) {
	float := must(t)(model.Fuse(cnn(t)))
	if _, err := model.Regrid(float, learnedAt(t, "w4a4")); err == nil || !strings.Contains(err.Error(), "only a quantized") {
		t.Errorf("a float model: %v", err)
	}
	m := must(t)(model.Share(must(t)(model.Place(float, learnedAt(t, "int8")))))
	q := model.DefaultQuant(quant.Precision{Weight: quant.FP16, Act: quant.FP16})
	if _, err := model.Regrid(m, q); err == nil || !strings.Contains(err.Error(), "no meaning") {
		t.Errorf("onto 16-bit floats: %v", err)
	}
}

// Of a power-of-two range the end stays where it is, and with it a learned threshold.
func TestRegridPowerOfTwo(t *testing.T) {
	at := func(name string) model.QuantConfig {
		q := learnedAt(t, name)
		q.Act.Scheme, q.Act.Range = quant.PowerOfTwo, quant.TQT
		return q
	}
	float := must(t)(model.Fuse(cnn(t)))
	m := must(t)(model.Share(must(t)(model.Place(float, at("int8")))))
	for i, name := range m.QuantNames() {
		q := m.Quant[name]
		if len(q.Scale) > 0 {
			continue
		}
		n := 1
		if q.Spec.Signed {
			n = float.Params[name].Shape.Channels()
		}
		q.Scale, q.Zero = make([]float32, n), make([]int32, n)
		for c := range q.Scale {
			q.Scale[c] = float32(math.Ldexp(1, -6-i%3))
		}
		if !q.Spec.Signed && i%2 == 0 {
			q.Zero[0] = 128
		}
		q.Start()
	}
	out := must(t)(model.Regrid(m, at("w4a4")))
	for _, name := range out.QuantNames() {
		old, now := m.Quant[name], out.Quant[name]
		if now.Spec.Range != quant.TQT {
			continue
		}
		if now.Scale[0] != 16*old.Scale[0] || (now.Zero[0] == 0) != (old.Zero[0] == 0) || now.Learned[0] != old.Learned[0] {
			t.Errorf("%s: scale %v, zero point %d, threshold %v become %v, %d, %v", name, old.Scale[0], old.Zero[0], old.Learned[0], now.Scale[0], now.Zero[0], now.Learned[0])
		}
		before := now.Scale[0]
		if now.Settle(); now.Scale[0] != before {
			t.Errorf("%s: the threshold gives scale %v, not %v", name, now.Scale[0], before)
		}
	}
}
