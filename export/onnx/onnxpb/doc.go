// Package onnxpb reads and writes the ONNX protobuf messages, without generated code.
//
// A file is one ModelProto. The messages kept as Go types are the ones a quantized network is made of:
//
//	Model      ModelProto: ir version, opsets, one graph, metadata
//	Graph      GraphProto: nodes in topological order, initializers, inputs, outputs
//	Node       NodeProto: one operator call; "" in Inputs is an omitted optional argument
//	Attribute  AttributeProto: a named constant of a node
//	Tensor     TensorProto: a named array; its elements are in Raw or in one of the typed fields
//	ValueInfo  ValueInfoProto: the declared type of a named value
//
// Field numbers are those of onnx/onnx.proto3 (onnx 1.22). Fields that have no Go counterpart here (functions,
// training information, sharding, sequence types, ...) are kept as bytes and written back after the known ones, so that
// reading and writing a file loses nothing.
//
// Marshal is deterministic: fields go out in ascending order of their number, lists in their own order. Unmarshal
// checks every length against the bytes at hand before it allocates, and bounds the nesting of subgraphs.
//
// The element codecs follow the ONNX rules: little-endian raw data, IEEE binary16 and bfloat16 with round half to
// even, and 4-bit (2-bit) integers packed low nibble (low pair) first with the tail of the last byte zero.
package onnxpb
