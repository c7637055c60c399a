// Package onnx writes Frozen models as ONNX files.
//
// An integer model becomes a QDQ file (QuantizeLinear and DequantizeLinear around ordinary operators), the form that
// ONNX Runtime, TensorRT and OpenVINO read and fuse into integer kernels. The file means, group by group, exactly the
// arithmetic of docs/arithmetic.md; export/onnx/eval reads it back as integers to prove that.
//
//	input   float32 [N, C, H, W] or [N, F], N free -> QuantizeLinear to uint8
//	conv    int8 weights [O, I, KH, KW], dense int8 weights [Out, In]: both DequantizeLinear along axis 0, zero point 0
//	bias    int32 codes with scale f32(s_x * s_w[c]), through DequantizeLinear
//	output  QuantizeLinear to uint8, then Clip(lo, hi) on the codes wherever uint8 saturation does not give the limits
//	add     Add of two dequantized tensors, QuantizeLinear; gap: GlobalAveragePool, QuantizeLinear, Flatten of the codes
//	logits  float32, no QuantizeLinear behind the last layer
//
// ReLU needs no operator of its own: it is the lower limit lo = z, which saturation gives when z is 0 and the Clip
// otherwise. ReLU6 is an upper limit too, always a Clip unless the grid ends there. Limits are never put before the QuantizeLinear: ONNX Runtime then leaves the layer in float.
//
// The codes of model tensor c1 are ONNX tensor c1. Helper tensors have the suffixes _dq (dequantized), _acc (before
// rounding), _wide (before a Clip), _pooled (before a Flatten), _lo, _hi, _min, _max (limits), _real; their scales and zero points _scale and _zero.
//
// Layout: Narrow keeps images as N, H, W, C, ONNX as N, C, H, W. Weights are rearranged, and a dense layer behind a
// flatten gets its rows in the order c, h, w ([channelsFirstRows]). Tensors of one axis per example stay as they are.
//
// A float model is written operator by operator. 16-bit models keep 16-bit weights, and round where Narrow rounds: at
// every stored tensor, by a Cast to the 16-bit type and back.
package onnx
