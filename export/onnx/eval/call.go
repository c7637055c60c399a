package eval

import (
	"fmt"

	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

// operator computes a node's outputs from its inputs.
type operator func(c *call) ([]Tensor, error)

// call is one execution of a node.
type call struct {
	node  *onnxpb.Node
	opset int64
	in    []*Tensor // nil: omitted
}

// arg returns a required input.
func (c *call) arg(i int) (*Tensor, error) {
	if i >= len(c.in) || c.in[i] == nil {
		return nil, fmt.Errorf("%w: input %d is missing", ErrModel, i)
	}
	return c.in[i], nil
}

// optional returns an input or nil.
func (c *call) optional(i int) *Tensor {
	if i >= len(c.in) {
		return nil
	}
	return c.in[i]
}

// reals returns a required real input.
func (c *call) reals(i int) (*Tensor, error) {
	t, err := c.arg(i)
	if err == nil && !t.IsReal() {
		err = fmt.Errorf("%w: input %d is %v, want reals", ErrModel, i, t.Type)
	}
	return t, err
}

// codes returns a required integer input.
func (c *call) codes(i int) (*Tensor, error) {
	t, err := c.arg(i)
	if err == nil && t.IsReal() {
		err = fmt.Errorf("%w: input %d is %v, want integers", ErrModel, i, t.Type)
	}
	return t, err
}

// list returns an optional integer list given as input i or, in older opsets, as an attribute.
func (c *call) list(i int, attr string) ([]int64, bool, error) {
	if t := c.optional(i); t != nil {
		if t.IsReal() || len(t.Shape) > 1 {
			return nil, false, fmt.Errorf("%w: input %d is %v%v, want a list of integers", ErrModel, i, t.Type, t.Shape)
		}
		return t.Ints, true, nil
	}
	v, ok := c.ints(attr)
	return v, ok, nil
}

func (c *call) int(name string, def int64) int64 {
	if a := c.node.Attr(name); a != nil && a.Type == onnxpb.AttrInt {
		return a.Int
	}
	return def
}

func (c *call) float(name string, def float32) float64 {
	if a := c.node.Attr(name); a != nil && a.Type == onnxpb.AttrFloat {
		return float64(a.Float)
	}
	return float64(def)
}

func (c *call) str(name, def string) string {
	if a := c.node.Attr(name); a != nil && a.Type == onnxpb.AttrString {
		return string(a.Bytes)
	}
	return def
}

func (c *call) ints(name string) ([]int64, bool) {
	if a := c.node.Attr(name); a != nil && a.Type == onnxpb.AttrInts {
		return a.Ints, true
	}
	return nil, false
}

func one(t Tensor, err error) ([]Tensor, error) {
	if err != nil {
		return nil, err
	}
	return []Tensor{t}, nil
}

// lookup finds the operator of a node in the domain ai.onnx.
func lookup(n *onnxpb.Node) (operator, error) {
	if n.Domain != "" && n.Domain != "ai.onnx" {
		return nil, fmt.Errorf("%w: domain %q", ErrUnsupported, n.Domain)
	}
	switch n.Op {
	case "QuantizeLinear":
		return quantizeLinear, nil
	case "DequantizeLinear":
		return dequantizeLinear, nil
	case "DynamicQuantizeLinear":
		return dynamicQuantizeLinear, nil
	case "QLinearConv":
		return qlinearConv, nil
	case "QLinearMatMul":
		return qlinearMatMul, nil
	case "ConvInteger":
		return convInteger, nil
	case "MatMulInteger":
		return matMulInteger, nil
	case "Conv":
		return conv, nil
	case "Gemm":
		return gemm, nil
	case "MatMul":
		return matMul, nil
	case "BatchNormalization":
		return batchNormalization, nil
	case "MaxPool":
		return maxPool, nil
	case "AveragePool":
		return averagePool, nil
	case "GlobalAveragePool":
		return globalAveragePool, nil
	case "Relu", "Sigmoid", "Tanh", "Exp", "Round":
		return unary, nil
	case "Clip":
		return clip, nil
	case "Softmax":
		return softmax, nil
	case "Add", "Sub", "Mul", "Div", "Min", "Max":
		return elementwise, nil
	case "ReduceMin", "ReduceMax":
		return reduceExtreme, nil
	case "Cast":
		return cast, nil
	case "Identity":
		return identity, nil
	case "Constant":
		return constant, nil
	case "Flatten":
		return flatten, nil
	case "Reshape":
		return reshape, nil
	case "Squeeze", "Unsqueeze":
		return squeeze, nil
	case "Transpose":
		return transpose, nil
	case "Concat":
		return concat, nil
	case "Slice":
		return slice, nil
	case "Gather":
		return gather, nil
	case "GreaterOrEqual":
		return atLeast, nil
	case "Where":
		return where, nil
	}
	return nil, fmt.Errorf("%w: operator %s", ErrUnsupported, n.Op)
}
