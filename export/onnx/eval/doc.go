// Package eval is an independent interpreter of ONNX files: the second opinion that an exported network is held to.
//
// It shares no arithmetic with the rest of the module. It imports the wire format and the standard library, takes every
// scale, zero point and limit from the file, and computes in plain loops. It has two readings of the same file:
//
//	Float    each operator by itself, as the ONNX standard defines it: reals in float64, rounded to the element type
//	         after each operator. A DequantizeLinear makes reals and a QuantizeLinear rounds them back.
//	Integer  each group DequantizeLinear -> operator -> [Relu] -> QuantizeLinear as the integer arithmetic that it stands
//	         for (docs/arithmetic.md, class I): codes in, codes out.
//
// Letters: q code, s scale, z zero point, lo and hi the limits of the code's type, x, w, b, y input, weight, bias and
// output, c output channel, f32 rounding to float32. The integer reading of a convolution or matrix product is
//
//	acc  = q_b[c] + sum (q_x - z_x) * (q_w - z_w)                  int64, an error outside int32
//	M[c] = f32(f32(s_x * s_w[c]) / s_y)
//	q_y  = rint(clamp(f32(f32(acc) * M[c]), lo - z_y, hi - z_y)) + z_y   half to even; Relu: lo = max(lo, z_y)
//
// and without a QuantizeLinear behind it the result is the real f32(acc) * f32(s_x * s_w[c]). Pools, reshapes and
// transposes act on the codes. A narrower grid than the type's is a Clip on the codes, which is an operator like any
// other. A group that has no such reading is an error that names the node and says why: the reading never falls back
// to real arithmetic.
//
// Activations are as in the file: N, C, H, W for images, N, C for vectors, row-major. The batch size is free.
package eval
