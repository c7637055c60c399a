package study_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/study"
)

const threeVariants = `compare.variants=[{name: ste, set: [quant.weight.range=minmax, quant.act.range=ema], methods: [qat]},
  {name: long, set: [qat.epochs=3], precisions: [w2a4]}, {name: same, set: [qat.epochs=2], precisions: [int8]}]`

func TestVariants(t *testing.T) {
	d, dir := blobs(t), t.TempDir()
	r := compare(t, study.Options{Config: tiny(t, threeVariants, "compare.seeds=1"), Data: d, Dir: dir})
	var got []string
	values := map[string]float64{}
	for _, row := range r.Rows {
		name := strings.TrimSpace(row.Precision + " " + row.Method + " " + row.Variant)
		got = append(got, name)
		values[name] = row.Mean
	}
	want := []string{"fp32 none", "fp32 fp32+", "fp32 fp32+ long",
		"int8 ptq", "int8 qat", "int8 qat ste", "int8 ptq same", "int8 qat same",
		"w2a4 ptq", "w2a4 qat", "w2a4 qat ste", "w2a4 ptq long", "w2a4 qat long"}
	if !slices.Equal(got, want) {
		t.Errorf("rows\n%v, want\n%v", got, want)
	}
	if values["int8 qat"] != values["int8 qat same"] || values["w2a4 ptq"] != values["w2a4 ptq long"] {
		t.Errorf("variants without an own setting give other models: %v", values)
	}
	if r.Rerun != len(want)-3 { // same's two cells and long's calibration are found in the folder
		t.Errorf("%d cells were run, want %d", r.Rerun, len(want)-3)
	}
	alone := compare(t, study.Options{Config: tiny(t, "quant.act.range=ema", "compare.seeds=1"), Data: d, Dir: dir, Resume: true})
	if i := slices.IndexFunc(alone.Rows, func(r study.Row) bool { return r.Precision == "w2a4" && r.Method == study.MethodQAT }); alone.Rows[i].Mean != values["w2a4 qat ste"] {
		t.Errorf("as the config's own, the variant's settings give %v, not %v", alone.Rows[i].Mean, values["w2a4 qat ste"])
	}
	if alone.Rerun != 2 { // what was calibrated for another training; models trained in float or by the variant are found
		t.Errorf("%d cells were run, want the two of ptq", alone.Rerun)
	}
	for _, row := range r.Rows { // long is compared with its own control, which trains as long
		if row.Variant == "long" && row.Method == study.MethodQAT {
			if want := row.Mean - values["fp32 fp32+ long"]; math.Abs(*row.DeltaFP32Plus-want) > 1e-5 {
				t.Errorf("long against fp32+: %v, want %v", *row.DeltaFP32Plus, want)
			}
		}
	}
	text := strings.Join(r.Verdict, "\n")
	for _, s := range []string{"Variant ste at w2a4, against the config's own qat: one seed", "Variant long at fp32, against the config's own fp32+:"} {
		if !strings.Contains(text, s) {
			t.Errorf("the verdict does not say %q:\n%s", s, text)
		}
	}
}

func TestValidationSplit(t *testing.T) {
	d := blobs(t)
	r := compare(t, study.Options{Config: tiny(t, "compare.split=validation", "compare.seeds=1", "compare.methods=[ptq]", "compare.precisions=[int8]"), Data: d})
	if r.Split != "validation" || r.Examples != d.Val.Len() {
		t.Errorf("scored on %d examples of %s", r.Examples, r.Split)
	}
	test := *d
	test.Test = d.Val
	onTest := compare(t, study.Options{Config: tiny(t, "compare.seeds=1", "compare.methods=[ptq]", "compare.precisions=[int8]"), Data: &test})
	if !slices.Equal(r.Rows[1].Values, onTest.Rows[1].Values) {
		t.Errorf("validation split %v, the same examples as a test split %v", r.Rows[1].Values, onTest.Rows[1].Values)
	}
}
