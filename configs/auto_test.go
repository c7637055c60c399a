package configs_test

import (
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// TestAutoRange: what a config that does not name range methods gets, by precision.
func TestAutoRange(t *testing.T) {
	ranges := func(q model.QuantConfig) string { return q.Weight.Range.String() + " " + q.Act.Range.String() }
	for _, tc := range []struct{ sections, precision, want string }{
		{"quant: {}\nqat: {}\n", "int8", "minmax envelope"},
		{"quant: {}\nqat: {}\n", "w4a8", "lsq envelope"},
		{"quant: {}\nqat: {}\n", "w8a4", "minmax lsq"},
		{"quant: {}\nqat: {}\n", "w4a4", "lsq lsq"},
		{"quant: {}\nqat: {}\n", "w2a4", "lsq lsq"},
		{"quant: {}\nqat: {}\n", "binary", "mean constant"},
		{"quant: {}\n", "w2a4", "minmax envelope"}, // nothing is trained: calibration chooses
		{"quant: {weight: {range: auto}, act: {range: auto}}\nqat: {}\n", "w4a4", "lsq lsq"},
		{"quant: {weight: {range: minmax}, act: {range: ema}}\nqat: {}\n", "w4a4", "minmax ema"},
	} {
		c := parse(t, small+tc.sections)
		q, err := c.QuantConfig(precisionOf(t, tc.precision))
		if err != nil {
			t.Fatal(err)
		}
		if got := ranges(q); got != tc.want {
			t.Errorf("%q at %s: ranges %s, want %s", tc.sections, tc.precision, got, tc.want)
		}
	}
}

// TestAutoRangeInRules: under auto a rule with another format gets that format's method; a named method stays.
func TestAutoRangeInRules(t *testing.T) {
	const rules = "rules: [{layer: fc1, weight: {format: int8}}, {layer: fc2, weight: {format: int2}}]"
	for _, tc := range []struct{ quant, precision, first, last string }{
		{"{" + rules + "}", "w4a4", "minmax", "lsq"},
		{"{" + rules + "}", "int8", "minmax", "lsq"},
		{"{weight: {range: lsq}, " + rules + "}", "w4a4", "lsq", "lsq"},
		{"{weight: {range: minmax}, " + rules + "}", "w4a4", "minmax", "minmax"},
	} {
		c := parse(t, small+"quant: "+tc.quant+"\nqat: {}\n")
		q, err := c.QuantConfig(precisionOf(t, tc.precision))
		if err != nil {
			t.Fatal(err)
		}
		if first, last := q.Rules[0].Weight.Range.String(), q.Rules[1].Weight.Range.String(); first != tc.first || last != tc.last {
			t.Errorf("%s at %s: int8 by %s, int2 by %s; want %s and %s", tc.quant, tc.precision, first, last, tc.first, tc.last)
		}
	}
}

// TestAutoLevels: 2-bit weights have even levels unless the config, the precision or a setting that cannot work on them says
// otherwise.
func TestAutoLevels(t *testing.T) {
	for _, tc := range []struct {
		sections, precision string
		even                bool
	}{
		{"quant: {}\nqat: {}\n", "w2a4", true},
		{"quant: {weight: {range: minmax}}\nqat: {}\n", "w2a8", true},
		{"quant: {}\nqat: {}\n", "ternary", false},
		{"quant: {weight: {levels: narrow}}\nqat: {}\n", "w2a4", false},
		{"quant: {weight: {format: ternary}}\nqat: {}\n", "w2a4", false},
		{"quant: {weight: {range: constant, max: 1}}\nqat: {}\n", "w2a4", false},
		{"quant: {calibration: {rounding: adaround}}\nqat: {}\n", "w2a4", false},
		{"quant: {}\nqat: {}\n", "w3a4", false},
		{"quant: {}\nqat: {}\n", "w2a16", false},
		{"quant: {}\n", "w2a4", false},
	} {
		q, err := parse(t, small+tc.sections).QuantConfig(precisionOf(t, tc.precision))
		if err != nil {
			t.Fatal(err)
		}
		if w := q.Weight; w.Even != tc.even || !w.Narrow || w.Validate() != nil {
			t.Errorf("%q at %s: weights %s, narrow %t, %v; want even levels: %t", tc.sections, tc.precision, w, w.Narrow, w.Validate(), tc.even)
		}
	}
	for rule, even := range map[string]bool{"{format: int2}": true, "{format: int2, levels: narrow}": false, "{format: int8}": false, "{range: minmax}": true} {
		q, err := parse(t, small+"quant: {rules: [{layer: fc1, weight: "+rule+"}]}\nqat: {}\n").QuantConfig(precisionOf(t, "w2a4"))
		if err != nil {
			t.Fatal(err)
		}
		if w := q.Rules[0].Weight; w.Even != even || w.Validate() != nil {
			t.Errorf("rule %s: %s, %v", rule, w, w.Validate())
		}
	}
}

func TestAutoRangeIsWritten(t *testing.T) {
	text, err := parse(t, small+"quant: {}\nqat: {}\n").Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "range: auto"); n != 2 {
		t.Errorf("the resolved config says auto %d times:\n%s", n, text)
	}
	if _, err := configs.Parse("again.yaml", text); err != nil {
		t.Error(err)
	}
	_, err = configs.Parse("rule.yaml", []byte(small+"quant: {rules: [{layer: fc1, weight: {range: auto}}]}\n"))
	if err == nil || !strings.Contains(err.Error(), "leave it out") {
		t.Errorf("auto in a rule: %v", err)
	}
}

func precisionOf(t *testing.T, name string) quant.Precision {
	t.Helper()
	p, err := quant.ParsePrecision(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
