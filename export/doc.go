// Package export proves that what was trained is what is shipped. Its [Verify] runs the same examples through the
// training framework's graphs, the integer engine and an independent interpreter of the exported ONNX file, and compares
// every tensor code by code. The writers themselves are in export/onnx and export/safetensors.
package export
