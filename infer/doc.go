// Package infer compiles a model and runs it: the deployed arithmetic, for Go services, calibration and scoring. It has no
// state but its engines and does not use Gorgonia.
//
//	e, err := infer.Load("model.narrow", infer.Options{})
//	err = e.Run(logits, pixels, n) // n images of bytes
//	class := infer.ArgMax(logits)
//
// # Letters and shapes
//
//	x       [n, InputSize] bytes, NHWC without padding: the codes of the model's input
//	logits  [n, Classes] float32
//	q, z, s code, zero point and scale of a tensor; its value is s*(q-z)
//	acc     int32 accumulator of a conv or dense layer; M its multiplier per output channel
//
// # Arithmetic
//
// Integer layers (docs/arithmetic.md), in this order and without a fused multiply-add:
//
//	acc = q_b[c] + sum (q_x - z_x) * q_w            cells outside the image hold z_x
//	q_y = int32(rint(clamp(float32(acc)*M[c], lo-z_y, hi-z_y))) + z_y
//	y   = float32(acc)*M[c], max(y, 0) with ReLU     the last layer
//
// An addition gives rq(float32((qa-za)*Ma) + float32((qb-zb)*Mb)), a global average rq(float32(sum (q-z))*M), with rq the
// clamp and rounding above. ReLU and ReLU6 are the limits lo and hi. Max-pool takes the largest code, a ReLU of its own
// limits codes, flatten is the same memory under another shape. Codes and logits of an integer model are the same on every CPU, for every number of workers and every cut into batches.
//
// Float layers compute v = sum x*w in float32, then v + bias, or float32(mul*v) + add for batch norm, then ReLU; a mean
// adds the cells in row order and divides once. In fp16
// and bf16 models the input and every stored result are rounded to 16 bits. Results are the same for every number of
// workers and every cut, within one instruction tier.
//
// # What is planned when
//
// [Compile] packs the weights, folds the input's zero point into the bias (sum (q-z)*w = sum q*w - z*sum w) and places the
// tensors of one pass in as few buffers as their lifetimes allow. A call of [Engine.Run] takes a set of buffers from a free
// list, so that calls may overlap and, once warm, allocate nothing.
package infer
