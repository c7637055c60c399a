package configs_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/quant"
)

var update = flag.Bool("update", false, "rewrite testdata/*.resolved.yaml")

// small is a whole configuration with nothing but what must be there.
const small = `version: 1
dataset: {name: digits}
model:
  - flatten: {}
  - dense: {name: fc1, units: 16, act: relu}
  - dense: {name: fc2, units: 10}
train: {epochs: 2}
`

func parse(t *testing.T, text string, set ...string) *configs.Config {
	t.Helper()
	c, err := configs.Parse("small.yaml", []byte(text), set...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func marshal(t *testing.T, c *configs.Config) string {
	t.Helper()
	data, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// problems runs Parse, which must fail, and returns the problems one a line.
func problems(t *testing.T, text string, set ...string) string {
	t.Helper()
	_, err := configs.Parse("small.yaml", []byte(text), set...)
	var e *configs.Errors
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want *Errors", err)
	}
	var lines []string
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

func TestPresetsResolved(t *testing.T) {
	names := configs.Presets()
	if got := strings.Join(names, " "); got != "cifar-resnet8 digits-cnn digits-mlp fashion-cnn fashion-mbnet fashion-mlp mnist-mlp mnist-sfc mnist-tfc" {
		t.Fatalf("presets %s", got)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			c, err := configs.Preset(name)
			if err != nil {
				t.Fatal(err)
			}
			if c.Name != name {
				t.Errorf("name %q", c.Name)
			}
			got := marshal(t, c)
			file := filepath.Join("testdata", name+".resolved.yaml")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestRoundTrip: what Marshal writes reads back as the same configuration, at every kind of setting.
func TestRoundTrip(t *testing.T) {
	for _, text := range []string{
		small,
		small + "quant: {}\n",
		small + "quant: {}\nqat: {}\n",
		small + "quant: {weight: {format: fp16}, act: {format: fp16}}\n",
		small + "name: \"2024\"\nseed: 18446744073709551615\nquant: {weight: {range: mse}, act: {range: percentile, scheme: symmetric}, calibration: {percentile: 99.5}}\n",
		small + "quant: {rules: [{layer: fc1, weight: {range: lsq}, act: {format: int4}}, {layer: 'f*', weight: {per: tensor}}]}\nqat: {optimizer: sgd, epochs: 0.25, schedule: step, backward: int16}\n",
		small + "quant: {}\nqat: {delay: 0.1, lower: [{at: 0.1, precision: w6a8}, {at: 0.5, precision: int4}], ema: 0.99, distill: {temperature: 2}, oscillation: {damping: 0.5, freeze_above: 0.02}}\n",
		small + "quant: {}\nqat: {oscillation: {}, distill: {}}\n",
		strings.Replace(small, "{epochs: 2}", "{epochs: 2, optimizer: sgd, nesterov: true, schedule: step, lr: 0.0000001, loss: bce, early_stop: 3}", 1),
		strings.Replace(small, "{epochs: 2}", "{epochs: 2, optimizer: adamw, schedule: cosine, min_lr: 0.00001, warmup_steps: 10}", 1),
		strings.Replace(small, "  - flatten: {}", "  - conv: {filters: 4, kernel: [3, 2], stride: [1, 2], pad: [1, 0, 2, 0], norm: batch, bias: true}\n  - relu: {}\n  - maxpool: {size: [2, 1], pad: same}\n  - flatten: {name: f}", 1),
	} {
		first := marshal(t, parse(t, text))
		again, err := configs.Parse("config.yaml", []byte(first))
		if err != nil {
			t.Errorf("%s\nreads back with\n%v", first, err)
			continue
		}
		if second := marshal(t, again); second != first {
			t.Errorf("first\n%s\nsecond\n%s", first, second)
		}
	}
}

func TestDefaults(t *testing.T) {
	c := parse(t, small+"quant: {}\nqat: {}\n")
	if c.Name != "small" || c.Seed != 1 || c.Dataset.Batch != 64 || c.Dataset.ValFraction != 0.1 {
		t.Errorf("name %q, seed %d, dataset %+v", c.Name, c.Seed, c.Dataset)
	}
	if got := c.Train.Solver; got != (configs.Solver{Optimizer: "adam", LR: 0.001, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Schedule: "constant"}) {
		t.Errorf("train %+v", got)
	}
	if got := c.QAT.Solver; got != (configs.Solver{Optimizer: "adam", LR: 0.0005, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Schedule: "cosine"}) {
		t.Errorf("qat %+v", got)
	}
	if c.QAT.ScaleLR != 0.0005 || c.QAT.ScaleStep != quant.StepLog || c.QAT.ScaleGradient != quant.FactorLSQ || c.QAT.Epochs != 1 || c.QAT.Start != "ptq" || c.QAT.FreezeRangesAfter != 0.8 || c.QAT.FreezeBNAfter != 0.5 {
		t.Errorf("qat %+v", *c.QAT)
	}
	if c := parse(t, small+"quant: {}\nqat: {scale_step: linear}\n"); c.QAT.ScaleLR != 0.00005 {
		t.Errorf("linear steps: scale_lr %v", c.QAT.ScaleLR)
	}
	if strings.Join(c.Compare.Methods, " ") != "ptq qat" || strings.Join(c.Compare.Precisions, " ") != "fp32 int8" || c.Compare.Seeds != 3 {
		t.Errorf("compare %+v", c.Compare)
	}
	if c := parse(t, small); c.Quant != nil || c.QAT != nil || strings.Join(c.Compare.Methods, " ") != "ptq" {
		t.Errorf("quant %v, qat %v, methods %v without those sections", c.Quant, c.QAT, c.Compare.Methods)
	}
}

// TestQATInherits: QAT takes the optimizer's constants from train only while the optimizer is the same.
// Blocks are fused unless the config says otherwise, in the float phases too.
func TestFuse(t *testing.T) {
	for text, want := range map[string]bool{"qat: {}\n": true, "qat: {fuse: true}\n": true, "qat: {fuse: false}\n": false} {
		if c := parse(t, small+"quant: {}\n"+text); c.QAT.Fuse != want {
			t.Errorf("%s: fuse %t", text, c.QAT.Fuse)
		}
	}
}

func TestQATInherits(t *testing.T) {
	text := strings.Replace(small, "{epochs: 2}", "{epochs: 2, optimizer: sgd, momentum: 0.8, weight_decay: 0.0001, lr: 0.1}", 1) + "quant: {}\n"
	same := parse(t, text+"qat: {}\n").QAT.Solver
	if same.Optimizer != "sgd" || same.Momentum != 0.8 || same.WeightDecay != 0.0001 || same.LR != 0.05 {
		t.Errorf("same optimizer: %+v", same)
	}
	other := parse(t, text+"qat: {optimizer: adamw}\n").QAT.Solver
	if other.Momentum != 0 || other.WeightDecay != 0.01 || other.Beta2 != 0.999 || other.LR != 0.05 {
		t.Errorf("other optimizer: %+v", other)
	}
}

func TestLayerNames(t *testing.T) {
	text := strings.Replace(small, "  - flatten: {}", "  - conv: {name: pool1, filters: 2, kernel: 3}\n  - maxpool: {size: 2}\n  - conv: {filters: 2, kernel: 3}\n  - maxpool: {size: 2}\n  - flatten: {}", 1)
	c := parse(t, text)
	var names []string
	for i := range c.Model {
		names = append(names, c.Model[i].Name())
	}
	// pool1 is taken, so the first pool is pool2 and the second pool3; the unnamed conv is the second of its kind.
	if got := strings.Join(names, " "); got != "pool1 pool2 conv2 pool3 flatten1 fc1 fc2" {
		t.Errorf("names %s", got)
	}
	if got := c.Model[2].Origin(); got != "small.yaml:6" {
		t.Errorf("origin %s", got)
	}
}

func TestPadding(t *testing.T) {
	for _, c := range []struct {
		in   string
		want [4]int
	}{
		{"kernel: 3", [4]int{1, 1, 1, 1}},
		{"kernel: 3, pad: same", [4]int{1, 1, 1, 1}},
		{"pad: same, kernel: [5, 2]", [4]int{2, 0, 2, 1}}, // an even window has its odd cell after
		{"kernel: 1", [4]int{}},
		{"kernel: 3, pad: valid", [4]int{}},
		{"kernel: 3, pad: 2", [4]int{2, 2, 2, 2}},
		{"kernel: 3, pad: [0, 1, 2, 3]", [4]int{0, 1, 2, 3}},
	} {
		text := strings.Replace(small, "  - flatten: {}", "  - conv: {filters: 2, "+c.in+"}\n  - flatten: {}", 1)
		if got := parse(t, text).Model[0].Conv.Pad; got != c.want {
			t.Errorf("%s: pad %v, want %v", c.in, got, c.want)
		}
	}
}

func TestAnchorsAndMerges(t *testing.T) {
	text := `version: 1
dataset: {name: digits}
model:
  - flatten: {}
  - dense: &hidden {name: fc1, units: 16, act: relu}
  - dense: {<<: *hidden, name: fc2}
  - dense: {units: 10}
train: &train {epochs: 2, lr: 0.01}
quant: {}
`
	c := parse(t, text)
	if d := c.Model[2].Dense; d.Units != 16 || d.Act != "relu" || d.Name != "fc2" {
		t.Errorf("merged layer %+v", *d)
	}
	if c = parse(t, text, "model.fc2.units=8"); c.Model[1].Dense.Units != 16 || c.Model[2].Dense.Units != 8 {
		t.Error("a --set through a merge changed what was merged")
	}
	alias := strings.Replace(text, "{<<: *hidden, name: fc2}", "*hidden", 1)
	if got := problems(t, alias); got != `small.yaml:5: model[2].dense.name: layer name "fc1" is used twice, first at small.yaml:5` {
		t.Error(got)
	}
	c = parse(t, alias, "model[2].dense.name=fc2", "model[2].dense.units=4")
	if c.Model[1].Dense.Name != "fc1" || c.Model[1].Dense.Units != 16 || c.Model[2].Dense.Units != 4 {
		t.Error("a --set through an alias changed the anchor")
	}
	if got := problems(t, "a: &x [*x]\n"+small); !strings.Contains(got, "a: unknown key") {
		t.Error(got)
	}
}

func TestSet(t *testing.T) {
	c := parse(t, small+"quant: {rules: [{layer: fc1, weight: {format: int4}}]}\n",
		"train.lr=0.01", "model.fc1.units=32", "model[2].dense.name=head", "quant.rules[0].weight.range=lsq",
		"qat.epochs=0.5", "compare={precisions: [fp32, w4a4], seeds: 1}", "train.lr=0.02", "seed=9")
	if c.Train.LR != 0.02 || c.QAT.LR != 0.01 || c.Seed != 9 {
		t.Errorf("lr %v, qat lr %v (half of it), seed %d", c.Train.LR, c.QAT.LR, c.Seed)
	}
	if c.Model[1].Dense.Units != 32 || c.Model[2].Dense.Name != "head" {
		t.Errorf("layers %+v %+v", *c.Model[1].Dense, *c.Model[2].Dense)
	}
	if got := *c.Quant.Rules[0].Weight; got != (configs.TensorQuant{Format: quant.Int4, Range: quant.LSQ}) {
		t.Errorf("rule %+v", got)
	}
	if err := c.Set("dataset.batch=16"); err != nil || c.Dataset.Batch != 16 || c.Train.LR != 0.02 {
		t.Errorf("Set on top: %v, batch %d, lr %v", err, c.Dataset.Batch, c.Train.LR)
	}
	before := marshal(t, c)
	if err := c.Set("dataset.batch=0"); err == nil || marshal(t, c) != before {
		t.Errorf("failed Set: error %v, and the config must be as before", err)
	}
	if err := new(configs.Config).Set("seed=1"); err == nil {
		t.Error("Set on a config without a source must fail")
	}
}

// TestSetFirst: assignments come before the checks, so they can mend a file.
func TestSetFirst(t *testing.T) {
	parse(t, strings.Replace(small, "version: 1\n", "", 1), "version=1")
	parse(t, strings.Replace(small, "train: {epochs: 2}", "train:", 1), "train.epochs=2")
}

func TestSetProblems(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		{"train.lr", `--set train.lr: has no =; write path=value, for example train.lr=0.001`},
		{"=3", `--set =3: the path has an empty key; write keys joined by dots, for example quant.rules[0].weight.range`},
		{"a..b=3", `--set a..b=3: a..b: the path has an empty key; write keys joined by dots, for example quant.rules[0].weight.range`},
		{"model[x]=3", `--set model[x]=3: model[x]: [x] is not a list position; write keys joined by dots, for example quant.rules[0].weight.range`},
		{"train.lr=", `--set train.lr=: train.lr: has no value (allowed: a number above 0, at most 10)`},
		{"train.lr=fast", `--set train.lr=fast: train.lr: is the text "fast" (allowed: a number above 0, at most 10)`},
		{"train.lrr=1", `--set train.lrr=1: train.lrr: unknown key (allowed: epochs, optimizer, lr, momentum, nesterov, weight_decay, beta1, beta2, eps, schedule, warmup_steps, step_every, step_gamma, min_lr, loss, label_smoothing, early_stop, init_range, weight_clip, track_test); did you mean "lr"?`},
		{"train.momentum=0.5", `--set train.momentum=0.5: train.momentum: has no effect here: it belongs to optimizer: sgd; remove it`},
		{"train.lr={a: [}", `--set train.lr={a: [}: train.lr: the value is not valid YAML: did not find expected node content`},
		{"seed=1\n---\n2", `--set seed=1.---.2: seed: the value is not valid YAML: it holds more than one value`},
		{"seed=*a", `--set seed=*a: seed: the value is not valid YAML: unknown anchor 'a' referenced`},
		{"model[9].dense.units=3", `--set model[9].dense.units=3: model[9].dense.units: model has 3 entries, counted from 0`},
		{"model.fc9.units=3", `--set model.fc9.units=3: model.fc9.units: model has no layer named "fc9" in the file`},
		{"model.fc1=3", `--set model.fc1=3: model.fc1: names the layer "fc1" but none of its settings`},
		{"train[0]=3", `--set train[0]=3: train[0]: train is a mapping, not a list`},
		{"seed.x=3", `--set seed.x=3: seed: is a mapping (allowed: a whole number from 0 to 18446744073709551615)`},
		{"train.epochs.x=3", `--set train.epochs.x=3: train.epochs.x: train.epochs is the number 2 and has no settings`},
		{"qat.epochs=1", `--set qat.epochs=1: qat: needs a quant section; add quant: {} for the defaults: int8 weights and activations`},
		{"compare.precisions=[fp32,int9]", `--set compare.precisions=[fp32,int9]: compare.precisions[1]: unknown precision "int9" (allowed: fp32, fp16, bf16, int16, int8 to int2, ternary, binary, or wXaY with X and Y from 1 to 8, for example w4a8, or wXa16)`},
	} {
		if got := problems(t, small, c.set); got != c.want {
			t.Errorf("%s\ngot  %s\nwant %s", c.set, got, c.want)
		}
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("mine.yaml", []byte(small), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("folder.yaml", 0o777); err != nil {
		t.Fatal(err)
	}
	c, err := configs.Open("mine.yaml", "seed=5")
	if err != nil || c.Name != "mine" || c.Seed != 5 {
		t.Errorf("file: %v, %+v", err, c)
	}
	for name, want := range map[string]string{"digits": "digits-mlp", "fashion-cnn": "fashion-cnn"} {
		if c, err := configs.Open(name); err != nil || c.Name != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, want := range map[string]string{
		"fashon-cnn":   `no preset is called "fashon-cnn" (allowed: cifar-resnet8, digits-cnn, digits-mlp, fashion-cnn, fashion-mbnet, fashion-mlp, mnist-mlp, mnist-sfc, mnist-tfc); did you mean "fashion-cnn"?`,
		"digit":        `no preset is called "digit" (allowed: cifar-resnet8, digits-cnn, digits-mlp, fashion-cnn, fashion-mbnet, fashion-mlp, mnist-mlp, mnist-sfc, mnist-tfc); did you mean "digits-mlp"?`,
		"":             `no preset is called "" (allowed: cifar-resnet8, digits-cnn, digits-mlp, fashion-cnn, fashion-mbnet, fashion-mlp, mnist-mlp, mnist-sfc, mnist-tfc)`,
		"missing.yaml": `there is no config file "missing.yaml"; presets are named without folder and extension: cifar-resnet8, digits-cnn, digits-mlp, fashion-cnn, fashion-mbnet, fashion-mlp, mnist-mlp, mnist-sfc, mnist-tfc`,
		"folder.yaml":  `config "folder.yaml" is a folder, a YAML file is needed`,
	} {
		var missing *configs.NotFoundError
		if _, err := configs.Open(name); !errors.As(err, &missing) || err.Error() != want {
			t.Errorf("%q: %v\nwant %s", name, err, want)
		}
	}
	if _, err := configs.Load("none.yaml"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Load: %v", err)
	}
}

func TestTooLong(t *testing.T) {
	long := append([]byte(small), bytes.Repeat([]byte("# comment\n"), 200000)...)
	if got := problems(t, string(long)); !strings.Contains(got, "bytes long (allowed: at most 1048576 bytes)") {
		t.Error(got)
	}
}

func TestExcerpt(t *testing.T) {
	text := strings.Replace(small, "train: {epochs: 2}", "train: {epochs: 2, lr: 0.001, weight_decay: 0.001, warmup_steps: 10, beta1: 0.9, beta2: 0.999, schedule: cosine, min_lr: 0, loss: cross_entrpy}", 1)
	_, err := configs.Parse("small.yaml", []byte(text))
	var e *configs.Errors
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	// A long line is cut to 120 characters around the place.
	got := strings.Split(e.Problems[0].Excerpt(), "\n")
	if len(got) != 2 || len(got[0]) != len("    7 | ")+120 || !strings.HasPrefix(got[0], "    7 | ...") || !strings.HasSuffix(got[0], "cross_entrpy}") {
		t.Fatalf("got\n%s", strings.Join(got, "\n"))
	}
	at := strings.Index(got[0], "cross_entrpy")
	if strings.Index(got[1], "^") != at || strings.Count(got[1], "^") != len("cross_entrpy") {
		t.Errorf("the mark is off:\n%s", strings.Join(got, "\n"))
	}
	// What a terminal would act on is not printed.
	_, err = configs.Parse("small.yaml", []byte(small+"name: \"\\e[2J\x1b\"\n"))
	if err == nil || strings.ContainsRune(err.Error(), '\x1b') {
		t.Errorf("escape in %q", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, glob := range []string{"*.yaml", "testdata/*.yaml"} {
		files, err := filepath.Glob(glob)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data, "train.lr=0.1")
		}
	}
	f.Add([]byte(small), "model.fc1.units={<<: 3}")
	f.Add([]byte("a: &a [*a]\n<<: *a\nmodel: *a\n"), "model[0].a=1")
	f.Fuzz(func(t *testing.T, data []byte, set string) {
		c, err := configs.Parse("fuzz.yaml", data, set)
		var e *configs.Errors
		if err != nil {
			if !errors.As(err, &e) || len(e.Problems) == 0 || err.Error() == "" {
				t.Fatalf("%v is not a list of problems", err)
			}
			return
		}
		text, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := configs.Parse("fuzz.yaml", text)
		if err != nil {
			t.Fatalf("%s\nreads back with %v", text, err)
		}
		if second, err := again.Marshal(); err != nil || !bytes.Equal(text, second) {
			t.Fatalf("first\n%s\nsecond\n%s", text, second)
		}
	})
}
