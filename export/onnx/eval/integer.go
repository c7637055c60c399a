package eval

import (
	"fmt"
	"math"
	"slices"

	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

// A tensor of the file stands for one of these in the integer reading:
//
//	plain    a tensor as it is: the real input, codes, weights, a shape
//	dequant  codes with scale and zero point, behind a DequantizeLinear: the reals s * (q - z), never formed
//	pending  sums behind a layer, waiting for the QuantizeLinear that says what grid they go to
type meaning interface{ isMeaning() }

type plain struct{ t Tensor }

type dequant struct {
	codes Tensor
	scale []float32 // one, or one per index of axis
	zero  []int64
	axis  int
}

func (plain) isMeaning()    {}
func (*dequant) isMeaning() {}
func (*pending) isMeaning() {}

// refuse is the error of a group without an integer reading.
func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrNotInteger, fmt.Sprintf(format, args...))
}

func (p *Program) runInteger(inputs map[string]Tensor, visit func(string, Tensor) error) (map[string]Tensor, error) {
	env := map[string]meaning{}
	for name, t := range p.consts {
		env[name] = plain{t}
	}
	for _, in := range p.inputs {
		env[in.Name] = plain{inputs[in.Name]}
	}
	for i := range p.steps {
		s := &p.steps[i]
		if len(s.node.Outputs) != 1 || s.node.Outputs[0] == "" {
			return nil, fmt.Errorf("node %d %s: %w", i, title(s.node), refuse("it has %d outputs", len(s.node.Outputs)))
		}
		args := make([]meaning, len(s.node.Inputs))
		for k, name := range s.node.Inputs {
			if name != "" {
				args[k] = env[name]
			}
		}
		c := &call{node: s.node, opset: p.opset}
		out, err := s.integer(c, args)
		if err != nil {
			return nil, fmt.Errorf("node %d %s: %w", i, title(s.node), err)
		}
		name := s.node.Outputs[0]
		if t, is := out.(plain); is && !t.t.IsReal() {
			if err := visit(name, t.t); err != nil {
				return nil, err
			}
		}
		env[name] = out
		for _, done := range s.uses {
			delete(env, done)
		}
	}
	return p.collect(func(name string) (Tensor, error) {
		t, err := realize(env[name])
		if err != nil {
			return Tensor{}, fmt.Errorf("output %q: %w", name, err)
		}
		if t.IsReal() {
			if err := visit(name, t); err != nil {
				return Tensor{}, err
			}
		}
		return t, nil
	})
}

// integer runs one node on meanings.
func (s *step) integer(c *call, args []meaning) (meaning, error) {
	switch s.node.Op {
	case "DequantizeLinear":
		return dequantMeaning(c, args)
	case "QuantizeLinear":
		return quantMeaning(c, args)
	}
	allPlain := true
	for _, a := range args {
		if _, is := a.(plain); a != nil && !is {
			allPlain = false
		}
	}
	if allPlain {
		return s.onPlain(c, args)
	}
	switch s.node.Op {
	case "Conv":
		return convSums(c, args)
	case "Gemm":
		return gemmSums(c, args)
	case "MatMul":
		return matMulSums(c, args)
	case "Add", "Sub":
		return addSums(c, args)
	case "Mul":
		return mulSums(args)
	case "AveragePool", "GlobalAveragePool":
		return meanSums(c, args)
	case "Concat":
		return concatSums(c, args)
	case "Relu":
		return reluMeaning(args)
	case "GreaterOrEqual":
		return signs(args)
	case "MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Identity", "Gather":
		return s.onCodes(c, args)
	case "Clip":
		return clipMeaning(args)
	}
	return nil, refuse("%s of dequantized values is not integer arithmetic", s.node.Op)
}

// onPlain runs a node on tensors that are not quantized values: codes (limits, pools, tables), shapes, and the real
// input before its QuantizeLinear. A layer in real arithmetic is refused.
func (s *step) onPlain(c *call, args []meaning) (meaning, error) {
	realIn := false
	for _, a := range args {
		if a == nil {
			c.in = append(c.in, nil)
			continue
		}
		t := a.(plain).t
		realIn = realIn || t.IsReal()
		c.in = append(c.in, &t)
	}
	allowed := []string{"Identity", "Constant", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Concat", "Cast"}
	if realIn {
		allowed = append(allowed, "Add", "Sub", "Mul", "Div", "GreaterOrEqual")
	} else {
		allowed = append(allowed, "Clip", "MaxPool", "Gather", "Where")
	}
	if !slices.Contains(allowed, s.node.Op) {
		return nil, refuse("its inputs are not quantized: the layer was left in real arithmetic")
	}
	out, err := s.run(c)
	if err != nil {
		return nil, err
	}
	return plain{out[0]}, nil
}

// onCodes moves codes around without changing them; scale and zero point stay.
func (s *step) onCodes(c *call, args []meaning) (meaning, error) {
	d, is := args[0].(*dequant)
	if !is {
		return nil, refuse("%s of sums that no QuantizeLinear has rounded", s.node.Op)
	}
	if len(d.scale) != 1 {
		if s.node.Op != "Transpose" && s.node.Op != "Identity" {
			return nil, refuse("%s of codes with a scale per channel", s.node.Op)
		}
	}
	c.in = append(c.in, &d.codes)
	for _, a := range args[1:] {
		if a == nil {
			c.in = append(c.in, nil)
			continue
		}
		t, is := a.(plain)
		if !is {
			return nil, refuse("an argument that is quantized itself")
		}
		c.in = append(c.in, &t.t)
	}
	out, err := s.run(c)
	if err != nil {
		return nil, err
	}
	axis := d.axis
	if s.node.Op == "Transpose" && len(d.scale) != 1 {
		perm, ok := c.ints("perm")
		for i := range d.codes.Shape {
			from := len(d.codes.Shape) - 1 - i
			if ok {
				from = int(perm[i])
			}
			if from == d.axis {
				axis = i
			}
		}
	}
	return &dequant{codes: out[0], scale: d.scale, zero: d.zero, axis: axis}, nil
}

func reluMeaning(args []meaning) (meaning, error) {
	switch a := args[0].(type) {
	case *pending:
		p := *a
		p.relu = true
		return &p, nil
	case *dequant:
		p, err := rescaled(a)
		if err != nil {
			return nil, err
		}
		p.relu = true
		return p, nil
	}
	return nil, refuse("its input is not quantized")
}

// clipMeaning is a Clip of reals to [0, cap], in front of a QuantizeLinear: a ReLU with an upper limit.
func clipMeaning(args []meaning) (meaning, error) {
	limit := make([]float64, 2)
	for i := range limit {
		t, err := constantArg(args, 1+i)
		if err != nil {
			return nil, err
		}
		if t == nil || !t.IsReal() || t.Len() != 1 {
			return nil, refuse("it limits reals, and not to constants; limit the codes behind the QuantizeLinear instead")
		}
		limit[i] = t.Reals[0]
	}
	if limit[0] != 0 || !(limit[1] > 0) {
		return nil, refuse("it limits reals to [%v, %v], which is no ReLU; limit the codes behind the QuantizeLinear instead", limit[0], limit[1])
	}
	m, err := reluMeaning(args)
	if err != nil {
		return nil, err
	}
	p := *m.(*pending)
	p.cap = float32(limit[1])
	return &p, nil
}

// constantArg returns an argument that must be a plain tensor.
func constantArg(args []meaning, i int) (*Tensor, error) {
	if i >= len(args) || args[i] == nil {
		return nil, nil
	}
	t, is := args[i].(plain)
	if !is {
		return nil, refuse("input %d is computed from quantized values", i)
	}
	return &t.t, nil
}

// params reads scale and zero point of a QuantizeLinear or DequantizeLinear; def is the type without a zero point.
func params(args []meaning, def onnxpb.DataType) (scale []float32, zero []int64, typ onnxpb.DataType, err error) {
	s, err := constantArg(args, 1)
	if err != nil {
		return nil, nil, 0, err
	}
	if s == nil || s.Type != onnxpb.Float || len(s.Shape) > 1 {
		return nil, nil, 0, refuse("the scale is missing, not float32, or per block")
	}
	for i, v := range s.Reals {
		if !(v > 0) || math.IsInf(v, 0) {
			return nil, nil, 0, refuse("scale[%d] is %v", i, v)
		}
		scale = append(scale, float32(v))
	}
	zero, typ = make([]int64, len(scale)), def
	z, err := constantArg(args, 2)
	if err != nil {
		return nil, nil, 0, err
	}
	if z != nil {
		if z.IsReal() || z.Len() != len(scale) {
			return nil, nil, 0, refuse("zero point %v%v for %d scales", z.Type, z.Shape, len(scale))
		}
		zero, typ = z.Ints, z.Type
	}
	return scale, zero, typ, nil
}

func dequantMeaning(c *call, args []meaning) (meaning, error) {
	q, err := constantArg(args, 0)
	if err != nil {
		return nil, err
	}
	if q == nil || q.IsReal() {
		return nil, refuse("its input has no codes")
	}
	if c.int("block_size", 0) != 0 {
		return nil, refuse("scales per block")
	}
	scale, zero, typ, err := params(args, q.Type)
	if err != nil {
		return nil, err
	}
	if typ != q.Type {
		return nil, fmt.Errorf("%w: zero point %v for codes %v", ErrModel, typ, q.Type)
	}
	d := &dequant{codes: *q, scale: scale, zero: zero}
	if len(scale) != 1 {
		if d.axis, err = axisOf(c.int("axis", 1), len(q.Shape), len(q.Shape)-1); err != nil {
			return nil, err
		}
		if q.Shape[d.axis] != len(scale) {
			return nil, fmt.Errorf("%w: %d scales along axis %d of %v", ErrModel, len(scale), d.axis, q.Shape)
		}
	}
	return d, nil
}

// quantMeaning rounds a real input (numerics D1), or requantizes sums.
func quantMeaning(c *call, args []meaning) (meaning, error) {
	def := onnxpb.Uint8
	if d := c.int("output_dtype", 0); d != 0 {
		def = onnxpb.DataType(d)
	}
	scale, zero, typ, err := params(args, def)
	if err != nil {
		return nil, err
	}
	lo, hi, ok := typ.IntRange()
	if !ok || len(scale) != 1 {
		return nil, refuse("%d scales, codes of type %v", len(scale), typ)
	}
	if len(args) < 2 {
		return nil, fmt.Errorf("%w: %d inputs", ErrModel, len(args))
	}
	var src *pending
	switch x := args[0].(type) {
	case plain:
		if x.t.Type != onnxpb.Float {
			return nil, refuse("it quantizes a tensor of type %v", x.t.Type)
		}
		out, err := newTensor(typ, x.t.Shape)
		if err != nil {
			return nil, err
		}
		for i, v := range x.t.Reals {
			q, err := saturate(float64(float32(v)/scale[0]), lo-zero[0], hi-zero[0])
			if err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
			out.Ints[i] = q + zero[0]
		}
		return plain{out}, nil
	case *dequant:
		if src, err = rescaled(x); err != nil {
			return nil, err
		}
	case *pending:
		src = x
	default:
		return nil, refuse("it has no input")
	}
	t, err := src.requantize(typ, scale[0], zero[0], lo, hi)
	if err != nil {
		return nil, err
	}
	return plain{t}, nil
}

// realize turns an output of the graph into a tensor: what is left without a QuantizeLinear becomes real here.
func realize(m meaning) (Tensor, error) {
	switch v := m.(type) {
	case plain:
		return v.t, nil
	case *dequant:
		if len(v.scale) != 1 {
			return Tensor{}, refuse("dequantized with a scale per channel")
		}
		out, err := newTensor(onnxpb.Float, v.codes.Shape)
		if err != nil {
			return Tensor{}, err
		}
		for i, q := range v.codes.Ints {
			out.Reals[i] = float64(float32(float32(q-v.zero[0]) * v.scale[0]))
		}
		return out, nil
	case *pending:
		return v.real()
	}
	return Tensor{}, refuse("nothing computes it")
}
