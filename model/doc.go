// Package model is the one description of a network: plain data and passes from model to model. The Gorgonia graph, the
// integer engine, the exporters and the cost tables are all walks over a [Model]; none of them adds to its meaning.
//
// # Stages
//
//	Float      float32 masters                                   training, FP32 inference, calibration
//	Quantized  Float plus a quant.Params for every tensor        quantization-aware training, post-training quantization
//	Frozen     integer codes, int32 biases, multipliers, limits  the engine, model.narrow, exporters
//
// # Passes
//
//	Shapes -> Fuse (conv or dense + batch norm + ReLU, add + ReLU) -> Place (specs by rule) -> Share (equal-scale tensors)
//	-> Check (bounds, target) -> Freeze
//
// Passes return a new Model and leave their argument alone; they share the float32 masters, which [Model.Clone] copies.
// [Freeze] alone computes what a deployed model needs; the functions it uses ([CodeWeights], [Affine.Fold],
// [NewRequant] and its kin) are the ones that quantization-aware training runs at every step, so both see the same
// codes, scales and biases.
//
// # Layout
//
// Shapes leave out the batch axis. Activations are NHWC, convolution weights [KH, KW, Cin, Cout], dense weights
// [In, Out]; the channel is always the last axis. A node's name is the name of its one output tensor; the parameters of
// layer c1 are c1.weight, c1.bias, c1.gamma, c1.beta, c1.mean, c1.var.
package model
