package configs

import (
	"regexp"
	"slices"
	"strings"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/quant"
)

// The tables below are the schema: each section's keys with what they accept. Limits are there to catch slips of the
// hand (a learning rate of 1000), not to forbid what a machine could do.

var (
	nameForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)
	layerForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,63}$`)
	globForm  = regexp.MustCompile(`^\S{1,100}$`)
)

const (
	nameSays  = "letters, digits, . _ and -, at most 100"
	layerSays = "a letter, then letters, digits, _ and -, at most 64"
)

func (c *Config) fields() []field {
	return []field{
		{key: "version", value: version{&c.Version}, required: true},
		{key: "name", value: text{&c.Name, nameForm, nameSays}},
		{key: "seed", value: seed{&c.Seed}},
		{key: "dataset", value: nested{&c.Dataset, "settings such as {name: digits}"}, required: true},
		{key: "model", value: layers{&c.Model}, required: true},
		{key: "train", value: nested{&c.Train, "settings such as {epochs: 3}"}, required: true},
		{key: "quant", value: optional[Quant, *Quant]{&c.Quant, newQuant}},
		{key: "qat", value: optional[QAT, *QAT]{&c.QAT, newQAT}},
		{key: "compare", value: nested{s: &c.Compare}},
	}
}

func (c *Config) later() map[string]string {
	return map[string]string{
		"search":      "narrow has no bit search yet: compare a few precisions and rules instead",
		"sensitivity": "compare a few rules instead",
		"augment":     "training runs on the images as they are",
	}
}

func (s *Dataset) fields() []field {
	return []field{
		{key: "name", value: datasetName(&s.Name), required: true},
		{key: "batch", value: whole{&s.Batch, 1, 65536}},
		{key: "val_fraction", value: number{p: &s.ValFraction, max: 0.5}},
		{key: "center", value: onlyTrue{&s.Center}},
		{key: "limit", value: whole{&s.Limit, 0, 1 << 30}},
	}
}

// datasetName is a choice among the data sets this version reads.
func datasetName(p *string) choice[string] {
	return oneOf(p, map[string]string{
		"cifar-10": "it is called cifar10 here",
	}, datasets.Names()...)
}

func (s *Dataset) later() map[string]string {
	own := "reading your own data comes later: this version trains on " + strings.Join(datasets.Names(), ", ")
	return map[string]string{"csv": own, "images": own, "text": own, "wav": own, "target": own,
		"augment": "training runs on the images as they are"}
}

// maxUnits bounds filters and units, maxWindow kernels and pools.
const (
	maxUnits  = 65536
	maxWindow = 255
)

func (s *Conv) fields() []field {
	return append([]field{
		{key: "name", value: text{&s.Name, layerForm, layerSays}},
		{key: "from", value: reference{&s.From}},
		{key: "filters", value: whole{&s.Filters, 1, maxUnits}, required: true},
		{key: "kernel", value: extent2{&s.Kernel, maxWindow}, required: true},
		{key: "stride", value: extent2{&s.Stride, maxWindow}},
		{key: "pad", value: padding{&s.Pad, &s.Kernel}}, // after kernel: "same" depends on it
		{key: "groups", value: groupCount{&s.Groups}},
		{key: "dropout", value: notZero{number{p: &s.Dropout, max: 1, openMax: true}}},
	}, afterFields(convNorms(), &s.Bias, &s.Norm, &s.Eps, &s.Momentum, &s.Act)...)
}

func (s *Dense) fields() []field {
	return append([]field{
		{key: "name", value: text{&s.Name, layerForm, layerSays}},
		{key: "from", value: reference{&s.From}},
		{key: "units", value: whole{&s.Units, 1, maxUnits}, required: true},
		{key: "dropout", value: notZero{number{p: &s.Dropout, max: 1, openMax: true}}},
	}, afterFields([]string{"batch", wholeNorm, "none"}, &s.Bias, &s.Norm, &s.Eps, &s.Momentum, &s.Act)...)
}

// afterFields is what may follow the product of a conv or dense layer.
func afterFields(norms []string, bias *bool, norm *string, eps, momentum *float64, act *string) []field {
	const normNext = "this version has batch norm only"
	only := ""
	if *norm == "none" {
		only = "norm: batch"
	}
	return []field{
		{key: "bias", value: boolean{bias}},
		{key: "norm", value: oneOf(norm, map[string]string{
			"layer": normNext, "group": normNext, "rms": normNext, "instance": normNext, "batchnorm": "write norm: batch", wholeNorm: "it is for dense layers; use batch"}, norms...)},
		{key: "eps", value: number{p: eps, max: 1, openMin: true}, only: only},
		{key: "momentum", value: number{p: momentum, max: 1, openMin: true}, only: only},
		{key: "act", value: activation(act)},
	}
}

// wholeNorm is batch norm with one mean, variance, gamma and beta for the whole tensor.
const wholeNorm = "tensor"

func convNorms() []string { return []string{"batch", "none"} }

// activation is the non-linearity that ends a layer.
func activation(p *string) choice[string] {
	const next = "this version has relu and relu6"
	return oneOf(p, map[string]string{
		"leakyrelu": next, "sigmoid": next, "tanh": next, "gelu": next, "silu": next,
		"hardswish": next, "softmax": "the loss applies it: the model ends in logits"}, "relu", "relu6", "none")
}

func laterLayerKeys() map[string]string {
	return map[string]string{
		"head":     "the last layer gives float32 logits",
		"dilation": "use a larger kernel or stride",
	}
}

func (s *Conv) later() map[string]string  { return laterLayerKeys() }
func (s *Dense) later() map[string]string { return laterLayerKeys() }

func (s *MaxPool) fields() []field {
	return []field{
		{key: "name", value: text{&s.Name, layerForm, layerSays}},
		{key: "from", value: reference{&s.From}},
		{key: "size", value: extent2{&s.Size, maxWindow}, required: true},
		{key: "stride", value: extent2{&s.Stride, maxWindow}},
		{key: "pad", value: padding{&s.Pad, &s.Size}},
	}
}

func (s *MaxPool) later() map[string]string { return nil }

// nameFields are those of a layer without settings of its own.
func nameFields(name, from *string) []field {
	return []field{{key: "name", value: text{name, layerForm, layerSays}}, {key: "from", value: reference{from}}}
}

func (s *Flatten) fields() []field { return nameFields(&s.Name, &s.From) }
func (s *GAP) fields() []field     { return nameFields(&s.Name, &s.From) }

func (s *ReLU) fields() []field {
	return append(nameFields(&s.Name, &s.From), field{key: "cap", value: limit{number{p: &s.Cap, max: 1000000, openMin: true}}})
}

func (s *Add) fields() []field {
	return []field{
		{key: "name", value: text{&s.Name, layerForm, layerSays}},
		{key: "from", value: references{&s.From}, required: true},
		{key: "act", value: activation(&s.Act)},
	}
}

func (s *Flatten) later() map[string]string { return nil }
func (s *GAP) later() map[string]string     { return nil }
func (s *ReLU) later() map[string]string    { return nil }
func (s *Add) later() map[string]string     { return nil }

func (s *Solver) solverFields() []field {
	sgd := unless(s.Optimizer == "sgd", "optimizer: sgd")
	adam := unless(s.Optimizer == "adam" || s.Optimizer == "adamw", "optimizer: adam or adamw")
	step := unless(s.Schedule == "step", "schedule: step")
	return []field{
		{key: "optimizer", value: oneOf(&s.Optimizer, map[string]string{
			"rmsprop": "use adam", "adagrad": "use adam", "lion": "use adamw"}, "adam", "adamw", "sgd")},
		{key: "lr", value: number{p: &s.LR, max: 10, openMin: true}},
		{key: "momentum", value: number{p: &s.Momentum, max: 1, openMax: true}, only: sgd},
		{key: "nesterov", value: boolean{&s.Nesterov}, only: sgd},
		{key: "weight_decay", value: number{p: &s.WeightDecay, max: 1}},
		{key: "beta1", value: number{p: &s.Beta1, max: 1, openMax: true}, only: adam},
		{key: "beta2", value: number{p: &s.Beta2, max: 1, openMax: true}, only: adam},
		{key: "eps", value: number{p: &s.Eps, max: 1, openMin: true}, only: adam},
		{key: "schedule", value: oneOf(&s.Schedule, map[string]string{
			"linear": "cosine is close to it", "exponential": "use step", "plateau": "use step or early_stop"}, "constant", "step", "cosine")},
		{key: "warmup_steps", value: whole{&s.WarmupSteps, 0, 1 << 30}},
		{key: "step_every", value: whole{&s.StepEvery, 1, 1 << 20}, only: step},
		{key: "step_gamma", value: number{p: &s.StepGamma, max: 1, openMin: true}, only: step},
		{key: "min_lr", value: number{p: &s.MinLR, max: 10}, only: unless(s.Schedule == "cosine", "schedule: cosine")},
	}
}

// unless is the condition under which a key has an effect, or "" when it is met.
func unless(met bool, condition string) string {
	if met {
		return ""
	}
	return condition
}

func (s *Train) fields() []field {
	return slices.Concat([]field{
		{key: "epochs", value: whole{&s.Epochs, 1, 1 << 20}, required: true},
	}, s.solverFields(), []field{
		{key: "loss", value: oneOf(&s.Loss, map[string]string{"ctc": "labels are classes in this version", "hinge": "use squared_hinge"},
			"cross_entropy", "mse", "smooth_l1", "bce", "squared_hinge")},
		{key: "label_smoothing", value: number{p: &s.LabelSmoothing, max: 1, openMax: true}, only: unless(s.Loss == "cross_entropy", "loss: cross_entropy")},
		{key: "early_stop", value: whole{&s.EarlyStop, 0, 1 << 20}},
		{key: "init_range", value: notZero{number{p: &s.InitRange, max: 1000, openMin: true}}},
		{key: "weight_clip", value: notZero{number{p: &s.WeightClip, max: 1000000, openMin: true}}},
		{key: "track_test", value: onlyTrue{&s.TrackTest}},
	})
}

func (s *Train) later() map[string]string {
	return map[string]string{
		"clip": "there is no gradient clipping yet", "workers": "use the flag --workers: the result does not depend on it",
	}
}

func (s *QAT) fields() []field {
	return slices.Concat([]field{
		{key: "start", value: oneOf(&s.Start, map[string]string{
			"fp32": "starting from the calibrated model is never worse"}, "ptq", ScratchStart)},
		{key: "epochs", value: number{p: &s.Epochs, max: 1 << 20, openMin: true}},
	}, s.solverFields(), []field{
		{key: "scale_lr", value: number{p: &s.ScaleLR, max: 10, openMin: true}},
		{key: "scale_step", value: oneOf(&s.ScaleStep, map[string]string{"relative": "write log", "absolute": "write linear"}, quant.StepLog, quant.StepLinear)},
		{key: "scale_gradient", value: oneOf(&s.ScaleGradient, map[string]string{"sqrt": "write elements"}, quant.FactorLSQ, quant.FactorElements, quant.FactorNone)},
		{key: "pact_decay", value: number{p: &s.PACTDecay, max: 1}, only: unless(s.pact, "range: pact")},
		{key: "backward", value: oneOf(&s.Backward, map[string]string{"fp32": "write float", "float32": "write float",
			"int8": "gradients need more than eight bits", "int32": "products are summed in 32 bits; the gradients have 16"}, "float", "int16")},
	}, s.scheduleFields(), []field{
		{key: "fuse", value: boolean{&s.Fuse}},
	})
}

func (s *QAT) later() map[string]string {
	const loss = "QAT uses the loss of train:"
	return map[string]string{"loss": loss, "label_smoothing": loss, "early_stop": "QAT runs all its epochs",
		"bits": "write lower: [{at: 0, precision: w8a8}, {at: 0.4, precision: w4a4}]"}
}

func (s *Quant) fields() []field {
	return []field{
		{key: "target", value: oneOf(&s.Target, map[string]string{
			"tflite": "use onnx: its integers are those the engine runs", "c": "use onnx: its integers are those the engine runs",
			"tensorrt": "use onnx"}, quant.ONNX)},
		{key: "weight", value: nested{s: &tensorSection{&s.Weight, weightRole, false}}},
		{key: "act", value: nested{s: &tensorSection{&s.Act, actRole, false}}},
		{key: "input", value: settled{oneOf(&s.Input, map[string]string{"int8": "write bytes"}, bytesInput, actInput), bytesInput, false}},
		{key: "rules", value: rules{&s.Rules}},
		{key: "calibration", value: nested{s: &calibrationSection{&s.Calibration, s.usesPercentile()}}},
	}
}

func (s *Quant) later() map[string]string {
	return map[string]string{
		"equalize": "write it under calibration:", "bias_correction": "write it under calibration:", "rounding": "write it under calibration:",
	}
}

// usesPercentile reports whether any range is found by percentile.
func (s *Quant) usesPercentile() bool {
	return s.Calibration.Method == "percentile" || s.Calibration.Method == "auto" || s.uses(quant.Percentile)
}

// uses reports whether some tensor has range method r.
func (s *Quant) uses(r quant.Range) bool {
	if s == nil {
		return false
	}
	used := s.Weight.Range == r || s.Act.Range == r
	for _, rule := range s.Rules {
		used = used || rule.Weight != nil && rule.Weight.Range == r || rule.Act != nil && rule.Act.Range == r
	}
	return used
}

// role is what a tensor is to its layer; it decides which settings make sense.
type role uint8

const (
	weightRole role = iota + 1
	actRole
)

// tensorSection reads a TensorQuant in its role.
type tensorSection struct {
	*TensorQuant
	role   role
	inRule bool
}

func (s *tensorSection) fields() []field {
	schemes := oneOf(&s.Scheme, map[string]string{
		"affine": "weights have zero point 0, so that no product with it is left over; use symmetric", "asymmetric": "for activations this is affine; weights are symmetric"}, quant.Symmetric, quant.PowerOfTwo)
	per := oneOf(&s.Per, nil, quant.PerChannel, quant.PerTensor, quant.PerGroup)
	const batches = "it follows batches, and weights have none; use minmax or lsq"
	ranges := oneOf(&s.Range, map[string]string{"ema": batches, "envelope": batches, "absmax": "minmax takes the largest magnitude already",
		"lsq+": "weights have zero point 0; use lsq", "pact": "it clips activations; use lsq"}, quant.RangesWhere(quant.Range.ForWeights)...)
	levels := oneOf(&s.Levels, map[string]string{"full": "weights are symmetric around 0; use narrow", "all": "use narrow"}, narrowLevels, evenLevels)
	if s.role == actRole {
		schemes = oneOf(&s.Scheme, map[string]string{"asymmetric": "write affine"}, quant.Affine, quant.Symmetric, quant.PowerOfTwo)
		per = oneOf(&s.Per, map[string]string{"channel": "the integer product needs one activation scale for all channels; per: channel is for weights",
			"group": "groups are for weights with fp16 activations; activations have one scale",
			"token": "ranges are fixed before deployment"}, quant.PerTensor)
		ranges = oneOf(&s.Range, map[string]string{"absmax": "use minmax", "dorefa": "it is for weights; use lsq, or pact behind a ReLU"}, quant.RangesWhere(quant.Range.ForActs)...)
		levels = oneOf(&s.Levels, map[string]string{"even": "an activation needs the level 0; only format: binary has even levels"}, fullLevels, narrowLevels)
	}
	only := ""
	if s.Format != 0 && !s.Format.IsInteger() {
		only = "an integer format"
	}
	formats := oneOf(&s.Format, refusedFormats(), quant.Int16, quant.Int8, quant.Int7, quant.Int6, quant.Int5, quant.Int4, quant.Int3, quant.Int2, quant.Binary, quant.FP16, quant.BF16)
	if s.inRule {
		const wide = "one layer in 16-bit floats among integers is not supported by this version; int8 spares a sensitive layer"
		formats.options = formats.options[:9]
		formats.refused["fp16"], formats.refused["bf16"], formats.refused["fp32"] = wide, wide, wide
	}
	levelsOnly, maxOnly := only, only
	if s.Format == quant.Binary {
		levelsOnly = "a format of more than two levels"
	}
	if s.Range != quant.Constant {
		maxOnly = "range: constant"
	}
	fields := []field{
		{key: "format", value: ternaryToo{formats, s.role, &s.Levels}},
		{key: "scheme", value: schemes, only: only},
		{key: "per", value: per, only: only},
		{key: "range", value: autoRange{ranges, s.inRule}, only: only},
		{key: "max", value: number{p: &s.Max, max: 1000000, openMin: true}, only: maxOnly},
		{key: "levels", value: settled{levels, s.defaultLevels(), s.inRule}, only: levelsOnly},
		{key: "estimator", value: oneOf(&s.Estimator, map[string]string{"ste": "write clipped"},
			quant.Clipped, quant.ApproxSign, quant.SwishSign), only: unless(s.Format == quant.Binary, "format: binary")},
	}
	if s.role == weightRole {
		roundingOnly := levelsOnly
		if s.Levels == evenLevels {
			roundingOnly = "levels: narrow"
		}
		fields = append(fields, field{key: "rounding", value: oneOf(&s.Rounding, map[string]string{
			"nearest": "write half-even", "truncate": "write to-zero"}, quant.Roundings()...), only: roundingOnly})
		fields = append(fields, field{key: "group", value: oneOf(&s.Group, nil, quant.Groups()...), only: unless(s.Per == quant.PerGroup, "per: group")})
	}
	return fields
}

func refusedFormats() map[string]string {
	const float8 = "use fp16 or int8"
	return map[string]string{
		"fp32":    "leave out the quant section, or run with --precision fp32",
		"uint8":   "write int8: activations are stored unsigned anyway",
		"fp8e4m3": float8, "fp8e5m2": float8, "mxfp8": float8, "mxfp4": "use int4",
	}
}

func (s *tensorSection) later() map[string]string {
	later := map[string]string{"narrow": "write levels: narrow", "even": "write levels: even"}
	if s.role == actRole {
		later["rounding"] = "activations become codes by ONNX's QuantizeLinear, which rounds halves to even; weights have a rounding"
	}
	return later
}

// calibrationSection reads a Calibration; percentile matters only if something uses it.
type calibrationSection struct {
	*Calibration
	percentile bool
}

func (s *calibrationSection) fields() []field {
	return []field{
		{key: "examples", value: whole{&s.Examples, 1, 1 << 30}},
		{key: "method", value: oneOf(&s.Method, map[string]string{"entropy": "write kl", "max": "write minmax"},
			"minmax", "percentile", "mse", "kl", "histogram", "auto")},
		{key: "percentile", value: number{p: &s.Percentile, min: 50, max: 100, openMin: true}, only: unless(s.percentile, "method: percentile or auto")},
		{key: "equalize", value: boolean{&s.Equalize}},
		{key: "bias_correction", value: boolean{&s.BiasCorrection}},
		{key: "rounding", value: oneOf(&s.Rounding, map[string]string{"stochastic": "use adaround, which learns what stochastic rounding tries", "learned": "write adaround"},
			"nearest", "adaround", "gptq")},
	}
}

func (s *calibrationSection) later() map[string]string {
	return nil
}

func (s *Compare) fields() []field {
	return []field{
		{key: "precisions", value: words{&s.Precisions, 64, checkPrecision, "a list such as [fp32, int8, w4a8]"}},
		{key: "methods", value: words{&s.Methods, 8, checkMethod, "a list of ptq, qat"}},
		{key: "seeds", value: whole{&s.Seeds, 1, 1000}},
		{key: "split", value: oneOf(&s.Split, map[string]string{"train": "how well a network knows its own examples says little", "val": "write validation"}, "test", "validation")},
		{key: "variants", value: variants{&s.Variants}},
	}
}

func (s *Compare) later() map[string]string {
	return map[string]string{"budget": "there is no bit search yet"}
}

// synonyms are other tools' words for our keys.
func synonyms() map[string][]string {
	return map[string][]string{
		"kernel_size": {"kernel", "size"}, "pool_size": {"size"}, "kernel": {"size"}, "padding": {"pad"}, "strides": {"stride"},
		"activation": {"act"}, "activations": {"act"}, "weights": {"weight"}, "use_bias": {"bias"}, "batch_norm": {"norm"}, "bn": {"norm"},
		"out_channels": {"filters"}, "channels": {"filters"}, "out_features": {"units"}, "filters": {"units"}, "units": {"filters"},
		"learning_rate": {"lr"}, "decay": {"weight_decay"}, "warmup": {"warmup_steps"}, "patience": {"early_stop"}, "batch_size": {"batch"},
		"validation_split": {"val_fraction"}, "granularity": {"per"}, "observer": {"range"}, "method": {"range"}, "bits": {"format"}, "dtype": {"format"},
		"batches": {"examples"}, "samples": {"examples"}, "random_seed": {"seed"}, "data": {"dataset"}, "layers": {"model"}, "training": {"train"},
		"quantization": {"quant"}, "layer_name": {"layer"}, "pattern": {"layer"},
	}
}

// homeOf names the section that has a key, for keys written at the wrong place; "" if none or several have it.
func homeOf(key string) string {
	home := ""
	for _, s := range []struct {
		name   string
		fields []field
	}{
		{"dataset", new(Dataset).fields()}, {"train", new(Train).fields()}, {"quant", new(Quant).fields()},
		{"qat", new(QAT).fields()}, {"compare", new(Compare).fields()},
	} {
		for _, f := range s.fields {
			if f.key != key {
				continue
			}
			if home != "" && !(home == "train" && s.name == "qat") { // what both have, train is meant
				return ""
			}
			if home == "" {
				home = s.name
			}
		}
	}
	return home
}
