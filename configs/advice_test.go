package configs_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

const advised = `
version: 1
dataset: {name: fashion-mnist}
model:
  - conv: {name: stem, filters: 8, kernel: 3, norm: batch, act: relu}
  - conv: {name: dw, filters: 8, kernel: 3, groups: depthwise, norm: batch, act: relu6}
  - conv: {name: pw, filters: 64, kernel: 5, norm: batch}
  - gap: {name: pool}
  - dense: {name: fc, units: 10}
train: {epochs: 3}
`

const (
	learned = "\nquant: {weight: {format: FORMAT, range: lsq}, act: {format: FORMAT, range: lsq}}\nqat: {}\n"
	ptqOnly = "\nquant: {weight: {format: FORMAT}, act: {format: FORMAT}}\n"
)

// adviceOf is what a config is told at its own precision, one line for each rule: its name and its layers.
func adviceOf(t *testing.T, text string, examples int, set ...string) []string {
	t.Helper()
	c, err := configs.Parse("net.yaml", []byte(text), set...)
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.BuildModel(image(28, 28, 1))
	if err != nil {
		t.Fatal(err)
	}
	q, err := c.QuantConfig(c.Precision())
	if err != nil {
		t.Fatal(err)
	}
	if c.Precision() != quant.Full {
		if m, err = model.Place(m, q); err != nil {
			t.Fatal(err)
		}
	}
	out := []string{}
	for _, a := range c.Advice(m, examples) {
		if a.Problem == "" || a.Instead == "" || !strings.Contains(a.String(), a.Instead) {
			t.Errorf("rule %s says nothing: %q", a.Rule, a)
		}
		out = append(out, strings.TrimSpace(a.Rule+" "+strings.Join(a.Layers, " ")))
	}
	return out
}

func TestAdvice(t *testing.T) {
	in := func(section, format string) string { return advised + strings.ReplaceAll(section, "FORMAT", format) }
	for _, tc := range []struct {
		name     string
		text     string
		set      []string
		examples int
		want     []string
	}{
		{"float", advised, nil, 60000, nil},
		{"16 bits", in(ptqOnly, "fp16"), nil, 60000, nil},
		{"int8 by default", in(ptqOnly, "int8"), nil, 60000, nil},
		{"int4 learned", in(learned, "int4"), nil, 60000, nil},
		{"depthwise, one scale", in(learned, "int8"), []string{"quant.weight.per=tensor"}, 60000, []string{"depthwise-per-tensor dw"}},
		{"2 bits learned", in(learned, "int2"), nil, 60000, []string{"ends-low stem fc"}},
		{"2 bits learned, int8 ends", in(learned, "int2"), []string{"quant.rules=[{layer: stem, weight: {format: int8}}, {layer: fc, weight: {format: int8}}]"}, 60000, nil},
		{"2 bits absmax", in(learned, "int2"), []string{"quant.weight.range=minmax", "quant.weight.levels=narrow", "quant.rules=[{layer: '[sf]*', weight: {format: int8}}]"}, 60000, []string{"two-bit-absmax dw pw"}},
		{"2 bits absmax, even levels", in(learned, "int2"), []string{"quant.weight.range=minmax", "quant.weight.levels=even", "quant.rules=[{layer: '[sf]*', weight: {format: int7}}]"}, 60000, nil},
		{"3 bits, absmax, no training", in(ptqOnly, "int3"), []string{"quant.calibration.method=minmax"}, 60000,
			[]string{"ptq-absmax-low stem dw pw fc", "ends-low stem fc"}},
		{"2 bits, no training", in(ptqOnly, "int2"), nil, 60000, []string{"ptq-two-bit stem dw pw fc", "ends-low stem fc"}},
		{"2 bits, learned rounding", in(ptqOnly, "int2"), []string{"quant.calibration.rounding=adaround"}, 60000, []string{"ends-low stem fc"}},
		{"moving average, short", in(learned, "int8"), []string{"quant.act.range=ema", "qat.epochs=0.5"}, 60000, []string{"ema-short stem dw pw pool"}},
		{"moving average, long", in(learned, "int8"), []string{"quant.act.range=ema"}, 60000, nil},
		{"moving average, limit", in(learned, "int8"), []string{"quant.act.range=ema", "dataset.limit=5000"}, 60000, []string{"ema-short stem dw pw pool"}},
		{"moving average, size unknown", in(learned, "int8"), []string{"quant.act.range=ema"}, 0, nil},
		{"minmax in training", in(learned, "int8"), []string{"quant.act.range=minmax"}, 60000, []string{"minmax-training stem dw pw pool"}},
		{"symmetric behind relu", in(learned, "int8"), []string{"quant.act.scheme=symmetric"}, 60000, []string{"symmetric-relu stem dw"}},
		{"percentile of few", in(ptqOnly, "int8"), []string{"quant.calibration={method: percentile, percentile: 99.99, examples: 200}"}, 60000, []string{"percentile-few pool"}},
		{"few examples", in(ptqOnly, "int8"), []string{"quant.calibration.examples=32"}, 60000, []string{"calibration-few"}},
		{"rate", in(learned, "int8"), []string{"qat.lr=0.002"}, 60000, []string{"rate-above-float"}},
		{"rate of another optimizer", in(learned, "int8"), []string{"qat.lr=0.01", "qat.optimizer=sgd"}, 60000, nil},
		{"linear scale steps", in(learned, "int8"), []string{"qat.scale_step=linear", "qat.scale_lr=0.001"}, 60000, []string{"scale-step-linear"}},
		{"small linear scale steps", in(learned, "int8"), []string{"qat.scale_step=linear"}, 60000, nil},
		{"linear steps of nothing", in(learned, "int8"), []string{"qat.scale_step=linear", "qat.scale_lr=0.001", "quant.weight.range=minmax", "quant.act.range=envelope"}, 60000, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := adviceOf(t, tc.text, tc.examples, tc.set...); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
