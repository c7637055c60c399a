package quant

import "fmt"

// Target names the arithmetic a model is quantized for: its requantization scheme and which tensors must share scales.
type Target uint8

// ONNX is the arithmetic of docs/arithmetic.md: float32 multiplier, halves to even, per-channel weights, bias in the
// accumulator. It is what ONNX QLinearConv means and what the engine runs.
const ONNX Target = 1

func (t Target) String() string {
	if t == ONNX {
		return "onnx"
	}
	return fmt.Sprintf("Target(%d)", uint8(t))
}

// ParseTarget reads a target name.
func ParseTarget(s string) (Target, error) {
	if s == "onnx" {
		return ONNX, nil
	}
	return 0, fmt.Errorf("unknown target %q (allowed: onnx)", s)
}
