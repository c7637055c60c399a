package onnx

import (
	"errors"
	"fmt"
)

// Preset names the consumer that a file is written for.
type Preset string

// ORTx64 is ONNX Runtime on x86-64 with VNNI: uint8 activations, int8 weights over their full range.
const ORTx64 Preset = "ort-x64"

// ErrPreset is wrapped by the error about a preset that this version does not write.
var ErrPreset = errors.New("preset is not supported by this version")

// ParsePreset reads a preset's name; "" is the default, [ORTx64].
func ParsePreset(name string) (Preset, error) {
	switch Preset(name) {
	case "", ORTx64:
		return ORTx64, nil
	case "ort-x64-novnni":
		return "", fmt.Errorf("%q: %w: without VNNI, pair sums of 8-bit weights saturate; export with %s and set ONNX Runtime's session option session.x64quantprecision to 1, or train with weight format int7", name, ErrPreset, ORTx64)
	case "arm", "tensorrt":
		return "", fmt.Errorf("%q: %w: it needs int8 activations; %s files also run there through ONNX Runtime", name, ErrPreset, ORTx64)
	case "qoperator":
		return "", fmt.Errorf("%q: %w: write QDQ with %s, and let ONNX Runtime save the optimized graph", name, ErrPreset, ORTx64)
	}
	return "", fmt.Errorf("%q: %w (allowed: %s)", name, ErrPreset, ORTx64)
}

// Options are the choices of a file. The zero value is the default.
type Options struct {
	Preset Preset // "" is ORTx64

	// PackInt4 stores weights of at most 4 bits as ONNX int4, which halves their bytes. It needs opset 21, and ONNX
	// Runtime then computes those layers in float. By default narrow weights are stored as int8, which it fuses.
	PackInt4 bool
}
