package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/export/safetensors"
)

// narrow runs the program in the current folder.
func narrow(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, &out, &err)
	return out.String(), err.String(), code
}

// good runs the program, which must succeed, and returns its results.
func good(t *testing.T, args ...string) string {
	t.Helper()
	out, err, code := narrow(t, args...)
	if code != exitGood {
		t.Fatalf("narrow %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, err)
	}
	return out
}

// goodJSON is good for --json: stdout must hold one document that fits v.
func goodJSON(t *testing.T, v any, args ...string) {
	t.Helper()
	out := good(t, append(args, "--json")...)
	dec := json.NewDecoder(strings.NewReader(out))
	if err := dec.Decode(v); err != nil {
		t.Fatalf("narrow %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	if dec.More() {
		t.Errorf("narrow %s: more than one document", strings.Join(args, " "))
	}
}

func TestWrongUsage(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("bad.yaml", []byte("version: 1\ndataset: {name: digts}\nmodel:\n  - dense: {units: ten}\ntrain: {epochs: 1}\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("folder", 0o777); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"", "narrow: a command is needed"},
		{"exlpain digits", `unknown command "exlpain"; did you mean "explain"?`},
		{"frobnicate", `unknown command "frobnicate" (allowed: `},
		{"search digits", `the command "search" is not supported by this version`},
		{"explain", "narrow explain needs a CONFIG; narrow help explain shows how"},
		{"explain a b", `narrow explain takes a CONFIG and nothing else; "b" is too much`},
		{"explain digits --precison int8", `narrow explain has no flag --precison; did you mean "--precision"?`},
		{"explain digits --precision int9", `--precision: unknown precision "int9" (allowed: `},
		{"explain digits --precision mxfp4", `--precision: precision "mxfp4" is not supported by this version: use w4a8`},
		{"explain digits --dot --json", "--dot and --json contradict each other"},
		{"explain digts", `no preset is called "digts" (allowed: cifar-resnet8, digits-cnn, digits-mlp, fashion-cnn, fashion-mbnet, fashion-mlp, mnist-mlp, mnist-sfc, mnist-tfc); did you mean "digits-mlp"?`},
		{"explain nowhere.yaml", `there is no config file "nowhere.yaml"; presets are named`},
		{"explain bad.yaml", "bad.yaml:2: dataset.name: unknown value \"digts\" (allowed: digits, mnist, fashion-mnist, cifar10); did you mean \"digits\"?\n    2 | dataset: {name: digts}\n      |                 ^^^^^\nbad.yaml:4: model[0].dense.units: is the text \"ten\""},
		{"explain bad.yaml", "narrow: 2 problems in the config"},
		{"explain digits --set train.lr=x", `--set train.lr=x: train.lr: is the text "x"`},
		{"explain digits --set model[3].dense.units=7", `model[3].dense: the last layer gives shape [7], data set "digits" has 10 classes; end with - dense: {units: 10}`},
		{"explain digits -v -q", "--verbose and --quiet contradict each other"},
		{"train digits --workers -1", "--workers is -1"},
		{"train digits --workers many", "invalid argument \"many\" for \"--workers\" flag"},
		{"compare digits --precisions fp32,int9", `--precisions: unknown precision "int9"`},
		{"compare digits --methods pqt", `--methods: unknown method "pqt" (allowed: ptq, qat)`},
		{"compare digits --seeds 0", "--seeds is 0; it must be at least 1"},
		{"quantize somewhere", "narrow quantize needs --precision with less than 32 bits"},
		{"quantize somewhere -p fp32", "narrow quantize needs --precision with less than 32 bits"},
		{"quantize somewhere -p int8 -m best", "--method: "},
		{"quantize somewhere -p int8 -o folder", "folder exists already; choose another --out"},
		{"eval x --engine cuda", `--engine "cuda" is unknown (allowed: integer, graph)`},
		{"eval digits", `"digits" is a config; train it first (narrow train digits) and give the run folder`},
		{"verify x --rows none", `--rows is "none" (allowed: a number from 1, or all)`},
		{"export x", "narrow export needs --out FILE"},
		{"export x --out y --format onx", `--format "onx" is unknown; did you mean "onnx"?`},
		{"export x --out y --format tflite", "--format tflite is not supported by this version"},
		{"export x --out y --preset arm", "--preset: "},
		{"export x --out y --format narrow --pack-int4", "--preset and --pack-int4 belong to --format onnx"},
		{"predict x", "narrow predict needs a RUN or a FILE, and one INPUT or more"},
		{"data", "narrow data needs list, get NAME or path NAME"},
		{"data gte digits", `narrow data has no command "gte"; did you mean "get"?`},
		{"data path mnst", `no data set is called "mnst" (known: digits, mnist, fashion-mnist, cifar10)`},
	} {
		out, err, code := narrow(t, strings.Fields(c.args)...)
		if code != exitUsage || out != "" || !strings.Contains(err, c.want) {
			t.Errorf("narrow %s: exit code %d, stdout %q, stderr\n%s\nwant %s", c.args, code, out, err, c.want)
		}
	}
}

func TestFailures(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("text.narrow", []byte("not a model"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("empty", 0o777); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"eval nowhere", "nowhere"},
		{"eval text.narrow --dataset digits", "text.narrow: "},
		{"eval empty", "empty is not a run folder"},
		{"predict empty x.png", "empty is not a run folder"},
	} {
		out, err, code := narrow(t, strings.Fields(c.args)...)
		if code != exitFailed || out != "" || !strings.Contains(err, c.want) {
			t.Errorf("narrow %s: exit code %d, stdout %q, stderr %q, want %q", c.args, code, out, err, c.want)
		}
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"--help"}, {"help", "train"}, {"train", "--help"}, {"data", "--help"}} {
		if out := good(t, args...); !strings.Contains(out, "Usage:") {
			t.Errorf("%v prints %q", args, out)
		}
	}
}

func TestVersion(t *testing.T) {
	var v versionInfo
	goodJSON(t, &v, "version")
	if v.GoVersion == "" || v.Tier == "" || v.Fallbacks == nil || !strings.HasPrefix(v.TierWhy, v.Tier) {
		t.Errorf("%+v", v)
	}
	if out := good(t, "version"); !strings.Contains(out, v.TierWhy) || !strings.Contains(out, "fallback") {
		t.Errorf("%s", out)
	}
	t.Setenv("NARROW_ISA", "sse9")
	if _, err, code := narrow(t, "version"); code != exitUsage || !strings.Contains(err, `unknown instruction tier "sse9"`) {
		t.Errorf("exit code %d, %s", code, err)
	}
}

func TestData(t *testing.T) {
	var rows []dataInfo
	goodJSON(t, &rows, "data", "list")
	if len(rows) != len(datasets.Names()) || rows[0].Name != "digits" || !rows[0].Found || rows[0].Train != 3823 {
		t.Errorf("%+v", rows)
	}
	if out := good(t, "data", "list"); !strings.Contains(out, "3,823") || !strings.Contains(out, "Creative Commons Attribution 4.0") {
		t.Errorf("%s", out)
	}
	if out := good(t, "data", "path", "digits"); out != "embedded\n" {
		t.Errorf("path %q", out)
	}
	if out := good(t, "data", "get", "digits"); out != "embedded\n" {
		t.Errorf("get %q", out)
	}
}

func TestExplain(t *testing.T) {
	want := `digits-mlp on digits, precision w2a4: float training, calibration, quantization-aware training
input 8x8x1, 10 classes
qat: after 80 % of the steps: ranges that follow batches stay

tensor      what it is                   format                    shape     MACs  weight bytes
input       model input                  int8 affine/tensor/minmax  8x8x1
flatten1    flatten, scale of its input  int8 affine/tensor/minmax  64
fc1.weight  weight                       int2 symmetric/channel/lsq even  64x128   8,192         2,560
fc1         dense + relu                 int4 affine/tensor/envelope  128
fc2.weight  weight                       int2 symmetric/channel/lsq even  128x64   8,192         2,304
fc2         dense + relu                 int4 affine/tensor/envelope  64
fc3.weight  weight                       int8 symmetric/channel/lsq  64x10      640           680  * rule at --set quant.rules=[{layer: fc3, weight: {format: int8}}]
fc3         dense, logits                fp32                       10
total                                                                       17,024         5,544
* a rule of the config decides, not the precision

weight bytes (codes and scales; biases are not counted)
layer    fp32    fp16   int8*   w2a4*
fc1    32,768  16,384   8,704   2,560
fc2    32,768  16,384   8,448   2,304
fc3     2,560   1,280     680     680
total  68,096  34,048  17,832   5,544
`
	rule := "quant.rules=[{layer: fc3, weight: {format: int8}}]"
	out := good(t, "explain", "digits", "-p", "w2a4", "--set", rule, "--set", "compare.precisions=[fp32, fp16, int8, w2a4]")
	if squeeze(out) != squeeze(want) {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
	var e explanation
	goodJSON(t, &e, "explain", "digits", "-p", "w2a4", "--set", rule)
	if e.Config != "digits-mlp" || e.Precision != "w2a4" || len(e.Tensors) != 8 || e.Tensors[6].Rule != "--set "+rule || e.Tensors[6].WeightBytes != 680 || len(e.Costs) != 5 {
		t.Errorf("%+v", e)
	}
	// Full precision: nothing is quantized, nothing shares a scale.
	if out := good(t, "explain", "digits", "-p", "fp32"); strings.Contains(out, "scale of its input") || !strings.Contains(out, "float training only") {
		t.Errorf("%s", out)
	}
	if out := good(t, "explain", "digits", "-p", "fp16", "--set", rule); !strings.Contains(out, "the rules of the config are about integers: they do not apply at fp16") || strings.Contains(out, "fp16*") {
		t.Errorf("%s", out)
	}
	for precision, want := range map[string][]string{
		"int8": {"weight, gradients in int16", "weight, gradients in float32 (grouped convolution)"}, "fp16": {}} {
		out := good(t, "explain", "fashion-mbnet", "-p", precision, "--set", "qat.backward=int16")
		if strings.Contains(out, "gradients in") != (len(want) > 0) {
			t.Errorf("%s", out)
		}
		for _, text := range want {
			if !strings.Contains(out, text) {
				t.Errorf("no %q in\n%s", text, out)
			}
		}
	}
	dot := good(t, "explain", "digits", "--dot", "-p", "int8", "--set", "train.epochs=1")
	if !strings.HasPrefix(strings.TrimSpace(dot), "digraph") {
		t.Errorf("dot: %.80s", dot)
	}
}

// squeeze makes columns comparable whatever their widths.
func squeeze(s string) string {
	var lines []string
	for _, l := range strings.Split(s, "\n") {
		lines = append(lines, strings.Join(strings.Fields(l), " "))
	}
	return strings.Join(lines, "\n")
}

// TestEndToEnd is the life of a network: float and quantized training, quantizing, scoring in both engines, the
// certificate, files, predictions.
func TestEndToEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("trains networks")
	}
	t.Chdir(t.TempDir())
	quick := []string{"--set", "train.epochs=2", "--set", "qat.epochs=1", "-q"}

	var qat, float, ptq runResult
	goodJSON(t, &qat, append([]string{"train", "digits", "-p", "w4a8"}, quick...)...)
	if qat.Run != filepath.Join("runs", "digits-mlp-w4a8") || qat.Precision != "w4a8" || qat.Method != "qat" || qat.Examples != 1797 || qat.Accuracy < 80 {
		t.Errorf("train: %+v", qat)
	}
	goodJSON(t, &float, append([]string{"train", "digits", "-p", "fp32", "-o", "float"}, quick...)...)
	if float.Method != "none" || float.Precision != "fp32" || float.Accuracy < 80 {
		t.Errorf("train: %+v", float)
	}
	if _, err, code := narrow(t, append([]string{"train", "digits", "-p", "fp32", "-o", "float"}, quick...)...); code != exitFailed || !strings.Contains(err, "--resume") {
		t.Errorf("a second run in the folder: exit code %d, %s", code, err)
	}
	goodJSON(t, &ptq, "quantize", "float", "-p", "int8", "-m", "mse")
	if ptq.Run != "float-int8" || ptq.Method != "ptq" || ptq.Ranges != "mse" || ptq.Accuracy < float.Accuracy-2 {
		t.Errorf("quantize: %+v against %+v", ptq, float)
	}

	// The graph and the integer engine agree example by example, so they agree in the score.
	for _, dir := range []string{qat.Run, ptq.Run} {
		var integer, graph evalResult
		goodJSON(t, &integer, "eval", dir)
		goodJSON(t, &graph, "eval", dir, "--engine", "graph")
		if integer.Correct != graph.Correct || integer.Examples != 1797 || graph.Examples != 1797 {
			t.Errorf("%s: integer %+v, graph %+v", dir, integer, graph)
		}
		var cert struct {
			Identical bool `json:"identical"`
			Layers    []struct {
				Name            string
				Elements, Equal int64
			}
		}
		goodJSON(t, &cert, "verify", dir, "--rows", "64")
		if !cert.Identical || len(cert.Layers) == 0 || cert.Layers[0].Elements == 0 {
			t.Errorf("%s: %+v", dir, cert)
		}
		if out := good(t, "verify", dir, "--rows", "16"); !strings.HasSuffix(out, "identical\n") || strings.HasSuffix(out, "NOT identical\n") {
			t.Errorf("%s", out)
		}
	}
	var file evalResult
	goodJSON(t, &file, "eval", filepath.Join(qat.Run, "model.narrow"), "--dataset", "digits")
	if file.Correct != qat.Correct {
		t.Errorf("the file scores %d, its run %d", file.Correct, qat.Correct)
	}
	for args, want := range map[string]string{
		"eval " + filepath.Join(qat.Run, "model.narrow"):                                   "add --dataset NAME, or give its run folder",
		"eval " + filepath.Join(qat.Run, "model.narrow") + " --engine graph":               "--engine graph needs a run folder",
		"eval " + qat.Run + " --dataset mnist":                                             "was trained on digits; --dataset is for model files",
		"eval " + qat.Run + " --split validation":                                          `--split "validation" is unknown (allowed: train, val, test)`,
		"verify " + filepath.Join(qat.Run, "model.narrow") + " --dataset digts --rows all": `no data set is called "digts"`,
	} {
		if _, err, code := narrow(t, strings.Fields(args)...); code != exitUsage || !strings.Contains(err, want) {
			t.Errorf("narrow %s: exit code %d, %s\nwant %s", args, code, err, want)
		}
	}
	var val evalResult
	goodJSON(t, &val, "eval", qat.Run, "--split", "val")
	if val.Examples != 382 {
		t.Errorf("validation split of %d examples", val.Examples)
	}

	for _, format := range []string{"onnx", "safetensors", "narrow"} {
		var e exportResult
		goodJSON(t, &e, "export", qat.Run, "--format", format, "--out", "model."+format)
		if info, err := os.Stat("model." + format); err != nil || info.Size() != e.Bytes || len(e.SHA256) != 64 {
			t.Errorf("%s: %+v, %v", format, e, err)
		}
	}
	checkSafetensors(t, "model.safetensors")
	want, err := os.ReadFile(filepath.Join(qat.Run, "model.narrow"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile("model.narrow"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("export --format narrow differs from the run's file: %v", err)
	}

	checkPredict(t, qat)
	checkTampered(t, qat.Run)
}

// checkSafetensors: the exported weights are packed codes with scales beside them.
func checkSafetensors(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tensors, meta, err := safetensors.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]string{}
	for _, s := range tensors {
		types[s.Name] = s.DType
	}
	if types["fc1.weight"] != safetensors.U8 || meta["narrow.packed"] == "" || types["fc1.weight.scale"] != safetensors.F32 || types["fc1.bias"] != safetensors.I32 || meta["precision"] != "w4a8" {
		t.Errorf("%v %v", types, meta)
	}
}

// checkPredict: pictures and rows of test examples get the label that the score counted.
func checkPredict(t *testing.T, r runResult) {
	t.Helper()
	d, err := datasets.Load(t.Context(), "digits", datasets.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const rows = 100
	var text bytes.Buffer
	w := csv.NewWriter(&text)
	for i := range rows {
		var fields []string
		for _, q := range d.Test.Row(i) {
			fields = append(fields, strconv.Itoa(int(q)))
		}
		if err := w.Write(fields); err != nil {
			t.Fatal(err)
		}
	}
	w.Flush()
	if err := os.WriteFile("rows.csv", text.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	picture := image.NewGray(image.Rect(0, 0, 8, 8))
	for i, q := range d.Test.Row(0) {
		picture.SetGray(i%8, i/8, color.Gray{Y: uint8(int(q) * 255 / 16)})
	}
	var buf bytes.Buffer
	if err := png.Encode(&buf, picture); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("first.png", buf.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	var got []prediction
	goodJSON(t, &got, "predict", r.Run, "first.png", "rows.csv")
	if len(got) != rows+1 || got[1].Input != "rows.csv:1" {
		t.Fatalf("%d predictions", len(got))
	}
	if got[0].Label != got[1].Label || len(got[0].Logits) != 10 {
		t.Errorf("picture %+v, row %+v", got[0], got[1])
	}
	right := 0
	for i, p := range got[1:] {
		if p.Confidence < 0 || p.Label != d.Classes[p.Class] {
			t.Errorf("row %d: %+v", i+1, p)
		}
		if p.Class == int(d.Test.Labels[i]) {
			right++
		}
	}
	if right < 75 {
		t.Errorf("%d of %d rows are right; the test accuracy is %.1f %%", right, rows, r.Accuracy)
	}
	if out := good(t, "predict", r.Run, "first.png"); !strings.Contains(out, "first.png") {
		t.Errorf("%s", out)
	}
	if err := os.WriteFile("short.csv", []byte("1,2,3\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err, code := narrow(t, "predict", r.Run, "short.csv"); code != exitFailed || !strings.Contains(err, "short.csv: line 1: ") {
		t.Errorf("exit code %d, %s", code, err)
	}
	if _, err, code := narrow(t, "predict", r.Run, "rows.txt"); code == exitGood || !strings.Contains(err, "rows.txt") {
		t.Errorf("exit code %d, %s", code, err)
	}
}

// checkTampered: a file that is not what was trained fails verify with exit code 1, or is not read at all.
func checkTampered(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "model.narrow")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err, code := narrow(t, "verify", dir, "--rows", "16"); code != exitFailed {
		t.Errorf("a changed model file: exit code %d, %s", code, err)
	}
}

func TestCompare(t *testing.T) {
	if testing.Short() {
		t.Skip("trains networks")
	}
	t.Chdir(t.TempDir())
	var res struct {
		Config, Dataset string
		Rows            []struct {
			Precision, Method string
			Mean              float64
		}
		Verdict []string
	}
	args := []string{"compare", "digits", "--precisions", "int8,w4a8", "--methods", "ptq,qat", "--seeds", "1", "--set", "train.epochs=1", "--set", "qat.epochs=0.5", "-q"}
	goodJSON(t, &res, args...)
	var rows []string
	for _, r := range res.Rows {
		rows = append(rows, r.Precision+" "+r.Method)
	}
	if got := strings.Join(rows, ", "); got != "fp32 none, fp32 fp32+, int8 ptq, int8 qat, w4a8 ptq, w4a8 qat" {
		t.Errorf("rows %s", got)
	}
	if len(res.Verdict) == 0 || res.Config != "digits-mlp" {
		t.Errorf("%+v", res)
	}
	for _, f := range []string{"report.html", "compare.json"} {
		if _, err := os.Stat(filepath.Join("runs", "digits-mlp-compare", f)); err != nil {
			t.Error(err)
		}
	}
	// With --resume nothing is trained again, and the same table comes out as text.
	if out := good(t, append(args, "--resume")...); !strings.Contains(out, "w4a8") {
		t.Errorf("%s", out)
	}
}

// TestInterrupted: a signal ends training with exit code 130, and the same command with --resume ends where an
// undisturbed run does.
func TestInterrupted(t *testing.T) {
	if testing.Short() {
		t.Skip("trains networks")
	}
	t.Chdir(t.TempDir())
	args := []string{"train", "digits", "-p", "int8", "--set", "train.epochs=40", "--set", "qat.epochs=1", "-o"}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(300*time.Millisecond, cancel)
	var out, err bytes.Buffer
	if code := run(ctx, append(args, "a"), &out, &err); code != exitInterrupted || out.Len() != 0 || !strings.Contains(err.String(), "with --resume --out a goes on") {
		t.Fatalf("exit code %d, stdout %q, stderr %s", code, out.String(), err.String())
	}
	good(t, append(args, "a", "--resume", "-q")...)
	good(t, append(args, "b", "-q")...)
	for _, f := range []string{"model.narrow", "model.safetensors", "metrics.jsonl", "config.yaml"} {
		a, errA := os.ReadFile(filepath.Join("a", f))
		b, errB := os.ReadFile(filepath.Join("b", f))
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs between the resumed and the undisturbed run (%v, %v)", f, errA, errB)
		}
	}
}
