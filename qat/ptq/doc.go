// Package ptq turns a trained float model into a quantized one without training: calibration and post-training
// quantization. It runs the float engine over a sample of the training examples, looks at the values every quantizer
// will see (after batch norm and ReLU, where those are fused), and chooses scales and zero points from them.
//
// # Letters
//
//	x           values of one tensor over the calibration examples    a = max|x|
//	[m, M]      the range that is chosen                               s, z  scale and zero point, quant.Spec.Choose(m, M)
//	n           number of values                                       p     percentile, 99.99 unless told otherwise
//
// # Methods
//
//	minmax      [m, M] = [min x, max x]. Nothing is clipped. Best where outliers are rare and bits are many.
//	percentile  [m, M] clips at most a share 1-p/100 of the values: all of it at the far end of a tensor with one sign, half
//	            at each end of a tensor with both. ModelOpt and ONNX Runtime use the same 99.99.
//	mse         [m, M] = f*[min x, max x] with the f in {1, 0.99, ..., 0.06} that makes the sum of squared errors of
//	            quantizing x smallest; of equals, the largest. This is the grid search of MQBench (definition D8 of
//	            docs/arithmetic.md).
//	kl          [-a, a], or [0, a], whose a makes the Kullback-Leibler divergence of the clipped histogram from itself on
//	            the levels of the grid smallest, as in ModelOpt (D8).
//	histogram   the range is narrowed from the end that covers more bins for the same share of the values, while the squared
//	            error falls: PyTorch's search (D8). [HistogramObserver] is its whole observer, for comparison.
//	auto        minmax, percentile, mse and kl; the one with the best accuracy on the validation split wins. [Quantize] only.
//
// kl is at its best with few bits; at 8 bits it may keep a range that costs more than it shows. auto takes it where it wins.
//
// A Spec may name its own method: activations whose range method is minmax, percentile or mse use that one, whatever
// [Options] says; the range methods of training (ema, envelope, lsq) take the method of [Options].
//
// # Weights
//
// Weights need no examples. With method mse, or with a Spec that says mse, each channel (or the tensor) gets the scale of
// the same grid search on its own weights, and the Spec's range method becomes mse so that model.CodeWeights uses it. With
// a Spec that says percentile, |w| is clipped. LSQ weights start from what the method would give a weight that is not
// learned, the mse scale or absmax, rather than from the paper's 2*mean|w|/sqrt(Qp) (arXiv:1902.08153): QAT starts where PTQ
// ended. Everything else is absmax of the master, as in training.
//
// # Passes
//
// Around calibration [Quantize] runs, as [Options] say:
//
//	Equalize      before: scales of neighbouring layers' channels are balanced; the float function stays the same
//	RoundWeights  after: weight codes that keep each layer's output, not each weight (AdaRound or GPTQ)
//	CorrectBias   last: the mean shift that is left in each layer's output goes into its bias or beta
//
// Each is a function of its own as well, from model to model. All of them are float masters at work: a pass changes the
// masters (in a copy), and model.Freeze makes of them what it makes of any master. Quantization-aware training starts from
// the changed masters, so it starts where post-training quantization ended. A pass that cannot apply is an error, see
// [Options.Check]; it is never left out in silence.
//
// AdaRound takes about a second for a layer of ten thousand weights, GPTQ less. AdaRound looks at the output behind the ReLU
// and can only move a weight to a neighbouring code; GPTQ looks at the product and moves a weight as far as it must.
// Neither changes the size or the speed of the model.
//
// # 16-bit floats
//
// FP16 and BF16 have nothing to calibrate. The examples are run all the same, in the quantized engine, since a value that
// overflows must be reported before anyone relies on the model.
//
// # Memory and determinism
//
// Values are not kept. Each tensor has one histogram whose bin width is a power of two: when a value does not fit, pairs of
// bins merge, which is exact, so the histogram depends on the set of values alone and not on their order, the batch size or
// the number of workers. There are between 4096 and 8192 bins from 0 to a (2048 on both sides together is customary).
//
// The passes keep at most 8192 positions of one layer at a time, no more than 256 MiB of inputs, drawn by seed. Their work is
// cut into fixed shards: same seed and instruction tier, same masters.
package ptq
