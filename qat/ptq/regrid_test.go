package ptq_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat/ptq"
	"github.com/narrow-ml/narrow/quant"
)

// From grid to grid an activation's range stays, its ends to half a step, and a learned weight scale is the one that
// calibration by mse would give the same master.
func TestRegrid(t *testing.T) {
	m := teacher(t)
	set := images(m, 64, 5)
	calibrated := func(name string) (*model.Model, model.QuantConfig) {
		p, err := quant.ParsePrecision(name)
		if err != nil {
			t.Fatal(err)
		}
		q := model.DefaultQuant(p)
		q.Weight.Range, q.Act.Range = quant.LSQ, quant.LSQ
		r, err := ptq.Quantize(t.Context(), m, q, set, nil, ptq.Options{Examples: 64, Method: ptq.MSE})
		if err != nil {
			t.Fatal(err)
		}
		return r.Model, q
	}
	wide, _ := calibrated("int8")
	for _, name := range []string{"w8a4", "w4a4", "w2a4"} {
		want, q := calibrated(name)
		got, err := ptq.Regrid(wide, q)
		if err != nil {
			t.Fatal(err)
		}
		if got.Precision.String() != name || got.Stage != model.Quantized {
			t.Errorf("%s: %s at %s", name, got.Stage, got.Precision)
		}
		for _, tensor := range got.QuantNames() {
			old, now := wide.Quant[tensor], got.Quant[tensor]
			if now.Spec != want.Quant[tensor].Spec {
				t.Errorf("%s: %s is %s, want %s", name, tensor, now.Spec, want.Quant[tensor].Spec)
			}
			if now.Spec.Signed {
				if !slices.Equal(now.Scale, want.Quant[tensor].Scale) {
					t.Errorf("%s: scales of %s are %v, calibration gives %v", name, tensor, now.Scale, want.Quant[tensor].Scale)
				}
				continue
			}
			lo, hi := old.Spec.Grid()
			newLo, newHi := now.Spec.Grid()
			s, z := old.At(0)
			r, y := now.At(0)
			for _, d := range []float64{float64(s)*float64(hi-z) - float64(r)*float64(newHi-y), float64(s)*float64(lo-z) - float64(r)*float64(newLo-y)} {
				if math.Abs(d) > float64(r)*0.50001 {
					t.Errorf("%s: an end of %s moved by %v, its step is %v", name, tensor, d, r)
				}
			}
		}
		if got.Quant["pool1"] != got.Quant["c1"] {
			t.Error("a pooling no longer shares its input's quantizer")
		}
		if &got.Params["c1.weight"].Data[0] != &wide.Params["c1.weight"].Data[0] {
			t.Error("the masters were copied")
		}
	}
	if wide.Quant["c1"].Spec.Format != quant.Int8 {
		t.Error("the argument was changed")
	}
}

func TestRegridRefuses(t *testing.T) {
	m := teacher(t)
	q := model.DefaultQuant(quant.Precision{Weight: quant.Int4, Act: quant.Int4})
	if _, err := ptq.Regrid(m, q); err == nil || !strings.Contains(err.Error(), "only a quantized") {
		t.Errorf("a float model: %v", err)
	}
	r, err := ptq.Quantize(t.Context(), m, q, images(m, 16, 5), nil, ptq.Options{Examples: 16, Method: ptq.MinMax})
	if err != nil {
		t.Fatal(err)
	}
	half := model.DefaultQuant(quant.Precision{Weight: quant.FP16, Act: quant.FP16})
	if _, err := ptq.Regrid(r.Model, half); err == nil || !strings.Contains(err.Error(), "no meaning") {
		t.Errorf("onto 16-bit floats: %v", err)
	}
}

// Of a power-of-two range the end stays where it is, and with it a learned threshold.
func TestRegridPowerOfTwo(t *testing.T) {
	m := teacher(t)
	at := func(f quant.Format) model.QuantConfig {
		q := model.DefaultQuant(quant.Precision{Weight: f, Act: f})
		q.Act.Scheme, q.Act.Range = quant.PowerOfTwo, quant.TQT
		return q
	}
	r, err := ptq.Quantize(t.Context(), m, at(quant.Int8), images(m, 32, 5), nil, ptq.Options{Examples: 32, Method: ptq.MinMax})
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range r.Model.Quant {
		q.Start()
	}
	out, err := ptq.Regrid(r.Model, at(quant.Int4))
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, name := range out.QuantNames() {
		old, now := r.Model.Quant[name], out.Quant[name]
		if now.Spec.Range != quant.TQT {
			continue
		}
		checked++
		if now.Scale[0] != 16*old.Scale[0] || (now.Zero[0] == 0) != (old.Zero[0] == 0) || now.Learned[0] != old.Learned[0] {
			t.Errorf("%s: scale %v, zero point %d, threshold %v become %v, %d, %v", name, old.Scale[0], old.Zero[0], old.Learned[0], now.Scale[0], now.Zero[0], now.Learned[0])
		}
		before := now.Scale[0]
		if now.Settle(); now.Scale[0] != before {
			t.Errorf("%s: the threshold gives scale %v, not %v", name, now.Scale[0], before)
		}
	}
	if checked < 3 {
		t.Errorf("%d activations of a power of two", checked)
	}
}
