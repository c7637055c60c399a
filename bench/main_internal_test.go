package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/narrow-ml/narrow/configs"
)

func TestFlags(t *testing.T) {
	o, err := parseFlags([]string{"--nets", "mlp", "--threads", "1", "--cores", "2,3", "--seconds", "0.5", "--config", "mlp=a.yaml"}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.cores, []int{2, 3}) || o.seconds != 500*time.Millisecond || !slices.Equal(o.configs, []string{"mlp=a.yaml"}) {
		t.Errorf("%+v", o)
	}
	d := driver{options: o}
	if one, two := d.coreList(1), d.coreList(2); one != "3" || two != "2,3" {
		t.Errorf("cores %q and %q, want the last of the list: 3 and 2,3", one, two)
	}
	for _, args := range [][]string{{"--tasks", "sleep"}, {"--threads", "0"}, {"--threads", "x"}, {"--threads", "3", "--cores", "0,1"}, {"--rounds", "0"}, {"--seconds", "NaN"}, {"--nets", ""}, {"more"}, {"--nosuch"}} {
		var out bytes.Buffer
		if code := run(t.Context(), args, &out, &out); code != 2 {
			t.Errorf("%v: exit code %d, want 2: %s", args, code, out.String())
		}
	}
}

// A result that cannot be written is refused before anything is measured.
func TestUnwritableResult(t *testing.T) {
	var out bytes.Buffer
	code := run(t.Context(), []string{"--json", filepath.Join(t.TempDir(), "no", "such", "folder.json")}, &out, &out)
	if code != 1 || !strings.Contains(out.String(), "--json: ") || strings.Contains(out.String(), "preparing") {
		t.Errorf("exit code %d: %s", code, out.String())
	}
}

func TestChooseNets(t *testing.T) {
	got, err := chooseNets([]string{"cnn", "mlp"}, []string{"mlp=my.yaml"})
	if err != nil || len(got) != 2 || got[0].Config != "fashion-cnn" || got[1].Config != "my.yaml" {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range [][2]string{{"vgg", "mlp=a"}, {"mlp", "mlp"}, {"mlp", "vgg=a"}, {"mlp", "mlp="}} {
		if _, err := chooseNets([]string{bad[0]}, []string{bad[1]}); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}

// Every net of the table is defined for PyTorch too.
func TestNetsAreInTheTorchWorker(t *testing.T) {
	for _, n := range nets() {
		if !strings.Contains(torchScript, `"`+n.Name+`": `+n.Name) {
			t.Errorf("torch_worker.py has no net %q", n.Name)
		}
	}
}

func TestTuningIsKeptFromWorkers(t *testing.T) {
	rest, dropped := tuning([]string{"PATH=/bin", "OPENBLAS_CORETYPE=Haswell", "OMP_NUM_THREADS=9", "NARROW_ISA=avx2", "GOMAXPROCS=1"})
	if !slices.Equal(rest, []string{"PATH=/bin", "NARROW_ISA=avx2"}) || !slices.Equal(dropped, []string{"GOMAXPROCS=1", "OMP_NUM_THREADS=9", "OPENBLAS_CORETYPE=Haswell"}) {
		t.Errorf("kept %v, dropped %v", rest, dropped)
	}
}

func TestFindORT(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("NARROW_ORT", dir)
	if got := findORT(filepath.Join(dir, "nothing")); got != "" {
		t.Errorf("%q, although what was asked for does not exist", got)
	}
	file := filepath.Join(dir, "node_modules/onnxruntime-node/bin/napi-v6/linux/x64/libonnxruntime.so.1")
	if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"", dir, file} {
		if got := findORT(flag); got != file {
			t.Errorf("findORT(%q) = %q, want %q", flag, got, file)
		}
	}
}

func TestCPUModel(t *testing.T) {
	const text = "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel\t\t: 3\n"
	if got, want := cpuModel(text), "AMD EPYC, family 26 model 2"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestChannelsFirst(t *testing.T) {
	d := Data{Shape: [3]int{1, 2, 3}, Scale: 0.5, Zero: 10}
	got := d.channelsFirst([]uint8{10, 12, 14, 16, 18, 20})
	if want := []float32{0, 3, 1, 4, 2, 5}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A small net goes through Narrow's workers as the driver uses them.
func TestNarrowWorkers(t *testing.T) {
	config := filepath.Join(t.TempDir(), "tiny.yaml")
	const text = `version: 1
name: tiny
dataset: {name: digits, batch: 8}
model:
  - conv: {name: c1, filters: 4, kernel: 3, norm: batch, act: relu}
  - maxpool: {size: 2}
  - flatten: {}
  - dense: {name: fc, units: 10}
train: {epochs: 1, optimizer: adam, lr: 0.001}
quant:
  weight: {format: int8}
  act: {format: int8}
qat: {epochs: 1, lr: 0.001}
`
	if err := os.WriteFile(config, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	n := net{Name: "tiny", Config: config, Shape: [3]int{8, 8, 1}}
	p, err := prepare(t.Context(), n, t.TempDir(), options{ortPython: "no-such-interpreter"})
	if err != nil {
		t.Fatal(err)
	}
	if p.ownErr == nil || p.ownErr.Install == "" {
		t.Errorf("ONNX Runtime's tool is not there, which must be said with how to install it: %+v", p.ownErr)
	}
	var classesOf [][]int
	for _, task := range []string{taskTrain, taskInfer} {
		for _, precision := range []string{precFloat, precInt8} {
			s := p.Spec
			s.Task, s.Precision, s.Threads, s.Batches, s.Model = task, precision, 2, []int{8, 64}, p.frozen[precision]
			encoded, err := s.encode()
			if err != nil {
				t.Fatal(err)
			}
			if s, err = decodeSpec(encoded); err != nil {
				t.Fatal(err)
			}
			work, ready, err := loadNarrowInfer(s)
			if task == taskTrain {
				work, ready, err = loadNarrowTrain(t.Context(), s)
			}
			if err != nil {
				t.Fatalf("%s %s: %v", task, precision, err)
			}
			sample, err := work.Run(8, 10*time.Millisecond)
			if err != nil {
				t.Fatalf("%s %s: %v", task, precision, err)
			}
			if _, err := parseSample(sample.line()); err != nil || sample.Count%8 != 0 {
				t.Errorf("%s %s: %+v, %v", task, precision, sample, err)
			}
			if task == taskInfer {
				classesOf = append(classesOf, ready.Classes)
			}
		}
	}
	if a := agreement(classesOf[0], classesOf[1]); a == nil || *a < 0.5 {
		t.Errorf("fp32 and int8 agree on %v of the examples: these are not the same net", a)
	}
}

func TestUnknownPresetIsMissing(t *testing.T) {
	_, err := prepare(t.Context(), net{Name: "x", Config: "no-such-preset"}, t.TempDir(), options{})
	var missing *Missing
	if !errors.As(err, &missing) {
		t.Errorf("%v, want a missing net", err)
	}
}

// The nets of the table have the shapes of PyTorch's twins: same inputs, and a preset where there is one.
func TestPresetsFit(t *testing.T) {
	for _, n := range nets() {
		c, err := configs.Open(n.Config)
		var unknown *configs.NotFoundError
		if errors.As(err, &unknown) {
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", n.Name, err)
			continue
		}
		if c.QAT == nil || c.Quant == nil {
			t.Errorf("%s: preset %s has no quant and qat sections; there is nothing to compare with PyTorch's QAT", n.Name, n.Config)
		}
	}
}

func TestDecodeSpecRefuses(t *testing.T) {
	good, err := json.Marshal(Spec{Net: "mlp", Threads: 1, Batches: []int{1}, Data: Data{Shape: [3]int{1, 1, 1}, Classes: 2}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeSpec(string(good)); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "{}", `{"nets":"mlp"}`, strings.Replace(string(good), `"threads":1`, `"threads":0`, 1)} {
		if _, err := decodeSpec(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
