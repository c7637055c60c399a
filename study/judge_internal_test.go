package study

import (
	"math"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/quant"
)

// accuraciesOf names a row, "precision method", and its accuracy for each of the seeds 1, 2, ...
type accuraciesOf struct {
	name   string
	values []float64
}

// resultOf makes a result of rows. Sizes and speeds follow from the precision by simple rules, so that the sentences about
// them can be checked by head. The intervals in the expectations were worked out with a table of Student's t.
func resultOf(t *testing.T, rows ...accuraciesOf) *Result {
	t.Helper()
	p := &plan{}
	outcomes, speeds := map[cell]*outcome{}, map[arm]speed{}
	for i := range rows[0].values {
		p.seeds = append(p.seeds, uint64(i+1))
	}
	for _, r := range rows {
		name, method, _ := strings.Cut(r.name, " ")
		method, variant, _ := strings.Cut(method, " ")
		precision, err := quant.ParsePrecision(name)
		if err != nil {
			t.Fatal(err)
		}
		a := arm{precision, method, variant}
		p.arms = append(p.arms, a)
		for i, v := range r.values {
			out := &outcome{record: record{
				Correct: int(math.Round(v * 100)), Examples: 10000,
				WeightBytes: 1000 * precision.Weight.Bits(), FileBytes: 1000*precision.Weight.Bits() + 8000, Seconds: 2,
			}}
			if method == MethodPTQ || method == MethodQAT {
				out.Ranges = "mse"
			}
			outcomes[cell{a, p.seeds[i]}] = out
		}
		micros := 10.0
		switch {
		case precision.Act == quant.FP16:
			micros = 20
		case precision != quant.Full:
			micros = 4
		}
		speeds[a] = speed{latencyMicros: micros, throughput: 3e6 / micros}
	}
	res := &Result{
		Config: "net", Dataset: "data", Seeds: p.seeds, Split: "test", Examples: 10000,
		Tier: "avx2", GoVersion: "go1.26", Workers: 2,
	}
	var err error
	if res.Rows, err = p.rows(outcomes, speeds); err != nil {
		t.Fatal(err)
	}
	res.Verdict = res.judge()
	return res
}

// full is a study in which everything is settled: 8 bits are free, 2 bits need QAT.
func full(t *testing.T) *Result {
	return resultOf(t,
		accuraciesOf{"fp32 none", []float64{97.30, 97.42, 97.24}},
		accuraciesOf{"fp32 fp32+", []float64{97.40, 97.38, 97.36}},
		accuraciesOf{"fp16 ptq", []float64{97.30, 97.42, 97.24}},
		accuraciesOf{"int8 ptq", []float64{97.26, 97.44, 97.18}},
		accuraciesOf{"int8 qat", []float64{97.30, 97.40, 97.30}},
		accuraciesOf{"w2a4 ptq", []float64{88.10, 88.30, 88.40}},
		accuraciesOf{"w2a4 qat", []float64{95.50, 95.60, 95.40}},
	)
}

func TestSummarize(t *testing.T) {
	s := summarize([]float64{1, 2, 4})
	// By hand: mean 7/3, variance 7/3, Student's 97.5 % point for 2 degrees of freedom 4.302653 (any table).
	if math.Abs(s.Mean-7.0/3) > 1e-12 || math.Abs(*s.Std-math.Sqrt(7.0/3)) > 1e-12 || math.Abs(*s.Half-4.302653*math.Sqrt(7.0/9)) > 1e-5 {
		t.Errorf("mean %v std %v half %v", s.Mean, *s.Std, *s.Half)
	}
	if one := summarize([]float64{5}); one.Mean != 5 || one.Std != nil || one.Half != nil {
		t.Errorf("one number: %+v", one)
	}
	for df, want := range map[float64]float64{1: 12.7062, 2: 4.3027, 4: 2.7764, 9: 2.2622, 30: 2.0423} {
		if got := studentQuantile(df); math.Abs(got-want) > 5e-5 {
			t.Errorf("t(%v) = %v, tables say %v", df, got, want)
		}
	}
}

func TestJudged(t *testing.T) {
	for _, tc := range []struct {
		d    []float64
		want finding
	}{
		{[]float64{1.2}, unknown},
		{[]float64{1.0, 1.1, 1.2}, better},
		{[]float64{-1.0, -1.1, -1.2}, worse},
		{[]float64{0.02, 0.02, 0.02}, better},
		{[]float64{0, 0, 0}, close},
		{[]float64{0.1, -0.1, 0.05}, close},
		{[]float64{9, 1, 3}, leansBetter},
		{[]float64{-9, -1, -3}, leansWorse},
		{[]float64{9, -1, 3}, open},
		{[]float64{0.6, 0.1, 0.02}, open}, // every seed gains, but not much
	} {
		if got, s := judged(tc.d); got != tc.want {
			t.Errorf("%v: finding %d, want %d (%+v)", tc.d, got, tc.want, s)
		}
	}
}

func TestVerdict(t *testing.T) {
	for _, tc := range []struct {
		name string
		res  *Result
		want []string
		not  []string
	}{
		{"settled", full(t), []string{
			"Memory: fp32 weights take 32.0 kB (file 40.0 kB); fp16 saves 50.0 % (file 40.0 %), int8 saves 75.0 % (file 60.0 %), w2a4 saves 93.8 % (file 75.0 %).",
			"PTQ keeps the accuracy of fp32 within its error bars at fp16 (0.00 points [0.00, 0.00]), int8 (−0.03 points [−0.13, +0.08]).",
			"PTQ hurts at w2a4 (−9.05 points [−9.52, −8.58]).",
			"Training fp32 for the extra epochs of QAT without quantizers (fp32+) changes it by +0.06 points [−0.16, +0.28]: no real difference.",
			"QAT at int8: not worth it. +0.04 points [−0.16, +0.24] against PTQ, −0.05 points [−0.20, +0.11] against fp32+, for 2.0 s more training.",
			"QAT at w2a4: worth it. +7.23 points [+6.72, +7.75] against PTQ, −1.88 points [−2.11, −1.65] against fp32+, for 2.0 s more training.",
			"Overall, QAT pays at w2a4; at int8 PTQ is enough.",
			"fp16 is values rounded to 16 bits and computed in float32: 2.0 times slower than fp32 for one example (20.0 µs against 10.0 µs).",
			"Speed of int8 on this CPU (avx2, 2 workers): 2.5 times as fast as fp32 for one example (4.00 µs against 10.0 µs), 2.5 times as fast as fp32 in batches of 64 (750k against 300k examples/s).",
			"No faster than int8: w2a4. Fewer bits make the file smaller, not this engine faster.",
			"w2a4: 2-bit weights are ternary here, {-1, 0, 1} times a scale.",
		}, nil},
		{"not worth it anywhere", resultOf(t,
			accuraciesOf{"fp32 none", []float64{97, 97.1}}, accuraciesOf{"fp32 fp32+", []float64{97, 97.1}},
			accuraciesOf{"int8 ptq", []float64{97, 97.1}}, accuraciesOf{"int8 qat", []float64{97.01, 97.09}},
			accuraciesOf{"w4a8 ptq", []float64{97, 97.1}}, accuraciesOf{"w4a8 qat", []float64{96.01, 96.1}},
		), []string{
			"QAT at w4a8: it does harm; use PTQ, or another learning rate.",
			"Overall, QAT is not worth it here: use PTQ at the precision whose loss you can accept.",
		}, []string{"pays", "ternary"}},
		{"one seed claims nothing", resultOf(t,
			accuraciesOf{"fp32 none", []float64{97}}, accuraciesOf{"fp32 fp32+", []float64{98}},
			accuraciesOf{"int8 ptq", []float64{96}}, accuraciesOf{"int8 qat", []float64{97}},
		), []string{
			"PTQ against fp32 with one seed, so without error bar: int8 (−1.00 points).",
			"changes it by +1.00 points: one seed, no error bar.",
			"QAT at int8: one seed, so nobody can tell it from chance. +1.00 points against PTQ, −1.00 points against fp32+, for 2.0 s more training.",
			"One seed has no error bar: run at least 3 before relying on a difference.",
		}, []string{"Overall", "worth it", "hurts"}},
		{"likely, not proven", resultOf(t,
			accuraciesOf{"fp32 none", []float64{97, 97, 97}}, accuraciesOf{"fp32 fp32+", []float64{98, 98.1, 98.2}},
			accuraciesOf{"int8 ptq", []float64{97, 97, 97}}, accuraciesOf{"int8 qat", []float64{97, 97, 97}},
			accuraciesOf{"w2a4 ptq", []float64{88, 96, 94}}, accuraciesOf{"w2a4 qat", []float64{97, 97, 97}},
		), []string{
			"Overall, QAT seems to pay at w2a4; at int8 PTQ is enough.",
			"PTQ hurts in every seed, though too few seeds are run to prove it, at w2a4",
			"a real gain, so QAT must be measured against fp32+ and not against fp32.",
			"QAT at w2a4: looks worth it: every seed gains, but too few seeds are run to prove it.",
		}, nil},
		{"ptq alone", resultOf(t,
			accuraciesOf{"fp32 none", []float64{97, 97.1}}, accuraciesOf{"int8 ptq", []float64{96.8, 96.9}},
		), []string{"PTQ hurts at int8 (−0.20 points [−0.20, −0.20])."}, []string{"QAT", "fp32+"}},
		{"a small loss is called small", resultOf(t,
			accuraciesOf{"fp32 none", []float64{97, 97.1}}, accuraciesOf{"int8 ptq", []float64{96.95, 97.05}},
		), []string{"PTQ costs a small but real part of the accuracy at int8 (−0.05 points [−0.05, −0.05])."}, nil},
		{"nothing quantized", resultOf(t, accuraciesOf{"fp32 none", []float64{97, 97.1}}), nil, []string{"Memory", "PTQ", "QAT", "Speed"}},
	} {
		all := strings.Join(tc.res.Verdict, "\n")
		for _, want := range tc.want {
			if !strings.Contains(all, want) {
				t.Errorf("%s: the verdict lacks\n  %s\nit is\n%s", tc.name, want, all)
			}
		}
		for _, not := range tc.not {
			if strings.Contains(all, not) {
				t.Errorf("%s: the verdict must not say %q:\n%s", tc.name, not, all)
			}
		}
	}
	if got := len(full(t).Verdict); got != 11 {
		t.Errorf("the settled verdict has %d sentences, 11 are checked", got)
	}
}

func TestVerdictMarksRules(t *testing.T) {
	res := full(t)
	for i := range res.Rows {
		res.Rows[i].Rules = res.Rows[i].Precision == "w2a4"
	}
	if all := strings.Join(res.judge(), "\n"); !strings.Contains(all, "w2a4: rules of the config give some layers other formats than the name says.") {
		t.Errorf("the rules are not mentioned:\n%s", all)
	}
}

func TestVerdictOnSlowIntegers(t *testing.T) {
	res := full(t)
	for i := range res.Rows {
		if res.Rows[i].Precision != "fp32" {
			res.Rows[i].LatencyMicros, res.Rows[i].Throughput = 10.5, 100e3
		}
	}
	all := strings.Join(res.judge(), "\n")
	want := "as fast as fp32 for one example (10.5 µs against 10.0 µs), 3.0 times slower than fp32 in batches of 64 (100k against 300k examples/s)."
	if !strings.Contains(all, want) {
		t.Errorf("want %q in\n%s", want, all)
	}
}

// Where fp32 gains as much from the extra epochs, QAT's gain over PTQ is theirs and not the quantizers'.
func TestJudgeTellsTrainingLongerFromQAT(t *testing.T) {
	res := resultOf(t,
		accuraciesOf{"fp32 none", []float64{90.60, 90.70, 90.50}},
		accuraciesOf{"fp32 fp32+", []float64{92.00, 92.10, 91.90}},
		accuraciesOf{"int8 ptq", []float64{90.60, 90.70, 90.50}},
		accuraciesOf{"int8 qat", []float64{92.05, 92.15, 91.95}},
		accuraciesOf{"w2a4 ptq", []float64{78.00, 78.20, 77.80}},
		accuraciesOf{"w2a4 qat", []float64{90.80, 90.90, 90.70}},
	)
	got := strings.Join(res.Verdict, "\n")
	for _, want := range []string{
		"QAT at int8: the extra training pays, not the quantizers: fp32 gains +1.40 points from it too.",
		"QAT at w2a4: worth it.",
		"Overall, QAT pays at w2a4; at int8 train fp32 longer, then PTQ should do.",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the verdict lacks %q:\n%s", want, got)
		}
	}
}
