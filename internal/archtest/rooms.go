package archtest

// Module is the module's path.
const Module = "github.com/narrow-ml/narrow"

// Room is one package and what it may depend on. Imports point strictly downward: to rooms of a lower level.
type Room struct {
	Path    string   // below the module
	Level   int      // 0 is the ground
	Public  bool     // part of the API for other modules
	Imports []string // rooms that its non-test code may import
	Outside []string // third-party packages that its non-test code may import; x/... is x and all below it
	Lives   string   // what lives there, for docs/architecture.md
}

const (
	gorgonia = "gorgonia.org/gorgonia"
	tensor   = "gorgonia.org/tensor"
)

// Rooms is the table of design. Rooms that only tests import have no place in any Imports.
func Rooms() []Room {
	return []Room{
		{Path: "quant", Level: 0, Public: true, Outside: []string{"github.com/x448/float16"},
			Lives: "number formats, grids, rounding, requantization, FP16 and BF16, observers"},
		{Path: "internal/cpu", Level: 0, Outside: []string{"golang.org/x/sys/cpu"},
			Lives: "instruction tier; `NARROW_ISA` forces a lower one"},
		{Path: "internal/par", Level: 0, Lives: "worker pool with a fixed number of shards"},
		{Path: "internal/elementary", Level: 0, Lives: "exp, log, tanh and their kin, with the same bits on every machine"},
		{Path: "internal/rng", Level: 0, Lives: "counter-based random streams keyed by seed, purpose and counters"},
		{Path: "internal/durable", Level: 0, Lives: "files and folders that appear whole or not at all"},
		{Path: "internal/qtest", Level: 0, Lives: "golden vectors, guard values, gradient checks; imported by tests only"},
		{Path: "internal/archtest", Level: 0, Lives: "this table and the rules"},
		{Path: "internal/asmgen", Level: 0, Lives: "generator of the assembly in `internal/kernel`; a module of its own"},

		{Path: "model", Level: 1, Public: true, Imports: []string{"internal/elementary", "quant"},
			Lives: "the one description of a network, its passes, the file `model.narrow`"},
		{Path: "datasets", Level: 1, Public: true, Imports: []string{"internal/durable", "internal/rng"},
			Lives: "readers, look-up and download with checksums, splits, batches"},
		{Path: "internal/kernel", Level: 1, Imports: []string{"internal/cpu", "internal/elementary", "internal/par"},
			Lives: "loops over slices: products, convolutions, pools, updates; assembly and its pure-Go twin"},
		{Path: "internal/gx", Level: 1, Outside: []string{gorgonia, tensor, "github.com/chewxy/hm"},
			Lives: "every Gorgonia contract that bites, wrapped once"},
		{Path: "export/onnx/onnxpb", Level: 1, Public: true, Outside: []string{"google.golang.org/protobuf/encoding/protowire"},
			Lives: "wire format of ONNX models"},

		{Path: "configs", Level: 2, Public: true, Imports: []string{"datasets", "model", "quant"}, Outside: []string{"go.yaml.in/yaml/v3"},
			Lives: "the YAML schema as Go types, strict loading, embedded presets"},
		{Path: "infer", Level: 2, Public: true, Imports: []string{"internal/cpu", "internal/kernel", "internal/par", "model", "quant"},
			Lives: "compiles a model and runs it; for Go services, never with Gorgonia"},
		{Path: "qat", Level: 2, Public: true, Imports: []string{"internal/gx", "internal/kernel", "internal/par", "internal/rng", "model", "quant"}, Outside: []string{gorgonia, tensor},
			Lives: "fake-quantization in a Gorgonia graph: straight-through estimators, learned scales"},
		{Path: "export/onnx/eval", Level: 2, Public: true, Imports: []string{"export/onnx/onnxpb"},
			Lives: "the independent interpreter of exported files"},

		{Path: "layers", Level: 3, Public: true, Imports: []string{"internal/gx", "internal/kernel", "internal/par", "internal/rng", "model", "qat", "quant"}, Outside: []string{gorgonia, tensor},
			Lives: "model to Gorgonia graph: float and quantized layers as operations"},
		{Path: "qat/ptq", Level: 3, Public: true, Imports: []string{"datasets", "infer", "internal/elementary", "internal/kernel", "internal/par", "internal/rng", "model", "quant"},
			Lives: "calibration and post-training quantization, without Gorgonia"},
		{Path: "export/onnx", Level: 3, Public: true, Imports: []string{"export/onnx/eval", "export/onnx/onnxpb", "model", "quant"},
			Lives: "writer of frozen models as ONNX with QuantizeLinear and DequantizeLinear"},
		{Path: "export/safetensors", Level: 3, Public: true,
			Lives: "reader and writer of safetensors files"},

		{Path: "train", Level: 4, Public: true,
			Imports: []string{"configs", "datasets", "export/safetensors", "infer", "internal/cpu", "internal/durable", "internal/elementary", "internal/kernel", "internal/par", "internal/rng", "layers", "model", "qat", "qat/ptq", "quant"},
			Outside: []string{"github.com/schollz/progressbar/v3", "golang.org/x/term"},
			Lives:   "training loop, optimizers, metrics, run folder, checkpoint and resume"},
		{Path: "export", Level: 4, Public: true,
			Imports: []string{"datasets", "export/onnx", "export/onnx/eval", "export/onnx/onnxpb", "export/safetensors", "infer", "internal/par", "layers", "model", "quant"},
			Lives:   "`Verify`: graph, engine and exported file, compared code by code"},

		{Path: "study", Level: 5, Public: true,
			Imports: []string{"configs", "datasets", "export/onnx", "infer", "internal/cpu", "internal/durable", "internal/par", "internal/rng", "model", "qat/ptq", "quant", "train"},
			Outside: []string{"golang.org/x/term", "gonum.org/v1/gonum/stat/...", "gonum.org/v1/plot/..."},
			Lives:   "FP32, PTQ and QAT compared: statistics, tables, report"},

		{Path: "cmd/narrow", Level: 6,
			Imports: []string{"configs", "datasets", "export", "export/onnx", "export/safetensors", "infer", "internal/cpu", "internal/durable", "internal/par", "layers", "model", "qat/ptq", "quant", "study", "train"},
			Outside: []string{"github.com/spf13/cobra", "github.com/spf13/pflag", "golang.org/x/term"},
			Lives:   "flags, signals, logging, exit codes; no mathematics"},
	}
}
