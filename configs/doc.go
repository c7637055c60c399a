// Package configs reads Narrow's YAML: strictly, with every problem at its line, into plain Go values and a
// [model.Model].
//
// # Loading
//
// [Load] reads a file, [Preset] a configuration inside the program, [Open] whichever of the two a name means. All of
// them, and [Parse], take assignments "path=value" as the command line's --set gives them; they are applied before
// anything is checked, and a problem in one names it. What comes back is complete: every default is filled in, and
// [Config.Marshal] writes it out, so that a run folder never depends on the defaults of another version.
//
// Nothing is ignored. Unknown and repeated keys, keys without a value, 8.5 where a whole number belongs, a second
// document, a setting that its neighbours make meaningless (momentum for Adam), a rule that matches no layer: each is a
// [Problem], and all of them are returned at once in an [*Errors].
//
// # Units
//
//	epochs                    passes over the training examples; in qat: a fraction is allowed (0.5)
//	steps                     one batch each; warmup_steps counts them
//	freeze_*_after            a fraction of all QAT steps, 0 = from the first step, 1 = never
//	lr, scale_lr              learning rate of weights, and of learned quantization scales (range: lsq);
//	                          with scale_step log, of their logarithms
//	pad                       same | valid | p | [top, left, bottom, right]
//
// pad "same" adds kernel-1 cells along each axis, (kernel-1)/2 of them before, so that a stride of s gives
// ceil(extent/s) positions whatever the extent; with an odd kernel it is PyTorch's padding=kernel/2.
//
// # Grids
//
// levels of a weight: narrow, symmetric around 0, or even, as many levels on both sides of 0, which is none itself. Levels of
// an activation: full, or narrow with scheme symmetric. format: binary has two levels, -s and s: for weights s is the mean of
// the magnitudes (range: mean), learned (lsq) or max (constant); activations are signs times max, 1 by default, and follow
// layers without act. estimator is what stands for the derivative of the sign: clipped, approx-sign or swish-sign.
// quant.input: act gives the model's input the grid of activations, whose range must then be constant.
//
// # Recipes from scratch
//
// qat.start: scratch trains quantized from random weights; train: then serves fp32 alone. train.init_range, weight_clip and
// loss apply to all phases. train.track_test scores the test split after every epoch, which steers nothing.
//
// # Branches
//
// A layer reads the layer before it, or the one that its `from` names: any layer above it, or input, the model's input.
// `add: {from: [a, b], act: relu}` is the sum of two of one shape, and ends a residual block; `gap: {}` is the mean over
// height and width. A layer that nothing reads is a problem.
//
// groups: depthwise of a conv gives each input channel one filter: filters then is the number of input channels. A number
// of groups cuts the channels into as many independent convolutions.
//
// # Defaults
//
//	name            the file's name                seed             1
//	dataset         batch 64, val_fraction 0.1, limit 0 (all examples)
//	conv            stride 1, pad same, groups 1, bias unless there is a norm; norm: eps 0.00001, momentum 0.1
//	dense           bias unless there is a norm
//	from            the layer before; relu: no cap (6 is ReLU6)
//	conv, dense     no dropout; norm: tensor (dense) is batch norm with one statistic for the whole tensor
//	maxpool         stride = size, pad valid
//	train           optimizer adam, lr 0.001 (sgd 0.01), schedule constant, loss cross_entropy; epochs must be given
//	                adam, adamw: beta1 0.9, beta2 0.999, eps 0.00000001; adamw: weight_decay 0.01; sgd: momentum 0.9
//	                schedule step: step_every 1 (epoch), step_gamma 0.1; cosine: min_lr 0
//	quant           weights int8 symmetric per channel; activations int8 affine per tensor; target onnx; range auto: in
//	                training, learned scales (lsq) below 8 bits, and at 8 bits minmax for weights and envelope for
//	                activations; 2-bit weights that are trained on have even levels, all others narrow ones (docs/guide.md
//	                has the table that decided it)
//	                calibration on 1024 examples by auto, the best of minmax, percentile, mse and kl on the
//	                validation split (minmax where val_fraction is 0); percentile 99.99; equalize and
//	                bias_correction false, rounding nearest
//	qat             start ptq, epochs 1, lr half of train's, scale_step log, scale_lr as lr (a tenth of it with
//	                scale_step linear), scale_gradient lsq, the optimizer of train with its constants,
//	                schedule cosine, freeze_ranges_after 0.8, freeze_bn_after 0.5, backward float, fuse true
//	compare         precisions fp32 and int8, methods ptq (and qat where the section is there), seeds 3
//
// Sources: Adam's constants arXiv:1412.6980; decoupled weight decay arXiv:1711.05101; LSQ arXiv:1902.08153; freezing of
// batch norm statistics and ranges near the end of QAT arXiv:1806.08342 section 3.
package configs
