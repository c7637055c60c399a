// Package layers builds the Gorgonia graph of a model: float or quantized, for training or for evaluation.
//
// [Build] walks a fused model once and makes each layer's parts nodes of their own:
//
//	bytes -> input -> conv or dense -> batch norm -> ReLU -> quantizer of the activation -> next layer
//	                        ^
//	          master -> quantizer of the weight
//
// The same ops serve both kinds of model. On float edges they compute in float32; on [qat.Codes] they compute on the
// integers: codes in, accumulators ([qat.Acc], or [qat.Sum] behind an addition) between the parts of a layer, codes out. An evaluation graph gives the
// integers that model.Freeze and the engine give, and so does the forward of a training graph once batch norm is frozen.
// Gradients are float32, taken at the values that the integers stand for.
//
// # Shapes
//
// N is the batch; activations are [N, H, W, C] or [N, C], weights [KH, KW, Cin/Groups, Cout] or [In, Out].
//
// # Batches
//
// A graph has a fixed batch size B. [Net.Run] takes any number of rows up to B: every op computes the rows in use and
// leaves the rest alone, so batch norm, observers and the loss see exactly the examples that are there.
//
// # Determinism
//
// Ops cut their work into shards that depend on the shapes alone and add partial sums in shard order: results are the
// same to the bit for any number of workers.
//
// # Batch norm
//
// While it trains: batch statistics, mean first, then squared deviations (arXiv:1502.03167); the running variance is the
// unbiased one, r += momentum*(batch - r), as in PyTorch. A layer's bias is added to the running mean, where it cancels.
// Frozen, or in an evaluation graph, it is the affine map that model.Affine gives.
package layers
