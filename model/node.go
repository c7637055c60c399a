package model

import (
	"fmt"

	"github.com/narrow-ml/narrow/quant"
)

// Op is the kind of a node.
type Op uint8

// The operations. Their exact arithmetic is in docs/arithmetic.md.
const (
	Conv          Op = iota + 1 // 2-D convolution
	Dense                       // matrix product
	BatchNorm                   // per-channel normalisation; a node of its own until Fuse
	ReLU                        // max(x, 0), or min(max(x, 0), Cap); fused into Conv, Dense or Add where it follows them
	MaxPool                     // maximum over windows
	Flatten                     // to one axis, in memory order (h, w, c)
	Add                         // sum of two tensors of one shape: the end of a residual block
	GlobalAvgPool               // mean over height and width: one value per channel
)

var opNames = [...]string{Conv: "conv", Dense: "dense", BatchNorm: "batchnorm", ReLU: "relu", MaxPool: "maxpool", Flatten: "flatten", Add: "add", GlobalAvgPool: "gap"}

func (o Op) String() string {
	if int(o) < len(opNames) && opNames[o] != "" {
		return opNames[o]
	}
	return fmt.Sprintf("Op(%d)", uint8(o))
}

// ParseOp reads an operation's name.
func ParseOp(s string) (Op, error) {
	for o, name := range opNames {
		if name == s && s != "" {
			return Op(o), nil
		}
	}
	return 0, fmt.Errorf("unknown operation %q", s)
}

// HasWeight reports whether the operation multiplies by a weight: conv and dense.
func (o Op) HasWeight() bool { return o == Conv || o == Dense }

// HasQuantizer reports whether the output of the operation, in a quantized model, has a quantizer of its own: conv,
// dense, add and global average pooling. The integers of all other operations are those of their input.
func (o Op) HasQuantizer() bool { return o.HasWeight() || o == Add || o == GlobalAvgPool }

// Inputs is the number of tensors that the operation reads.
func (o Op) Inputs() int {
	if o == Add {
		return 2
	}
	return 1
}

// SharesScale reports whether the output has the scale and zero point of the input and no quantizer of its own: shape
// operations, max-pool, and a ReLU that is not fused (max(q, z) on codes).
func (o Op) SharesScale() bool { return o == MaxPool || o == Flatten || o == ReLU }

// Attr holds the attributes of every operation; an operation reads only its own.
type Attr struct {
	Kernel [2]int // conv, maxpool: height, width
	Stride [2]int // conv, maxpool: vertical, horizontal
	Pad    [4]int // conv, maxpool: top, left, bottom, right
	Groups int    // conv: channel groups, at least 1
	Units  int    // conv: output channels; dense: outputs
	Bias   bool   // conv, dense: has a bias

	Dropout  float32 // conv, dense: the part of its input that training sets to zero; 0 none. Nothing else knows of it
	Norm     bool    // conv, dense after Fuse: followed by batch norm
	Whole    bool    // batch norm, or Norm, of a dense layer: one mean, variance, gamma and beta for the whole tensor
	Relu     bool    // conv, dense, add after Fuse: followed by ReLU
	Cap      float32 // ReLU, or Relu: upper limit, 6 for ReLU6; 0 means none
	Eps      float32 // batch norm, or Norm: added to the variance
	Momentum float32 // batch norm, or Norm: weight of the new batch in the running statistics
}

// Node is one operation. Name is the name of its output tensor; Layer is the name that its parameters carry and that
// the user wrote.
type Node struct {
	Name    string
	Layer   string
	Op      Op
	In      []string
	Attr    Attr
	Shape   Shape          // of the output, set by Shapes
	Requant *quant.Requant // Frozen: of integer operations with a quantizer of their own
	Origin  string         // file:line of the layer, for messages
}

// Param is the full name of a parameter of the node's layer.
func (n *Node) Param(role string) string { return n.Layer + "." + role }

// The roles of parameters.
const (
	Weight = "weight" // conv [KH, KW, Cin/Groups, Cout], dense [In, Out]
	Bias   = "bias"   // [Cout]; int32 codes in a Frozen integer model
	Gamma  = "gamma"  // batch norm
	Beta   = "beta"
	Mean   = "mean" // running statistics, not trained
	Var    = "var"
	// Frozen float models: the batch norm as y = mul*v + add.
	NormMul = "mul"
	NormAdd = "add"
)

// Trained reports whether an optimizer updates the parameters of this role.
func Trained(role string) bool {
	return role == Weight || role == Bias || role == Gamma || role == Beta
}

func (n *Node) errorf(format string, args ...any) error {
	where := ""
	if n.Origin != "" {
		where = n.Origin + ": "
	}
	return fmt.Errorf("%s%s %q: %w", where, n.Op, n.Layer, fmt.Errorf(format, args...))
}
