// Package quant defines what "quantized" means in Narrow: number formats, integer grids, scales, rounding and
// requantization. It has no state and no dependency but x448/float16; every other package takes its arithmetic from here.
//
// # Letters
//
//	x      a real value (float32)          q      its integer code
//	s      scale, a positive float32       z      zero point, an integer code
//	lo, hi the limits of the code grid     M      requantization multiplier
//
// # Definitions
//
//	quantize    q = clamp(rint(x / s) + z, lo, hi)        true division, halves to even (ONNX QuantizeLinear)
//	dequantize  x = s * (q - z)
//	requantize  q = int32(rint(clamp(float32(acc) * M[c], lo-z, hi-z))) + z
//
// NaN is an error ([NaNError]); ±Inf saturates. There is no fused multiply-add anywhere: [Mul32] keeps Go from making
// one, so the same inputs give the same codes on every CPU.
//
// A [Spec] is one comparable value that says how one tensor is quantized; a [Params] is a Spec with its scales and zero
// points. Activation codes are unsigned in memory (int8 targets are the same codes and zero point minus 128), weight
// codes are signed, narrow and have zero point 0. Channels are always the last axis of a tensor.
//
// Sources: ONNX operator specification (QuantizeLinear, DequantizeLinear, QLinearConv); Jacob et al. 2018
// (arXiv:1712.05877); Esser et al. 2020 (LSQ, arXiv:1902.08153).
package quant
