package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/narrow-ml/narrow/quant"
)

// The header of a model file: docs/format.md describes each key. Field order is the order in the file.
type header struct {
	Name      string         `json:"name"`
	Weight    string         `json:"weight"` // base precision
	Act       string         `json:"act"`
	Target    string         `json:"target"`
	Inputs    []inputHeader  `json:"inputs"`
	Outputs   []string       `json:"outputs"`
	Nodes     []nodeHeader   `json:"nodes"`
	Quant     []quantHeader  `json:"quant,omitempty"`
	Tensors   []tensorHeader `json:"tensors"`
	blobBytes int            // from the start of the blobs to the end of the last one
}

type inputHeader struct {
	Name   string   `json:"name"`
	Shape  []int    `json:"shape"`
	Scale  bits32   `json:"scale"`
	Zero   int32    `json:"zero"`
	Labels []string `json:"labels,omitempty"`
}

type nodeHeader struct {
	Name     string         `json:"name"`
	Layer    string         `json:"layer"`
	Op       string         `json:"op"`
	In       []string       `json:"in"`
	Kernel   [2]int         `json:"kernel,omitzero"`
	Stride   [2]int         `json:"stride,omitzero"`
	Pad      [4]int         `json:"pad,omitzero"`
	Groups   int            `json:"groups,omitempty"`
	Units    int            `json:"units,omitempty"`
	Bias     bool           `json:"bias,omitempty"`
	Norm     bool           `json:"norm,omitempty"`
	Relu     bool           `json:"relu,omitempty"`
	Cap      bits32         `json:"cap,omitzero"`
	Eps      bits32         `json:"eps,omitzero"`
	Momentum bits32         `json:"momentum,omitzero"`
	Shape    []int          `json:"shape"`
	Requant  *requantHeader `json:"requant,omitempty"`
}

type requantHeader struct {
	Zero  int32 `json:"zero"`
	Lo    int32 `json:"lo"`
	Hi    int32 `json:"hi"`
	Float bool  `json:"float,omitempty"`
	Sign  bool  `json:"sign,omitempty"`
}

// quantHeader is one quantizer and the tensors that share it.
type quantHeader struct {
	Tensors  []string `json:"tensors"`
	Format   string   `json:"format"`
	Scheme   string   `json:"scheme,omitempty"`
	Per      string   `json:"per,omitempty"`
	Group    int      `json:"group,omitempty"`
	Range    string   `json:"range,omitempty"`
	Rounding string   `json:"rounding,omitempty"`
	Signed   bool     `json:"signed,omitempty"`
	Narrow   bool     `json:"narrow,omitempty"`
	Even     bool     `json:"even,omitempty"`
	Max      bits32   `json:"max,omitzero"`   // range constant
	Scale    bits32   `json:"scale,omitzero"` // per tensor; per channel it is a blob
	Zero     int32    `json:"zero,omitempty"`
}

type tensorHeader struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Type   string `json:"type"`
	Shape  []int  `json:"shape"`
	Offset int    `json:"offset"`
}

// The kinds of blobs. The name of a param is its own, that of a scale is the first tensor of the quantizer, that of a
// multiplier is the node's.
const (
	kindParam      = "param"
	kindScale      = "scale"
	kindMultiplier = "multiplier"
)

// bits32 is a float32 as its bit pattern, in JSON 8 hexadecimal digits: decimal text would need agreement on rounding.
type bits32 uint32

func f32bits(v float32) bits32 { return bits32(math.Float32bits(v)) }

func (b bits32) float() float32 { return math.Float32frombits(uint32(b)) }

// MarshalText writes the 8 digits.
func (b bits32) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%08x", uint32(b)), nil }

// UnmarshalText reads the 8 digits.
func (b *bits32) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 16, 32)
	if err != nil || len(text) != 8 {
		return fmt.Errorf("%q is not the bit pattern of a float32 in 8 hexadecimal digits", text)
	}
	*b = bits32(v)
	return nil
}

// blobTypes is the one table of element types of blobs.
var blobTypes = [...]struct {
	name string
	bits int
}{
	{"f32", 32}, {"i32", 32}, {"f16", 16}, {"bf16", 16},
	{"s2", 2}, {"s3", 3}, {"s4", 4}, {"s5", 5}, {"s6", 6}, {"s7", 7}, {"s8", 8}, {"s16", 16},
	{"e1", 1}, {"e2", 2}, {"e3", 3}, {"e4", 4}, {"e5", 5}, {"e6", 6}, {"e7", 7}, // numbers of even levels
}

// blobBits is the width of one element of a blob type; 0 for an unknown type.
func blobBits(name string) int {
	for _, t := range blobTypes {
		if t.name == name {
			return t.bits
		}
	}
	return 0
}

// blob is one array of the file: its directory entry and the payload, of which one is set.
type blob struct {
	tensorHeader
	payload Param
}

// newHeader builds the header of a valid Frozen model and the blobs in file order.
func newHeader(m *Model) (*header, []blob) {
	h := &header{
		Name: m.Name, Weight: m.Precision.Weight.String(), Act: m.Precision.Act.String(),
		Target: m.Target.String(), Outputs: m.Outputs,
	}
	for _, in := range m.Inputs {
		h.Inputs = append(h.Inputs, inputHeader{Name: in.Name, Shape: in.Shape, Scale: f32bits(in.Scale), Zero: in.Zero, Labels: in.Labels})
	}
	var blobs []blob
	for _, name := range m.ParamNames() {
		p := m.Params[name]
		blobs = append(blobs, blob{tensorHeader{Kind: kindParam, Name: name, Type: m.paramType(name, p), Shape: p.Shape}, *p})
	}
	for _, group := range m.quantGroups() {
		p := m.Quant[group[0]]
		h.Quant = append(h.Quant, newQuantHeader(group, p))
		if p.Spec.Format.IsInteger() && p.Spec.Per != quant.PerTensor {
			shape := []int{len(p.Scale)}
			if p.Spec.Per == quant.PerGroup {
				shape = []int{len(p.Scale) / p.Channels, p.Channels}
			}
			blobs = append(blobs, blob{tensorHeader{Kind: kindScale, Name: group[0], Type: "f32", Shape: shape}, Param{Data: p.Scale}})
		}
	}
	for i := range m.Nodes {
		n := &m.Nodes[i]
		h.Nodes = append(h.Nodes, newNodeHeader(n))
		if n.Requant != nil {
			blobs = append(blobs, blob{tensorHeader{Kind: kindMultiplier, Name: n.Name, Type: "f32", Shape: []int{len(n.Requant.M)}}, Param{Data: n.Requant.M}})
		}
	}
	for i := range blobs {
		blobs[i].Offset = align(h.blobBytes)
		h.blobBytes = blobs[i].Offset + blobs[i].bytes()
		h.Tensors = append(h.Tensors, blobs[i].tensorHeader)
	}
	return h, blobs
}

// bytes is the size of the blob without padding.
func (t *tensorHeader) bytes() int {
	n, width := Shape(t.Shape).Size(), blobBits(t.Type)
	return n/8*width + (n%8*width+7)/8 // n*width may not fit an int of 32 bits
}

// paramType is the blob type of a parameter: of codes and 16-bit floats it is the format of the tensor's quantizer.
func (m *Model) paramType(name string, p *Param) string {
	switch {
	case p.Codes != nil || p.Codes16 != nil:
		return codeType(m.Quant[name].Spec)
	case p.Half != nil && m.Quant[name].Spec.Format == quant.BF16:
		return "bf16"
	case p.Half != nil:
		return "f16"
	case p.Int32 != nil:
		return "i32"
	}
	return "f32"
}

// codeType is the blob type of weight codes: two's complement, or the numbers of even levels.
func codeType(s quant.Spec) string {
	kind := "s"
	if s.Even {
		kind = "e"
	}
	return kind + strconv.Itoa(s.Format.Bits())
}

// quantGroups lists the quantizers of m as the sorted names of the tensors that share each, in order of the first name.
func (m *Model) quantGroups() [][]string {
	at := map[*quant.Params]int{}
	var groups [][]string
	for _, name := range m.QuantNames() {
		q := m.Quant[name]
		i, seen := at[q]
		if !seen {
			i = len(groups)
			at[q] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], name)
	}
	return groups
}

func newQuantHeader(tensors []string, p *quant.Params) quantHeader {
	s := p.Spec
	h := quantHeader{Tensors: tensors, Format: s.Format.String(), Group: s.Group, Signed: s.Signed, Narrow: s.Narrow, Even: s.Even, Max: f32bits(s.Max)}
	if s.Scheme != 0 {
		h.Scheme = s.Scheme.String()
	}
	if s.Per != 0 {
		h.Per = s.Per.String()
	}
	if s.Range != 0 {
		h.Range = s.Range.String()
	}
	if s.Rounding != 0 {
		h.Rounding = s.Rounding.String()
	}
	if s.Format.IsInteger() && s.Per == quant.PerTensor {
		h.Scale, h.Zero = f32bits(p.Scale[0]), p.Zero[0]
	}
	return h
}

// spec is the reverse of newQuantHeader, without scales.
func (h *quantHeader) spec() (s quant.Spec, err error) {
	s = quant.Spec{Group: h.Group, Signed: h.Signed, Narrow: h.Narrow, Even: h.Even, Max: h.Max.float()}
	if s.Format, err = quant.ParseFormat(h.Format); err != nil {
		return s, err
	}
	if h.Scheme != "" {
		if s.Scheme, err = quant.ParseScheme(h.Scheme); err != nil {
			return s, err
		}
	}
	if h.Per != "" {
		if s.Per, err = quant.ParseGranularity(h.Per); err != nil {
			return s, err
		}
	}
	if h.Range != "" {
		if s.Range, err = quant.ParseRange(h.Range); err != nil {
			return s, err
		}
	}
	if h.Rounding != "" {
		s.Rounding, err = quant.ParseRounding(h.Rounding)
	}
	return s, err
}

func newNodeHeader(n *Node) nodeHeader {
	a := n.Attr
	h := nodeHeader{
		Name: n.Name, Layer: n.Layer, Op: n.Op.String(), In: n.In,
		Kernel: a.Kernel, Stride: a.Stride, Pad: a.Pad, Groups: a.Groups, Units: a.Units,
		Bias: a.Bias, Norm: a.Norm, Relu: a.Relu, Cap: f32bits(a.Cap), Eps: f32bits(a.Eps), Momentum: f32bits(a.Momentum), Shape: n.Shape,
	}
	if r := n.Requant; r != nil {
		h.Requant = &requantHeader{Zero: r.Zero, Lo: r.Lo, Hi: r.Hi, Float: r.Float, Sign: r.Sign}
	}
	return h
}

// node is the reverse of newNodeHeader, without multipliers.
func (h *nodeHeader) node() (Node, error) {
	op, err := ParseOp(h.Op)
	if err != nil {
		return Node{}, err
	}
	n := Node{Name: h.Name, Layer: h.Layer, Op: op, In: h.In, Shape: h.Shape, Attr: Attr{
		Kernel: h.Kernel, Stride: h.Stride, Pad: h.Pad, Groups: h.Groups, Units: h.Units,
		Bias: h.Bias, Norm: h.Norm, Relu: h.Relu, Cap: h.Cap.float(), Eps: h.Eps.float(), Momentum: h.Momentum.float(),
	}}
	if r := h.Requant; r != nil {
		n.Requant = &quant.Requant{Zero: r.Zero, Lo: r.Lo, Hi: r.Hi, Float: r.Float, Sign: r.Sign}
	}
	return n, nil
}

// marshal is the canonical JSON text of the header. Names hold printable characters only ([Validate]), so the text does
// not depend on how a JSON library escapes.
func (h *header) marshal() ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(h); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	return slices.Clip(bytes.TrimRight(buf.Bytes(), "\n")), nil
}
