package configs_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/configs"
)

// badFile pairs a testdata/*.bad.yaml with all it must be told, one line for each problem.
type badFile struct {
	file string // without .bad.yaml
	want []string
}

func badFiles() []badFile {
	return []badFile{
		{"alias-unknown", []string{
			`alias-unknown.bad.yaml:7: not valid YAML: unknown anchor 'fast' referenced; an alias *fast needs an anchor &fast before it`,
		}},
		{"backward-float", []string{
			`backward-float.bad.yaml:8: qat.backward: int16 has no effect on a network in bf16; its layers are not on integers: remove it, or use integer formats`,
		}},
		{"backward-int8", []string{
			`backward-int8.bad.yaml:8: qat.backward: "int8" is not supported here (allowed: float, int16); gradients need more than eight bits`,
		}},
		{"binary", []string{
			`binary.bad.yaml:5: model[1].dense.dropout: is 1 (allowed: a number at least 0, below 1)`,
			`binary.bad.yaml:7: train.loss: "hinge" is not supported here (allowed: cross_entropy, mse, smooth_l1, bce, squared_hinge); use squared_hinge`,
			`binary.bad.yaml:7: train.weight_clip: is 0 (allowed: a number above 0, at most 1000000)`,
			`binary.bad.yaml:10: quant.weight.levels: has no effect here: it belongs to a format of more than two levels; remove it`,
			`binary.bad.yaml:11: quant.act.format: "ternary" is a format of weights (allowed: int16, int8, int7, int6, int5, int4, int3, int2, binary, fp16, bf16); for codes -1, 0 and 1 write format: int2, scheme: symmetric, levels: narrow`,
			`binary.bad.yaml:11: quant.act.levels: "even" is not supported here (allowed: full, narrow); an activation needs the level 0; only format: binary has even levels`,
			`binary.bad.yaml:13: quant.rules[0].act.estimator: has no effect on int4: it belongs to format: binary; remove it`,
			`binary.bad.yaml:14: quant.rules[1].weight.levels: has no effect on binary, which has two levels; remove it`,
		}},
		{"boolean-as-word", []string{
			`boolean-as-word.bad.yaml:6: model[2].dense.bias: is the text "yes" (allowed: true, false); write true`,
		}},
		{"branch-add", []string{
			`branch-add.bad.yaml:6: model[2].add.from: is a list of 1 (allowed: the names of two layers above: [a, b])`,
			`branch-add.bad.yaml:7: model[3].add.from: is the text "a" (allowed: the names of two layers above: [a, b])`,
			`branch-add.bad.yaml:8: model[4].add.from: is missing (allowed: the names of two layers above: [a, b])`,
			`branch-add.bad.yaml:9: model[5].add.from[1]: is the number 3 (allowed: the name of a layer above, or input)`,
			`branch-add.bad.yaml:9: model[5].add.act: unknown value "relu7" (allowed: relu, relu6, none); did you mean "relu"?`,
			`branch-add.bad.yaml:10: model[6].conv.from: is a list, and this layer reads one tensor; only add reads two`,
			`branch-add.bad.yaml:10: model[6].conv.groups: unknown value "depthwize" (allowed: depthwise, a whole number from 1 to 65536); did you mean "depthwise"?`,
			`branch-add.bad.yaml:11: model[7].relu.cap: is 0 (allowed: a number above 0, at most 1000000)`,
		}},
		{"branch-names", []string{
			`branch-names.bad.yaml:5: model[1].conv.from: no layer is called "stem1" (allowed: input, stem); did you mean "stem"?`,
			`branch-names.bad.yaml:6: model[2].conv.from: layer "c2" reads itself`,
			`branch-names.bad.yaml:7: model[3].add.from[1]: layer "c3" comes later, at branch-names.bad.yaml:8; a layer reads what is above it`,
			`branch-names.bad.yaml:9: model[5].add.from: adds "c1" to itself; name two different layers`,
		}},
		{"branch-unread", []string{
			`branch-unread.bad.yaml:5: model[1].conv: nothing reads layer "side"; name it in the from of a later layer, or remove it`,
		}},
		{"calibration-auto", []string{
			`calibration-auto.bad.yaml:8: quant.calibration.method: auto chooses on the validation split, and val_fraction is 0; set dataset.val_fraction, for example to 0.1`,
		}},
		{"calibration-float", []string{
			`calibration-float.bad.yaml:10: quant.calibration.rounding: adaround has no effect on a network in fp16; 16-bit floats have no grid to choose on: remove it, or use integer formats`,
			`calibration-float.bad.yaml:10: quant.calibration.bias_correction: has no effect on a network in fp16; 16-bit floats have no grid to choose on: remove it, or use integer formats`,
		}},
		{"calibration-rounding", []string{
			`calibration-rounding.bad.yaml:8: quant.calibration.rounding: unknown value "adarond" (allowed: nearest, adaround, gptq); did you mean "adaround"?`,
			`calibration-rounding.bad.yaml:8: quant.calibration.equalize: is the text "yes" (allowed: true, false); write true`,
			`calibration-rounding.bad.yaml:9: quant.bias_correction: is not supported by this version; write it under calibration:`,
		}},
		{"calibration", []string{
			`calibration.bad.yaml:8: quant.calibration.method: "entropy" is not supported here (allowed: minmax, percentile, mse, kl, histogram, auto); write kl`,
			`calibration.bad.yaml:8: quant.calibration.examples: is 0 (allowed: a whole number from 1 to 1073741824)`,
			`calibration.bad.yaml:8: quant.calibration.batches: unknown key (allowed: examples, method, percentile, equalize, bias_correction, rounding); did you mean "examples"?`,
		}},
		{"comment", []string{
			`comment.bad.yaml: the file is empty; a configuration needs at least version, dataset, model and train`,
		}},
		{"compare-methods", []string{
			`compare-methods.bad.yaml:8: compare.methods[2]: unknown value "pqt" (allowed: ptq, qat); did you mean "ptq"?`,
			`compare-methods.bad.yaml:8: compare.seeds: is 0 (allowed: a whole number from 1 to 1000)`,
		}},
		{"compare-precision", []string{
			`compare-precision.bad.yaml:8: compare.precisions[1]: unknown precision "int9" (allowed: fp32, fp16, bf16, int16, int8 to int2, ternary, binary, or wXaY with X and Y from 1 to 8, for example w4a8, or wXa16)`,
		}},
		{"compare-split", []string{
			`compare-split.bad.yaml:9: compare.split: there is no validation split: val_fraction is 0; set dataset.val_fraction, for example to 0.1`,
		}},
		{"compare-word", []string{
			`compare-word.bad.yaml:8: compare.precisions: is the text "int8" (allowed: a list such as [fp32, int8, w4a8]); write [int8]`,
		}},
		{"conv-fields", []string{
			`conv-fields.bad.yaml:5: model[1].conv.kernel: is missing (allowed: a whole number from 1 to 255, or [height, width])`,
			`conv-fields.bad.yaml:6: model[2].conv.kernel: is a list of 3 (allowed: a whole number from 1 to 255, or [height, width])`,
			`conv-fields.bad.yaml:6: model[2].conv.pad: unknown value "smae" (allowed: same, valid, a whole number from 0 to 1024, or [top, left, bottom, right]); did you mean "same"?`,
			`conv-fields.bad.yaml:6: model[2].conv.stride: is 0 (allowed: a whole number from 1 to 255, or [height, width])`,
			`conv-fields.bad.yaml:7: model[3].conv.pad: is a list of 2 (allowed: same, valid, a whole number from 0 to 1024, or [top, left, bottom, right])`,
		}},
		{"dataset-own", []string{
			`dataset-own.bad.yaml:2: dataset.csv: is not supported by this version; reading your own data comes later: this version trains on digits, mnist, fashion-mnist, cifar10`,
		}},
		{"dataset-unknown", []string{
			`dataset-unknown.bad.yaml:2: dataset.name: unknown value "fashion_mnist" (allowed: digits, mnist, fashion-mnist, cifar10); did you mean "fashion-mnist"?`,
		}},
		{"duplicate-key", []string{
			`duplicate-key.bad.yaml:10: train.epochs: is given twice, first at duplicate-key.bad.yaml:8`,
		}},
		{"duplicate-section", []string{
			`duplicate-section.bad.yaml:8: train: is given twice, first at duplicate-section.bad.yaml:7`,
		}},
		{"early-stop", []string{
			`early-stop.bad.yaml:7: train.early_stop: watches the validation split, and val_fraction is 0; set dataset.val_fraction, for example to 0.1`,
		}},
		{"empty", []string{
			`empty.bad.yaml: the file is empty; a configuration needs at least version, dataset, model and train`,
		}},
		{"foreign-words", []string{
			`foreign-words.bad.yaml:2: dataset.batch_size: unknown key (allowed: name, batch, val_fraction, center, limit); did you mean "batch"?`,
			`foreign-words.bad.yaml:7: train.learning_rate: unknown key (allowed: epochs, optimizer, lr, momentum, nesterov, weight_decay, beta1, beta2, eps, schedule, warmup_steps, step_every, step_gamma, min_lr, loss, label_smoothing, early_stop, init_range, weight_clip, track_test); did you mean "lr"?`,
		}},
		{"key-at-wrong-place", []string{
			`key-at-wrong-place.bad.yaml:8: batch: unknown key (allowed: version, name, seed, dataset, model, train, quant, qat, compare); it belongs under dataset:`,
			`key-at-wrong-place.bad.yaml:9: lr: unknown key (allowed: version, name, seed, dataset, model, train, quant, qat, compare); it belongs under train:`,
		}},
		{"key-not-word", []string{
			`key-not-word.bad.yaml:7: train: a key must be a word, this is a list`,
		}},
		{"last-layer-flatten", []string{
			`last-layer-flatten.bad.yaml:6: model[2].flatten: the model ends in a flatten layer; the last layer gives one number per class: end with - dense: {units: CLASSES}`,
		}},
		{"last-layer-relu", []string{
			`last-layer-relu.bad.yaml:6: model[2].dense.act: the last layer must not have act: relu; the loss needs the logits as they are: remove it`,
		}},
		{"layer-later", []string{
			`layer-later.bad.yaml:5: model[1]: layer kind "dropout" is not supported by this version (allowed: conv, dense, maxpool, flatten, relu, add, gap); write dropout: 0.2 in the conv or dense layer whose input it is`,
			`layer-later.bad.yaml:6: model[2]: layer kind "lstm" is not supported by this version (allowed: conv, dense, maxpool, flatten, relu, add, gap); this version has no sequence layers`,
			`layer-later.bad.yaml:7: model[3]: layer kind "concat" is not supported by this version (allowed: conv, dense, maxpool, flatten, relu, add, gap); this version joins branches with add only`,
		}},
		{"layer-misspelt", []string{
			`layer-misspelt.bad.yaml:4: model[0]: unknown layer kind "flaten" (allowed: conv, dense, maxpool, flatten, relu, add, gap); did you mean "flatten"?`,
		}},
		{"layer-name-illegal", []string{
			`layer-name-illegal.bad.yaml:5: model[1].dense.name: is the text "fc/1" (allowed: a letter, then letters, digits, _ and -, at most 64)`,
		}},
		{"layer-name-twice", []string{
			`layer-name-twice.bad.yaml:6: model[2].dense.name: layer name "fc1" is used twice, first at layer-name-twice.bad.yaml:5`,
		}},
		{"layer-not-nested", []string{
			`layer-not-nested.bad.yaml:5: model[1]: has 2 keys; a layer is one kind with its settings in braces (allowed: conv, dense, maxpool, flatten, relu, add, gap); indent the settings below dense:, or write dense: {...}`,
		}},
		{"layer-two-kinds", []string{
			`layer-two-kinds.bad.yaml:5: model[1]: has 2 keys; a layer is one kind with its settings in braces (allowed: conv, dense, maxpool, flatten, relu, add, gap); indent the settings below dense:, or write dense: {...}`,
		}},
		{"layer-units-missing", []string{
			`layer-units-missing.bad.yaml:5: model[1].dense.units: is missing (allowed: a whole number from 1 to 65536)`,
		}},
		{"layer-word", []string{
			`layer-word.bad.yaml:4: model[0]: is the text "flatten" where a layer belongs (allowed: conv, dense, maxpool, flatten, relu, add, gap); write flatten: {}`,
		}},
		{"levels", []string{
			`levels.bad.yaml:5: model[1].conv.norm: "tensor" is not supported here (allowed: batch, none); it is for dense layers; use batch`,
			`levels.bad.yaml:10: quant.input: act needs act.range: constant: nothing is computed before the input that a range could follow; add range: constant and max to quant.act, or leave input out`,
		}},
		{"list", []string{
			`list.bad.yaml:1: a configuration is made of key: value lines, this is a list`,
		}},
		{"merge-not-mapping", []string{
			`merge-not-mapping.bad.yaml:7: train: << takes a mapping or a list of mappings, this is the number 3`,
		}},
		{"min-lr", []string{
			`min-lr.bad.yaml:7: train.min_lr: is 0.01, above lr 0.001: the schedule would rise`,
		}},
		{"model-empty", []string{
			`model-empty.bad.yaml:3: model: is a list of 0 layers (allowed: a list of layers such as - dense: {units: 10})`,
		}},
		{"model-mapping", []string{
			`model-mapping.bad.yaml:4: model: is a mapping (allowed: a list of layers such as - dense: {units: 10})`,
		}},
		{"name-illegal", []string{
			`name-illegal.bad.yaml:8: name: is the text "my experiment/1" (allowed: letters, digits, . _ and -, at most 100)`,
		}},
		{"name-number", []string{
			`name-number.bad.yaml:8: name: is the number 2024 (allowed: letters, digits, . _ and -, at most 100); to use it as text, put it in quotes: "2024"`,
		}},
		{"nesterov", []string{
			`nesterov.bad.yaml:7: train.nesterov: needs momentum above 0`,
		}},
		{"no-effect", []string{
			`no-effect.bad.yaml:7: train.momentum: has no effect here: it belongs to optimizer: sgd; remove it`,
			`no-effect.bad.yaml:7: train.step_every: has no effect here: it belongs to schedule: step; remove it`,
			`no-effect.bad.yaml:7: train.min_lr: has no effect here: it belongs to schedule: cosine; remove it`,
			`no-effect.bad.yaml:7: train.label_smoothing: has no effect here: it belongs to loss: cross_entropy; remove it`,
		}},
		{"norm-later", []string{
			`norm-later.bad.yaml:5: model[1].dense.norm: "layer" is not supported here (allowed: batch, tensor, none); this version has batch norm only`,
			`norm-later.bad.yaml:5: model[1].dense.act: "gelu" is not supported here (allowed: relu, relu6, none); this version has relu and relu6`,
		}},
		{"norm-without", []string{
			`norm-without.bad.yaml:5: model[1].dense.eps: has no effect here: it belongs to norm: batch; remove it`,
			`norm-without.bad.yaml:5: model[1].dense.momentum: has no effect here: it belongs to norm: batch; remove it`,
		}},
		{"not-utf8", []string{
			`not-utf8.bad.yaml: is not text in UTF-8`,
		}},
		{"null-value", []string{
			`null-value.bad.yaml:8: train.epochs: has no value (allowed: a whole number from 1 to 1048576)`,
			`null-value.bad.yaml:9: train.lr: has no value (allowed: a number above 0, at most 10)`,
			`null-value.bad.yaml:10: quant: has no value; write {} for the defaults, or remove the key`,
		}},
		{"number-not-finite", []string{
			`number-not-finite.bad.yaml:7: train.lr: is the number .nan (allowed: a number above 0, at most 10)`,
		}},
		{"number-open-end", []string{
			`number-open-end.bad.yaml:7: train.lr: is 0 (allowed: a number above 0, at most 10)`,
			`number-open-end.bad.yaml:7: train.beta1: is 1 (allowed: a number at least 0, below 1)`,
		}},
		{"optimizer-refused", []string{
			`optimizer-refused.bad.yaml:7: train.optimizer: "rmsprop" is not supported here (allowed: adam, adamw, sgd); use adam`,
		}},
		{"optimizer-unknown", []string{
			`optimizer-unknown.bad.yaml:7: train.optimizer: unknown value "adma" (allowed: adam, adamw, sgd); did you mean "adam"?`,
		}},
		{"percentile-unused", []string{
			`percentile-unused.bad.yaml:8: quant.calibration.percentile: has no effect here: it belongs to method: percentile or auto; remove it`,
		}},
		{"qat-alone", []string{
			`qat-alone.bad.yaml:8: qat: needs a quant section; add quant: {} for the defaults: int8 weights and activations`,
		}},
		{"dorefa", []string{
			`dorefa.bad.yaml:9: quant.weight.per: dorefa divides by the largest |tanh w| of the whole tensor: its scale is not per channel; use per: tensor`,
			`dorefa.bad.yaml:10: quant.calibration.rounding: needs codes that stand for the weights, and dorefa codes tanh(w); remove it, or use range: lsq`,
			`dorefa.bad.yaml:10: quant.calibration.equalize: needs codes that stand for the weights, and dorefa codes tanh(w); remove it, or use range: lsq`,
			`dorefa.bad.yaml:10: quant.calibration.bias_correction: needs codes that stand for the weights, and dorefa codes tanh(w); remove it, or use range: lsq`,
			`dorefa.bad.yaml:12: quant.rules[0].weight: binary weights by range method dorefa are -mean|w| and mean|w| of the tensor: use range mean, per tensor`,
			`dorefa.bad.yaml:13: quant.rules[1].weight: range method dorefa needs scheme symmetric, not pow2`,
			`dorefa.bad.yaml:14: qat.oscillation.damping: needs codes that stand for the weights, and dorefa codes tanh(w); remove it, or use range: lsq`,
			`dorefa.bad.yaml:14: qat.oscillation.freeze_above: needs codes that stand for the weights, and dorefa codes tanh(w); remove it, or use range: lsq`,
		}},
		{"dorefa-act", []string{
			`dorefa-act.bad.yaml:9: quant.act.range: "dorefa" is not supported here (allowed: minmax, ema, envelope, lsq, percentile, mse, constant, lsq+, pact, tqt, auto); it is for weights; use lsq, or pact behind a ReLU`,
		}},
		{"dorefa-ptq", []string{
			`dorefa-ptq.bad.yaml:10: quant.rules[0].weight.range: dorefa codes tanh(w), which changes what the network computes until it is trained; add a qat section, or use minmax or mse`,
		}},
		{"qat-range", []string{
			`qat-range.bad.yaml:9: quant.weight.range: mse finds a range once, from calibration data, and the qat section trains on; use minmax or lsq here and quant.calibration.method: mse for the start`,
			`qat-range.bad.yaml:10: quant.act.range: percentile finds a range once, from calibration data, and the qat section trains on; use envelope, ema or lsq here and quant.calibration.method: percentile for the start`,
			`qat-range.bad.yaml:12: quant.rules[0].weight.range: mse finds a range once, from calibration data, and the qat section trains on; use minmax or lsq here and quant.calibration.method: mse for the start`,
		}},
		{"qat-start", []string{
			`qat-start.bad.yaml:9: qat.start: "fp32" is not supported here (allowed: ptq, scratch); starting from the calibrated model is never worse`,
			`qat-start.bad.yaml:9: qat.loss: is not supported by this version; QAT uses the loss of train:`,
			`qat-start.bad.yaml:9: qat.epochs: is 0 (allowed: a number above 0, at most 1048576)`,
		}},
		{"quant-act", []string{
			`quant-act.bad.yaml:8: quant.act.format: "fp32" is not supported here (allowed: int16, int8, int7, int6, int5, int4, int3, int2, binary, fp16, bf16); leave out the quant section, or run with --precision fp32`,
			`quant-act.bad.yaml:8: quant.act.scheme: "asymmetric" is not supported here (allowed: affine, symmetric, pow2); write affine`,
			`quant-act.bad.yaml:8: quant.act.per: "channel" is not supported here (allowed: tensor); the integer product needs one activation scale for all channels; per: channel is for weights`,
			`quant-act.bad.yaml:8: quant.act.range: unknown value "envelop" (allowed: minmax, ema, envelope, lsq, percentile, mse, constant, lsq+, pact, tqt, auto); did you mean "envelope"?`,
		}},
		{"weight-rounding", []string{
			`weight-rounding.bad.yaml:8: quant.weight.rounding: "nearest" is not supported here (allowed: half-even, stochastic, floor, ceil, to-zero, half-up); write half-even`,
			`weight-rounding.bad.yaml:9: quant.act.rounding: is not supported by this version; activations become codes by ONNX's QuantizeLinear, which rounds halves to even; weights have a rounding`,
		}},
		{"weight-rounding-learned", []string{
			`weight-rounding-learned.bad.yaml:10: quant.calibration.rounding: adaround puts weights on codes, and quant.weight.rounding: floor would not give these codes back; use rounding: half-even for the weights`,
			`weight-rounding-learned.bad.yaml:11: qat.oscillation.freeze_above: puts weights on codes, and quant.weight.rounding: floor would not give these codes back; use rounding: half-even for the weights`,
		}},
		{"range-words", []string{
			`range-words.bad.yaml:8: quant.rules[0].weight.range: "lsq+" is not supported here (allowed: minmax, lsq, percentile, mse, mean, constant, tqt, dorefa); weights have zero point 0; use lsq`,
			`range-words.bad.yaml:9: qat.scale_step: "relative" is not supported here (allowed: log, linear); write log`,
			`range-words.bad.yaml:9: qat.scale_gradient: unknown value "lsqq" (allowed: lsq, elements, none); did you mean "lsq"?`,
		}},
		{"range-schemes", []string{
			`range-schemes.bad.yaml:9: quant.weight: lsq learns scales that are not powers of two: use scheme symmetric, or range method tqt`,
			`range-schemes.bad.yaml:10: quant.act: range method lsq+ needs scheme affine, not symmetric`,
			`range-schemes.bad.yaml:12: quant.rules[0].act: range method tqt needs scheme pow2, not symmetric`,
			`range-schemes.bad.yaml:13: qat.pact_decay: has no effect here: it belongs to range: pact; remove it`,
		}},
		{"quant-bits", []string{
			`quant-bits.bad.yaml:8: quant.weight.bits: unknown key (allowed: format, scheme, per, range, max, levels, estimator, rounding, group); did you mean "format"?`,
		}},
		{"quant-float-range", []string{
			`quant-float-range.bad.yaml:8: quant.weight.range: has no effect here: it belongs to an integer format; remove it`,
		}},
		{"quant-float-rules", []string{
			`quant-float-rules.bad.yaml:8: quant.rules: have no effect on a network in fp16; remove them, or use integer formats`,
		}},
		{"quant-group", []string{
			`quant-group.bad.yaml:9: quant.weight.group: unknown value "48" (allowed: 32, 64, 128)`,
			`quant-group.bad.yaml:10: quant.act.per: "group" is not supported here (allowed: tensor); groups are for weights with fp16 activations; activations have one scale`,
		}},
		{"quant-group-unused", []string{
			`quant-group-unused.bad.yaml:9: quant.weight.group: has no effect here: it belongs to per: group; remove it`,
		}},
		{"quant-act-unused", []string{
			`quant-act-unused.bad.yaml:12: quant.rules[0].act: has no effect where activations are fp16; remove it, or use integers for activations`,
		}},
		{"quant-mixed", []string{
			`quant-mixed.bad.yaml:8: quant.act.format: weights in int8 and activations in bf16 do not go together; use integers for both, the same 16-bit float for both, or integer weights with fp16 activations`,
		}},
		{"quant-target", []string{
			`quant-target.bad.yaml:8: quant.target: "tflite" is not supported here (allowed: onnx); use onnx: its integers are those the engine runs`,
		}},
		{"quant-weight", []string{
			`quant-weight.bad.yaml:8: quant.weight.format: unknown value "int9" (allowed: int16, int8, int7, int6, int5, int4, int3, int2, binary, fp16, bf16); did you mean "int8"?`,
			`quant-weight.bad.yaml:8: quant.weight.scheme: "affine" is not supported here (allowed: symmetric, pow2); weights have zero point 0, so that no product with it is left over; use symmetric`,
			`quant-weight.bad.yaml:8: quant.weight.range: "ema" is not supported here (allowed: minmax, lsq, percentile, mse, mean, constant, tqt, dorefa, auto); it follows batches, and weights have none; use minmax or lsq`,
		}},
		{"rule-empty", []string{
			`rule-empty.bad.yaml:10: quant.rules[0]: changes nothing; give it weight: {...} or act: {...}`,
			`rule-empty.bad.yaml:11: quant.rules[1].layer: is missing (allowed: a layer's name or a pattern such as fc*)`,
			`rule-empty.bad.yaml:12: quant.rules[2].weight: is empty (allowed: format, scheme, per, range, max, levels, estimator)`,
			`rule-empty.bad.yaml:13: quant.rules[3]: is the text "fc1" where settings (key: value) belong`,
		}},
		{"rule-float", []string{
			`rule-float.bad.yaml:8: quant.rules[0].weight.format: "fp16" is not supported here (allowed: int16, int8, int7, int6, int5, int4, int3, int2, binary); one layer in 16-bit floats among integers is not supported by this version; int8 spares a sensitive layer`,
			`rule-float.bad.yaml:8: quant.rules[0].format: is not supported by this version; say of what: weight: {...}, act: {...} or both`,
		}},
		{"rule-add", []string{
			`rule-add.bad.yaml:12: quant.rules[0].weight: sum has no weights; set act, the grid of its output`,
		}},
		{"rule-logits", []string{
			`rule-logits.bad.yaml:8: quant.rules[0].act: "fc2" gives the logits, which stay float32; remove act`,
		}},
		{"rule-no-match", []string{
			`rule-no-match.bad.yaml:10: quant.rules[0].layer: "fc11" matches no layer that is quantized by itself (allowed: fc1, fc2); did you mean "fc1"?`,
			`rule-no-match.bad.yaml:11: quant.rules[1].layer: "conv*" matches no layer that is quantized by itself (allowed: fc1, fc2)`,
		}},
		{"rule-pattern", []string{
			`rule-pattern.bad.yaml:8: quant.rules[0].layer: is a pattern that cannot be read: "fc[" (allowed: * any letters, ? one letter, [abc] one of them)`,
		}},
		{"rule-shadowed", []string{
			`rule-shadowed.bad.yaml:11: quant.rules[1].layer: "fc1" never applies: rules[0] comes first and matches fc1; first match wins: put the narrower rule first`,
		}},
		{"scalar", []string{
			`scalar.bad.yaml:1: a configuration is made of key: value lines, this is the text "digits"`,
		}},
		{"schedules", []string{
			`schedules.bad.yaml:9: qat.delay: trains the float32 weights on, and quant.calibration changes them for good before that; remove delay, or equalize, bias_correction and rounding`,
			`schedules.bad.yaml:10: qat.lower: ends in integers, and the weights are in fp16; remove it, or use integer formats`,
			`schedules.bad.yaml:10: qat.lower[0].at: is 0, and quantization starts at 0.2; write at: 0.2, the value of qat.delay, or 0 without it`,
			`schedules.bad.yaml:10: qat.lower[1].at: is 0, not after 0 of the entry before`,
			`schedules.bad.yaml:10: qat.lower[2].precision: w8a4 is not narrower than w4a4 before it`,
			`schedules.bad.yaml:11: qat.bn_reestimate: has no effect: no layer has batch norm; remove it`,
			`schedules.bad.yaml:12: qat.distill: softens the labels of a cross-entropy, and train.loss is mse; use train.loss: cross_entropy, or remove it`,
			`schedules.bad.yaml:13: qat.oscillation: has no effect on weights in fp16; 16-bit floats have no codes to jump between: remove it`,
		}},
		{"schedules-values", []string{
			`schedules-values.bad.yaml:9: qat.delay: is 1 (allowed: a number at least 0, below 1)`,
			`schedules-values.bad.yaml:10: qat.ema: is 1 (allowed: a number at least 0, below 1)`,
			`schedules-values.bad.yaml:11: qat.bits: is not supported by this version; write lower: [{at: 0, precision: w8a8}, {at: 0.4, precision: w4a4}]`,
			`schedules-values.bad.yaml:12: qat.lower[0].precision: fp16 is no grid of at most 8 bits (allowed: int8 to int2, or wXaY such as w4a8)`,
			`schedules-values.bad.yaml:12: qat.lower[1].at: is missing (allowed: a number at least 0, below 1)`,
			`schedules-values.bad.yaml:12: qat.lower[1].precision: fp32 is no grid of at most 8 bits (allowed: int8 to int2, or wXaY such as w4a8)`,
			`schedules-values.bad.yaml:12: qat.lower[2].precision: is missing (allowed: int8 to int2, or wXaY such as w4a8)`,
			`schedules-values.bad.yaml:12: qat.lower[2].bits: is not supported by this version; write precision: w4a4`,
			`schedules-values.bad.yaml:13: qat.bn_reestimate: is the number 0.5 (allowed: a whole number from 0 to 1048576)`,
			`schedules-values.bad.yaml:14: qat.distill.weight: is 0 (allowed: a number above 0, at most 1)`,
			`schedules-values.bad.yaml:14: qat.distill.temperature: is 0 (allowed: a number above 0, at most 100)`,
			`schedules-values.bad.yaml:14: qat.distill.teacher: is not supported by this version; the teacher is the float32 model that the run has trained`,
			`schedules-values.bad.yaml:15: qat.oscillation.damping: is -1 (allowed: a number at least 0, at most 1000000)`,
			`schedules-values.bad.yaml:15: qat.oscillation.freeze_over: unknown key (allowed: damping, freeze_above); did you mean "freeze_above"?`,
		}},
		{"section-as-text", []string{
			`section-as-text.bad.yaml:7: train: is the text "fast" where settings (key: value) belong`,
		}},
		{"sections-missing", []string{
			`sections-missing.bad.yaml: dataset: is missing (allowed: settings such as {name: digits})`,
			`sections-missing.bad.yaml: model: is missing (allowed: a list of layers such as - dense: {units: 10})`,
			`sections-missing.bad.yaml: train: is missing (allowed: settings such as {epochs: 3})`,
		}},
		{"seed-negative", []string{
			`seed-negative.bad.yaml:8: seed: is the number -1 (allowed: a whole number from 0 to 18446744073709551615)`,
		}},
		{"syntax-bracket", []string{
			`syntax-bracket.bad.yaml:7: not valid YAML: did not find expected ',' or '}'; look for a quote or bracket that is not closed, here or above`,
		}},
		{"syntax-colon", []string{
			`syntax-colon.bad.yaml:7: not valid YAML: mapping values are not allowed in this context`,
		}},
		{"syntax-indent", []string{
			`syntax-indent.bad.yaml:9: not valid YAML: did not find expected key`,
		}},
		{"syntax-quote", []string{
			`syntax-quote.bad.yaml:8: not valid YAML: found unexpected end of stream; look for a quote or bracket that is not closed, here or above`,
		}},
		{"syntax-tab", []string{
			`syntax-tab.bad.yaml:8: not valid YAML: found character that cannot start any token; YAML indents with spaces, this line has a tab`,
		}},
		{"two-documents", []string{
			`two-documents.bad.yaml:8: a second document starts here; one file holds one configuration: remove the line --- and what follows, or make a second file of it`,
		}},
		{"unknown-key-no-hint", []string{
			`unknown-key-no-hint.bad.yaml:8: zzz: unknown key (allowed: version, name, seed, dataset, model, train, quant, qat, compare)`,
		}},
		{"unknown-key", []string{
			`unknown-key.bad.yaml:8: trian: unknown key (allowed: version, name, seed, dataset, model, train, quant, qat, compare); did you mean "train"?`,
		}},
		{"variant-setting", []string{
			`variant-setting.bad.yaml:12: compare.variants[1].name: "a" is used twice, first by variants[0]`,
			`variant-setting.bad.yaml:12: compare.variants[1].set: quant.act.range: unknown value "lsw" (allowed: minmax, ema, envelope, lsq, percentile, mse, constant, lsq+, pact, tqt, auto); did you mean "lsq"?`,
			`variant-setting.bad.yaml:12: compare.variants[1].set: qat.lr: is 0 (allowed: a number above 0, at most 10)`,
		}},
		{"variants", []string{
			`variants.bad.yaml:13: compare.variants[2].set[0]: "train.lr=1" changes more than how the network is quantized (allowed: settings of quant and qat); variants share the float model: change the config for another one`,
			`variants.bad.yaml:14: compare.variants[3].set[0]: "qat.lr" has no = (allowed: path=value); for example qat.epochs=1`,
			`variants.bad.yaml:14: compare.variants[3].methods[0]: unknown value "fp32" (allowed: ptq, qat); the rows fp32 and fp32+ are always there`,
			`variants.bad.yaml:15: compare.variants[4].set: is missing (allowed: a list such as [qat.epochs=1, quant.weight.range=lsq])`,
			`variants.bad.yaml:15: compare.variants[4].quant: is not supported by this version; write it as an assignment: set: [quant.weight.range=lsq, qat.epochs=1]`,
		}},
		{"version-missing", []string{
			`version-missing.bad.yaml: version: is missing (allowed: 1)`,
		}},
		{"version-text", []string{
			`version-text.bad.yaml:1: version: is the text "1" (allowed: 1)`,
		}},
		{"version-two", []string{
			`version-two.bad.yaml:1: version: is 2 (allowed: 1); it is the version of the file's format, not of your experiment`,
		}},
		{"whole-as-float", []string{
			`whole-as-float.bad.yaml:2: dataset.batch: is the number 8.5 (allowed: a whole number from 1 to 65536)`,
			`whole-as-float.bad.yaml:7: train.epochs: is the number 1e1 (allowed: a whole number from 1 to 1048576)`,
		}},
		{"whole-as-list", []string{
			`whole-as-list.bad.yaml:2: dataset.batch: is a list (allowed: a whole number from 1 to 65536)`,
		}},
		{"whole-as-text", []string{
			`whole-as-text.bad.yaml:2: dataset.batch: is the text "32" (allowed: a whole number from 1 to 65536); remove the quotes`,
		}},
		{"whole-out-of-range", []string{
			`whole-out-of-range.bad.yaml:2: dataset.batch: is 0 (allowed: a whole number from 1 to 65536)`,
			`whole-out-of-range.bad.yaml:2: dataset.val_fraction: is 0.9 (allowed: a number at least 0, at most 0.5)`,
			`whole-out-of-range.bad.yaml:2: dataset.limit: is -1 (allowed: a whole number from 0 to 1073741824)`,
		}},
	}
}

func TestBadFiles(t *testing.T) {
	for _, c := range badFiles() {
		t.Run(c.file, func(t *testing.T) {
			name := c.file + ".bad.yaml"
			data, err := os.ReadFile(filepath.Join("testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			_, err = configs.Parse(name, data)
			var e *configs.Errors
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want *Errors", err)
			}
			var got []string
			for _, p := range e.Problems {
				got = append(got, p.String())
				if !strings.Contains(err.Error(), p.String()) {
					t.Errorf("Error() leaves out %q", p)
				}
				if p.Line > 0 && p.Excerpt() == "" {
					t.Errorf("%s: no excerpt", p)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// TestBadFilesListed keeps a file from lying in testdata unread.
func TestBadFilesListed(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, c := range badFiles() {
		listed[c.file] = true
	}
	for _, f := range files {
		if !listed[strings.TrimSuffix(filepath.Base(f), ".bad.yaml")] {
			t.Errorf("%s is not in the table", f)
		}
	}
}
