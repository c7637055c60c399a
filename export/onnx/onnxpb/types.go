package onnxpb

import "fmt"

// DataType is TensorProto.DataType.
type DataType int32

// The element types of onnx.proto3.
const (
	Undefined      DataType = 0
	Float          DataType = 1
	Uint8          DataType = 2
	Int8           DataType = 3
	Uint16         DataType = 4
	Int16          DataType = 5
	Int32          DataType = 6
	Int64          DataType = 7
	String         DataType = 8
	Bool           DataType = 9
	Float16        DataType = 10
	Double         DataType = 11
	Uint32         DataType = 12
	Uint64         DataType = 13
	Complex64      DataType = 14
	Complex128     DataType = 15
	BFloat16       DataType = 16
	Float8E4M3FN   DataType = 17
	Float8E4M3FNUZ DataType = 18
	Float8E5M2     DataType = 19
	Float8E5M2FNUZ DataType = 20
	Uint4          DataType = 21
	Int4           DataType = 22
	Float4E2M1     DataType = 23
	Float8E8M0     DataType = 24
	Uint2          DataType = 25
	Int2           DataType = 26
)

// String gives the ONNX name in lower case, as the conformance files spell it.
func (d DataType) String() string {
	switch d {
	case Undefined:
		return "undefined"
	case Float:
		return "float"
	case Uint8:
		return "uint8"
	case Int8:
		return "int8"
	case Uint16:
		return "uint16"
	case Int16:
		return "int16"
	case Int32:
		return "int32"
	case Int64:
		return "int64"
	case String:
		return "string"
	case Bool:
		return "bool"
	case Float16:
		return "float16"
	case Double:
		return "double"
	case Uint32:
		return "uint32"
	case Uint64:
		return "uint64"
	case Complex64:
		return "complex64"
	case Complex128:
		return "complex128"
	case BFloat16:
		return "bfloat16"
	case Float8E4M3FN:
		return "float8e4m3fn"
	case Float8E4M3FNUZ:
		return "float8e4m3fnuz"
	case Float8E5M2:
		return "float8e5m2"
	case Float8E5M2FNUZ:
		return "float8e5m2fnuz"
	case Uint4:
		return "uint4"
	case Int4:
		return "int4"
	case Float4E2M1:
		return "float4e2m1"
	case Float8E8M0:
		return "float8e8m0"
	case Uint2:
		return "uint2"
	case Int2:
		return "int2"
	}
	return fmt.Sprintf("datatype(%d)", int32(d))
}

// Bits is the storage width of one element in raw data, 0 for types that have none (strings, undefined).
func (d DataType) Bits() int {
	switch d {
	case Uint2, Int2:
		return 2
	case Uint4, Int4, Float4E2M1:
		return 4
	case Uint8, Int8, Bool, Float8E4M3FN, Float8E4M3FNUZ, Float8E5M2, Float8E5M2FNUZ, Float8E8M0:
		return 8
	case Uint16, Int16, Float16, BFloat16:
		return 16
	case Float, Int32, Uint32:
		return 32
	case Double, Int64, Uint64, Complex64:
		return 64
	case Complex128:
		return 128
	}
	return 0
}

// IntRange gives the least and greatest value of an integer type of at most 32 bits, and false for every other type.
func (d DataType) IntRange() (lo, hi int64, ok bool) {
	switch d {
	case Uint2:
		return 0, 3, true
	case Int2:
		return -2, 1, true
	case Uint4:
		return 0, 15, true
	case Int4:
		return -8, 7, true
	case Uint8:
		return 0, 255, true
	case Int8:
		return -128, 127, true
	case Uint16:
		return 0, 65535, true
	case Int16:
		return -32768, 32767, true
	case Int32:
		return -1 << 31, 1<<31 - 1, true
	case Uint32:
		return 0, 1<<32 - 1, true
	}
	return 0, 0, false
}

// Model is ModelProto.
type Model struct {
	IRVersion       int64
	ProducerName    string
	ProducerVersion string
	Domain          string
	ModelVersion    int64
	Doc             string
	Graph           *Graph
	Opsets          []Opset
	Metadata        []Prop

	unknown []byte
}

// Opset is OperatorSetIdProto. The domain "" is ai.onnx.
type Opset struct {
	Domain  string
	Version int64

	emptyDomain bool // the file spells out domain ""
	unknown     []byte
}

// Prop is StringStringEntryProto.
type Prop struct {
	Key, Value string

	unknown []byte
}

// Graph is GraphProto.
type Graph struct {
	Nodes        []*Node
	Name         string
	Initializers []*Tensor
	Doc          string
	Inputs       []*ValueInfo
	Outputs      []*ValueInfo
	ValueInfos   []*ValueInfo

	unknown []byte
}

// Node is NodeProto.
type Node struct {
	Inputs  []string
	Outputs []string
	Name    string
	Op      string
	Attrs   []*Attribute
	Doc     string
	Domain  string

	unknown []byte
}

// Attr returns the attribute of that name, or nil.
func (n *Node) Attr(name string) *Attribute {
	for _, a := range n.Attrs {
		if a.Name == name {
			return a
		}
	}
	return nil
}

// AttrType is AttributeProto.AttributeType.
type AttrType int32

// The attribute types of onnx.proto3.
const (
	AttrUndefined AttrType = 0
	AttrFloat     AttrType = 1
	AttrInt       AttrType = 2
	AttrString    AttrType = 3
	AttrTensor    AttrType = 4
	AttrGraph     AttrType = 5
	AttrFloats    AttrType = 6
	AttrInts      AttrType = 7
	AttrStrings   AttrType = 8
	AttrTensors   AttrType = 9
	AttrGraphs    AttrType = 10
)

// Attribute is AttributeProto: Type says which of the value fields is meant.
type Attribute struct {
	Name    string
	Type    AttrType
	Float   float32
	Int     int64
	Bytes   []byte // AttrString
	Tensor  *Tensor
	Graph   *Graph
	Floats  []float32
	Ints    []int64
	Strings [][]byte
	Tensors []*Tensor
	Graphs  []*Graph
	Doc     string

	unknown []byte
}

// IntAttr, IntsAttr, FloatAttr, StringAttr and TensorAttr build attributes for a writer.
func IntAttr(name string, v int64) *Attribute { return &Attribute{Name: name, Type: AttrInt, Int: v} }

// IntsAttr builds a list attribute.
func IntsAttr(name string, v ...int64) *Attribute {
	return &Attribute{Name: name, Type: AttrInts, Ints: v}
}

// FloatAttr builds a float attribute.
func FloatAttr(name string, v float32) *Attribute {
	return &Attribute{Name: name, Type: AttrFloat, Float: v}
}

// StringAttr builds a string attribute.
func StringAttr(name, v string) *Attribute {
	return &Attribute{Name: name, Type: AttrString, Bytes: []byte(v)}
}

// TensorAttr builds a tensor attribute.
func TensorAttr(name string, t *Tensor) *Attribute {
	return &Attribute{Name: name, Type: AttrTensor, Tensor: t}
}

// ValueInfo is ValueInfoProto. Type is nil when the file does not say it.
type ValueInfo struct {
	Name string
	Type *Type
	Doc  string

	unknown []byte
}

// Type is TypeProto restricted to dense tensors: Elem is Undefined for a sequence, map, optional or sparse type, whose
// bytes are kept and written back.
type Type struct {
	Elem  DataType
	Shape *Shape // nil: unknown rank

	tensor        bool // a tensor_type field is present
	unknown       []byte
	unknownTensor []byte
}

// TensorType describes a dense tensor; a nil shape means unknown rank.
func TensorType(elem DataType, shape *Shape) *Type {
	return &Type{Elem: elem, Shape: shape, tensor: true}
}

// Shape is TensorShapeProto.
type Shape struct {
	Dims []Dim

	unknown []byte
}

// Dim is one dimension: a value, or a symbol when Param is not empty, or neither (unknown).
type Dim struct {
	Value    int64
	HasValue bool
	Param    string

	unknown []byte
}

// FixedDim and SymbolicDim build dimensions.
func FixedDim(n int64) Dim { return Dim{Value: n, HasValue: true} }

// SymbolicDim builds a dimension known by name only, such as the batch "N".
func SymbolicDim(name string) Dim { return Dim{Param: name} }

// Tensor is TensorProto. The elements are in Raw, or in the one typed field that its Type uses.
type Tensor struct {
	Name    string
	Type    DataType
	Dims    []int64
	Floats  []float32 // Float, Complex64
	Int32s  []int32   // integers of at most 32 bits, Bool, and the bits of Float16, BFloat16, float8
	Strings [][]byte
	Int64s  []int64
	Raw     []byte
	Doubles []float64
	Uint64s []uint64
	Doc     string

	// External is true when the elements are in another file (data_location); such a tensor has no elements here.
	External bool

	hasRaw  bool
	unknown []byte
}
