package quant_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/quant"
)

func TestFormatTable(t *testing.T) {
	rows := []struct {
		f        quant.Format
		name     string
		bits     int
		integer  bool
		rounds16 bool
	}{
		{quant.FP32, "fp32", 32, false, false},
		{quant.FP16, "fp16", 16, false, true},
		{quant.BF16, "bf16", 16, false, true},
		{quant.Int2, "int2", 2, true, false},
		{quant.Int3, "int3", 3, true, false},
		{quant.Int4, "int4", 4, true, false},
		{quant.Int5, "int5", 5, true, false},
		{quant.Int6, "int6", 6, true, false},
		{quant.Int7, "int7", 7, true, false},
		{quant.Int8, "int8", 8, true, false},
		{quant.Int16, "int16", 16, true, false},
		{quant.Binary, "binary", 1, true, false},
	}
	for _, r := range rows {
		if !r.f.Valid() || r.f.String() != r.name || r.f.Bits() != r.bits || r.f.IsInteger() != r.integer || r.f.Rounds16() != r.rounds16 {
			t.Errorf("%v: valid %v, %d bits, integer %v, 16-bit float %v; want %+v", r.f, r.f.Valid(), r.f.Bits(), r.f.IsInteger(), r.f.Rounds16(), r)
		}
		if got, err := quant.ParseFormat(r.name); got != r.f || err != nil {
			t.Errorf("ParseFormat(%q) = %v, %v", r.name, got, err)
		}
	}
	if got := quant.Formats(); len(got) != len(rows) || got[0] != "fp32" || got[len(got)-1] != "binary" {
		t.Errorf("Formats() = %v, want the %d names of the table in order", got, len(rows))
	}
}

func TestFormatInvalid(t *testing.T) {
	for _, f := range []quant.Format{0, quant.Binary + 1, 255} {
		if f.Valid() || f.Bits() != 0 || f.IsInteger() || f.Rounds16() || !strings.HasPrefix(f.String(), "Format(") {
			t.Errorf("%v counts as a format", f)
		}
	}
	for _, name := range []string{"", "INT8", "int1", "int9", "uint8", "float", "fp8e4m3"} {
		_, err := quant.ParseFormat(name)
		want := `unknown number format "` + name + `" (allowed: fp32, fp16, bf16, int2, int3, int4, int5, int6, int7, int8, int16, binary)`
		if err == nil || err.Error() != want {
			t.Errorf("ParseFormat(%q): %v, want %s", name, err, want)
		}
	}
}

func TestParsePrecision(t *testing.T) {
	good := []struct {
		name string
		want quant.Precision
		back string
	}{
		{"fp32", quant.Full, "fp32"},
		{"fp16", quant.Precision{Weight: quant.FP16, Act: quant.FP16}, "fp16"},
		{"bf16", quant.Precision{Weight: quant.BF16, Act: quant.BF16}, "bf16"},
		{"int8", quant.Precision{Weight: quant.Int8, Act: quant.Int8}, "int8"},
		{"int7", quant.Precision{Weight: quant.Int7, Act: quant.Int7}, "w7a7"},
		{"int6", quant.Precision{Weight: quant.Int6, Act: quant.Int6}, "w6a6"},
		{"int5", quant.Precision{Weight: quant.Int5, Act: quant.Int5}, "w5a5"},
		{"int4", quant.Precision{Weight: quant.Int4, Act: quant.Int4}, "w4a4"},
		{"int3", quant.Precision{Weight: quant.Int3, Act: quant.Int3}, "w3a3"},
		{"int2", quant.Precision{Weight: quant.Int2, Act: quant.Int2}, "w2a2"},
		{"w8a8", quant.Precision{Weight: quant.Int8, Act: quant.Int8}, "int8"},
		{"w4a4", quant.Precision{Weight: quant.Int4, Act: quant.Int4}, "w4a4"},
		{"w4a8", quant.Precision{Weight: quant.Int4, Act: quant.Int8}, "w4a8"},
		{"w2a4", quant.Precision{Weight: quant.Int2, Act: quant.Int4}, "w2a4"},
		{"w8a2", quant.Precision{Weight: quant.Int8, Act: quant.Int2}, "w8a2"},
		{"  W4A8\n", quant.Precision{Weight: quant.Int4, Act: quant.Int8}, "w4a8"},
		{"ternary", quant.Precision{Weight: quant.Int2, Act: quant.Int2, Ternary: true}, "ternary"},
		{"binary", quant.Precision{Weight: quant.Binary, Act: quant.Binary}, "w1a1"},
		{"w1a8", quant.Precision{Weight: quant.Binary, Act: quant.Int8}, "w1a8"},
		{"w2a1", quant.Precision{Weight: quant.Int2, Act: quant.Binary}, "w2a1"},
		{"int16", quant.Precision{Weight: quant.Int16, Act: quant.Int16}, "int16"},
		{"w8a16", quant.Precision{Weight: quant.Int8, Act: quant.FP16}, "w8a16"},
		{"w4a16", quant.Precision{Weight: quant.Int4, Act: quant.FP16}, "w4a16"},
		{"W2A16", quant.Precision{Weight: quant.Int2, Act: quant.FP16}, "w2a16"},
		{"INT8", quant.Precision{Weight: quant.Int8, Act: quant.Int8}, "int8"},
	}
	for _, g := range good {
		p, err := quant.ParsePrecision(g.name)
		if err != nil || p != g.want || p.String() != g.back {
			t.Errorf("ParsePrecision(%q) = %v, %v; want %v printed as %q", g.name, p, err, g.want, g.back)
			continue
		}
		if again, err := quant.ParsePrecision(p.String()); again != p || err != nil {
			t.Errorf("%q prints as %q, which reads back as %v, %v", g.name, p, again, err)
		}
		if p.IsInteger() == (p.Act == quant.FP32 || p.Act.Rounds16()) {
			t.Errorf("%q: IsInteger() = %v", g.name, p.IsInteger())
		}
	}
	const unknown = " (allowed: fp32, fp16, bf16, int16, int8 to int2, ternary, binary, or wXaY with X and Y from 1 to 8, for example w4a8, or wXa16)"
	bad := map[string]string{
		"fp8e4m3": `precision "fp8e4m3" is not supported by this version: use fp16 or int8`,
		"fp8e5m2": `precision "fp8e5m2" is not supported by this version: use fp16 or int8`,
		"mxfp8":   `precision "mxfp8" is not supported by this version: use int8`,
		"mxfp4":   `precision "mxfp4" is not supported by this version: use w4a8`,
		"mixed":   `precision "mixed" is not supported by this version: use quant.rules in the config with a base precision`,
		"Mixed":   `precision "Mixed" is not supported by this version: use quant.rules in the config with a base precision`,
	}
	for _, name := range []string{"", "w", "a8", "wa", "w8", "w8a", "w0a8", "w9a8", "w8a0", "w8a9", "w16a8", "w16a16", "w9a16", "w-4a8", "w+8a8", "w08a8", "w8a8a8", "int1", "int32", "fp8", "float32"} {
		bad[name] = `unknown precision "` + name + `"` + unknown
	}
	for name, want := range bad {
		if p, err := quant.ParsePrecision(name); err == nil || err.Error() != want {
			t.Errorf("ParsePrecision(%q) = %v, %v\nwant %s", name, p, err, want)
		}
	}
	if got := (quant.Precision{Weight: quant.Int8, Act: quant.BF16}).String(); got != "int8/bf16" {
		t.Errorf("mixed precision prints as %q", got)
	}
}

func TestEnumNames(t *testing.T) {
	for want, v := range map[string]quant.Scheme{"symmetric": quant.Symmetric, "affine": quant.Affine, "pow2": quant.PowerOfTwo} {
		if got, err := quant.ParseScheme(want); got != v || err != nil || v.String() != want {
			t.Errorf("scheme %q: %v, %v", want, got, err)
		}
	}
	for want, v := range map[string]quant.Granularity{"tensor": quant.PerTensor, "channel": quant.PerChannel} {
		if got, err := quant.ParseGranularity(want); got != v || err != nil || v.String() != want {
			t.Errorf("granularity %q: %v, %v", want, got, err)
		}
	}
	for want, v := range map[string]quant.Range{"minmax": quant.MinMax, "ema": quant.EMA, "envelope": quant.Envelope, "lsq": quant.LSQ, "percentile": quant.Percentile, "mse": quant.MSE} {
		if got, err := quant.ParseRange(want); got != v || err != nil || v.String() != want {
			t.Errorf("range %q: %v, %v", want, got, err)
		}
	}
	if got, err := quant.ParseRounding("half-even"); got != quant.HalfEven || err != nil {
		t.Errorf("rounding: %v, %v", got, err)
	}
	if got, err := quant.ParseTarget("onnx"); got != quant.ONNX || err != nil || got.String() != "onnx" {
		t.Errorf("target: %v, %v", got, err)
	}
	refused := map[string]func() error{
		`unknown scheme "asym" (allowed: symmetric, affine, pow2)`:                                                                  func() error { _, err := quant.ParseScheme("asym"); return err },
		`unknown scheme "" (allowed: symmetric, affine, pow2)`:                                                                      func() error { _, err := quant.ParseScheme(""); return err },
		`unknown granularity "row" (allowed: tensor, channel, group)`:                                                               func() error { _, err := quant.ParseGranularity("row"); return err },
		`unknown range method "kl" (allowed: minmax, ema, envelope, lsq, percentile, mse, mean, constant, lsq+, pact, tqt, dorefa)`: func() error { _, err := quant.ParseRange("kl"); return err },
		`unknown rounding "nearest" (allowed: half-even, stochastic, floor, ceil, to-zero, half-up)`:                                func() error { _, err := quant.ParseRounding("nearest"); return err },
		`unknown target "tflite" (allowed: onnx)`:                                                                                   func() error { _, err := quant.ParseTarget("tflite"); return err },
	}
	for want, parse := range refused {
		if err := parse(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if got := quant.Scheme(9).String() + quant.Target(9).String(); got != "Scheme(9)Target(9)" {
		t.Errorf("unknown values print as %q", got)
	}
}

// TestSpecAsText: a Spec survives JSON, with the fields that a float format leaves unset.
func TestSpecAsText(t *testing.T) {
	specs := append(integerSpecs(), quant.Spec{}, quant.Spec{Format: quant.FP16}, quant.WeightSpec(quant.BF16))
	for _, s := range specs {
		for _, r := range []quant.Range{0, quant.MinMax, quant.EMA, quant.Envelope, quant.LSQ, quant.Percentile, quant.MSE, quant.LSQPlus, quant.PACT, quant.TQT} {
			s.Range = r
			text, err := json.Marshal(s)
			if s.Format == 0 {
				if err == nil {
					t.Errorf("a spec without a format is written as %s", text)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			var back quant.Spec
			if err := json.Unmarshal(text, &back); err != nil || back != s {
				t.Errorf("%s reads back as %+v, %v", text, back, err)
			}
		}
	}
	text, err := json.Marshal(quant.WeightSpec(quant.Int4))
	if want := `{"Format":"int4","Scheme":"symmetric","Per":"channel","Range":"minmax","Rounding":"half-even","Signed":true,"Narrow":true}`; string(text) != want || err != nil {
		t.Errorf("%s, %v\nwant %s", text, err, want)
	}
	for _, v := range []any{quant.Scheme(9), quant.Granularity(9), quant.Range(99), quant.Rounding(9), quant.Format(99)} {
		if text, err := json.Marshal(v); err == nil {
			t.Errorf("%v is written as %s", v, text)
		}
	}
	for field, value := range map[string]string{"Format": "int9", "Scheme": "Scheme(0)", "Per": "row", "Range": "kl", "Rounding": "up"} {
		if err := json.Unmarshal([]byte(`{"`+field+`":"`+value+`"}`), &quant.Spec{}); err == nil || !strings.Contains(err.Error(), `"`+value+`" (allowed: `) {
			t.Errorf("%s %q: %v", field, value, err)
		}
	}
}

func TestSpecValidate(t *testing.T) {
	edit := func(s quant.Spec, f func(*quant.Spec)) quant.Spec { f(&s); return s }
	weight, act := quant.WeightSpec(quant.Int4), quant.ActSpec(quant.Int8)
	rows := []struct {
		name string
		spec quant.Spec
		want string // "" = good
	}{
		{"weight default", weight, ""},
		{"activation default", act, ""},
		{"float needs nothing else", quant.Spec{Format: quant.FP16}, ""},
		{"symmetric unsigned", edit(act, func(s *quant.Spec) { s.Scheme = quant.Symmetric }), ""},
		{"signed full range", edit(weight, func(s *quant.Spec) { s.Narrow = false }), ""},
		{"signed affine per tensor", edit(act, func(s *quant.Spec) { s.Signed = true }), ""},
		{"zero value", quant.Spec{}, "format is not set"},
		{"unknown format", quant.Spec{Format: 99}, "format is not set"},
		{"no scheme", edit(weight, func(s *quant.Spec) { s.Scheme = 0 }), "scheme is not set"},
		{"unknown scheme", edit(weight, func(s *quant.Spec) { s.Scheme = 4 }), "scheme is not set"},
		{"no granularity", edit(weight, func(s *quant.Spec) { s.Per = 0 }), "granularity is not set"},
		{"no range", edit(weight, func(s *quant.Spec) { s.Range = 0 }), "range method is not set"},
		{"no rounding", edit(weight, func(s *quant.Spec) { s.Rounding = 0 }), "rounding is not set"},
		{"narrow affine", edit(act, func(s *quant.Spec) { s.Narrow = true }), "narrow needs a signed grid or scheme symmetric: an affine zero point is not in the middle"},
		{"affine per channel", edit(act, func(s *quant.Spec) { s.Per = quant.PerChannel }), "affine per channel is not supported: per-channel tensors are weights, and weights need zero point 0"},
		{"group", edit(weight, func(s *quant.Spec) { s.Per, s.Group = quant.PerGroup, 64 }), ""},
		{"group of 48", edit(weight, func(s *quant.Spec) { s.Per, s.Group = quant.PerGroup, 48 }), "granularity group with a group of 48: granularity group, and only it, has a group of [32 64 128]"},
		{"group without extent", edit(weight, func(s *quant.Spec) { s.Per = quant.PerGroup }), "granularity group with a group of 0: granularity group, and only it, has a group of [32 64 128]"},
		{"extent without group", edit(weight, func(s *quant.Spec) { s.Group = 32 }), "granularity channel with a group of 32: granularity group, and only it, has a group of [32 64 128]"},
		{"affine per group", edit(act, func(s *quant.Spec) { s.Per, s.Group = quant.PerGroup, 32 }), "affine per group is not supported: per-group tensors are weights, and weights need zero point 0"},
		{"lsq+ symmetric", edit(act, func(s *quant.Spec) { s.Scheme, s.Range = quant.Symmetric, quant.LSQPlus }), "range method lsq+ needs scheme affine, not symmetric"},
		{"lsq+", edit(act, func(s *quant.Spec) { s.Range = quant.LSQPlus }), ""},
		{"tqt without pow2", edit(weight, func(s *quant.Spec) { s.Range = quant.TQT }), "range method tqt needs scheme pow2, not symmetric"},
		{"tqt", edit(weight, func(s *quant.Spec) { s.Scheme, s.Range = quant.PowerOfTwo, quant.TQT }), ""},
		{"learned power of two", edit(weight, func(s *quant.Spec) { s.Scheme, s.Range = quant.PowerOfTwo, quant.LSQ }), "lsq learns scales that are not powers of two: use scheme symmetric, or range method tqt"},
	}
	for _, r := range rows {
		err := r.spec.Validate()
		if got := message(err); got != r.want {
			t.Errorf("%s: %q, want %q", r.name, got, r.want)
		}
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestGrid(t *testing.T) {
	for _, f := range integerFormats() {
		n := f.Bits()
		half := int32(math.Pow(2, float64(n-1)))
		for _, r := range []struct {
			signed, narrow bool
			lo, hi         int32
		}{
			{false, false, 0, 2*half - 1},
			{true, false, -half, half - 1},
			{true, true, 1 - half, half - 1},
		} {
			s := quant.Spec{Format: f, Signed: r.signed, Narrow: r.narrow}
			if lo, hi := s.Grid(); lo != r.lo || hi != r.hi {
				t.Errorf("%s signed %v narrow %v: [%d, %d], want [%d, %d]", f, r.signed, r.narrow, lo, hi, r.lo, r.hi)
			}
		}
	}
	if lo, hi := quant.WeightSpec(quant.Int2).Grid(); lo != -1 || hi != 1 {
		t.Errorf("int2 weights are [%d, %d], want ternary", lo, hi)
	}
	for _, f := range []quant.Format{quant.FP32, quant.FP16, quant.BF16, 0} {
		if lo, hi := (quant.Spec{Format: f, Signed: true}).Grid(); lo != 0 || hi != 0 {
			t.Errorf("%s has a grid [%d, %d]", f, lo, hi)
		}
	}
}

func TestSpecString(t *testing.T) {
	for want, s := range map[string]quant.Spec{
		"int8 symmetric/channel/minmax": quant.WeightSpec(quant.Int8),
		"int4 affine/tensor/envelope":   quant.ActSpec(quant.Int4),
		"fp16":                          quant.WeightSpec(quant.FP16),
	} {
		if got := s.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func integerFormats() []quant.Format {
	var out []quant.Format
	for _, name := range quant.Formats() {
		if f, err := quant.ParseFormat(name); err == nil && f.IsInteger() && f != quant.Binary {
			out = append(out, f)
		}
	}
	return out
}

// integerSpecs lists every valid combination of integer format, scheme, granularity and grid.
func integerSpecs() []quant.Spec {
	var out []quant.Spec
	for _, f := range integerFormats() {
		for _, scheme := range []quant.Scheme{quant.Symmetric, quant.Affine, quant.PowerOfTwo} {
			for _, per := range []quant.Granularity{quant.PerTensor, quant.PerChannel} {
				for grid := range 4 { // unsigned, signed, signed narrow, unsigned narrow
					s := quant.Spec{Format: f, Scheme: scheme, Per: per, Range: quant.MinMax, Rounding: quant.HalfEven, Signed: grid > 0 && grid != 3, Narrow: grid > 1}
					if s.Validate() == nil {
						out = append(out, s)
					}
				}
			}
		}
	}
	return out
}
