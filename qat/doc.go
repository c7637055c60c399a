// Package qat is quantization inside a Gorgonia graph: nodes that quantize weights, activations and inputs, their
// straight-through and learned-scale gradients, and the ranges they follow.
//
// # Letters
//
//	x, w   real values            q      integer code            s, z   scale, zero point
//	acc    int32 accumulator      sx     scale of a layer's input codes
//	S[c]   weight scale of output channel c, so that acc stands for acc*sx*S[c]
//	lo, hi limits of the grid     t      a value in units of the output scale, before rounding
//	N      rows of the batch that hold examples; [Step] carries it to every op
//
// # Two forms
//
// In the networks that package layers builds, a quantizing node gives codes and the layers between compute on integers:
//
//	master -> QuantizeWeight -> codes ┐
//	                                  ├-> accumulators -> batch norm -> ReLU -> QuantizeAct -> codes -> ...
//	bytes  -> QuantizeInput  -> codes ┘
//
// The edges carry [Codes] and [Acc], which are Gorgonia values with float32 gradients. Their arithmetic is that of
// docs/arithmetic.md and of package model, whose functions are called here at every step, so a trained network and the
// engine give the same integers.
//
// In a model written by hand with Gorgonia's own ops, [FakeQuant] gives x rounded to its grid, as a float tensor.
//
// # Gradients
//
// Rounding has derivative zero almost everywhere; the straight-through estimator (arXiv:1308.3432) takes it as 1 where
// the rounded value is on the grid and as 0 where it was clamped:
//
//	dx = dy * [lo-z <= rint(t) <= hi-z]          on the rounded value and before the clamp
//
// A learned scale (LSQ, arXiv:1902.08153) gets
//
//	ds = g * sum dy * { lo-z below, hi-z above, rint(t)-t inside },      g = 1/sqrt(n*hi)
//
// with n the weights that share the scale, or the elements of one example. The other methods that learn a range (lsq+, pact,
// tqt) have the same mask and sums of their own: the table is in docs/arithmetic.md, the numbers are quant.Range.Learned. The upper limit of a fused ReLU6 acts where it
// changed the code: there dx = 0, and t is cap/s.
//
// # Ranges are delayed
//
// Step t quantizes with the range known after step t-1 and updates it afterwards. Only so can an accumulator be turned
// into codes in one pass, and only so is the scale of a layer's input known before the layer runs.
package qat
