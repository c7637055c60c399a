package infer

import (
	"fmt"

	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// place says where a tensor lives during a pass.
type place uint8

const (
	inCodes  place = iota // a buffer of codes
	inValues              // a buffer of float32
	inInput               // the caller's bytes
	inLogits              // the caller's logits
)

// tensor is an input or a node's output.
type tensor struct {
	name   string
	shape  model.Shape
	size   int           // elements of one example
	params *quant.Params // nil when float32 on purpose
	place  place
	slot   int // of inCodes and inValues
}

// coded reports whether the tensor holds codes.
func (t *tensor) coded() bool { return t.place == inCodes || t.place == inInput }

// op computes one tensor for n examples.
type op interface {
	run(w *worker, n int) error
	kernel() string // for Describe
}

// step makes one tensor. A nil op means that the tensor is another one's memory.
type step struct {
	op  op
	out *tensor
}

// program is a model as steps over placed tensors. Steps begin with the input.
type program struct {
	steps         []step
	input, output *tensor
	codes, values []int // sizes of the buffers, elements per example
	macs          int   // multiplications per example
}

// bytesPerExample is the memory of all buffers.
func (p *program) bytesPerExample() int {
	total := 0
	for _, n := range p.codes {
		total += n
	}
	for _, n := range p.values {
		total += 4 * n
	}
	return max(total, 1)
}

// compiler builds a program from a valid Frozen model.
type compiler struct {
	m       *model.Model
	p       *program
	tensors map[string]*tensor
	last    map[string]int // by root: the last step that reads it
	codes   slotPlan
	values  slotPlan
}

func newProgram(m *model.Model) (*program, error) {
	c := &compiler{m: m, p: &program{}, tensors: map[string]*tensor{}, last: map[string]int{}}
	for i := range m.Nodes {
		for _, name := range m.Nodes[i].In {
			c.last[c.root(name)] = i + 1 // step 0 is the input
		}
	}
	in := &m.Inputs[0]
	t := c.tensor(0, in.Name, in.Shape)
	c.p.input = t
	var load op
	if t.place == inCodes {
		load = &inputCodes{out: t, table: in.InputTable(t.params)}
	} else if t.place != inInput {
		var err error
		if load, err = newInputValues(in, t); err != nil {
			return nil, fmt.Errorf("input %q: %w", in.Name, err)
		}
	}
	c.p.steps = append(c.p.steps, step{op: load, out: t})
	for i := range m.Nodes {
		n := &m.Nodes[i]
		s := step{out: c.tensor(i+1, n.Name, n.Shape)}
		if n.Op.HasWeight() {
			c.p.macs += m.MACs(n)
		}
		var err error
		if s.op, err = c.op(n, c.tensors[n.In[0]], s.out); err != nil {
			return nil, fmt.Errorf("%s %q: %w", n.Op, n.Layer, err)
		}
		c.p.steps = append(c.p.steps, s)
	}
	c.p.output = c.tensors[m.Outputs[0]]
	c.p.codes, c.p.values = c.codes.sizes, c.values.sizes
	return c.p, nil
}

// root is the tensor whose memory a tensor uses: its own, or through flatten that of another.
func (c *compiler) root(name string) string {
	for n := c.m.Node(name); n != nil && n.Op == model.Flatten; n = c.m.Node(name) {
		name = n.In[0]
	}
	return name
}

// tensor places the tensor that a step makes.
func (c *compiler) tensor(at int, name string, shape model.Shape) *tensor {
	t := &tensor{name: name, shape: shape, size: shape.Size(), params: c.m.Quant[name]}
	coded := t.params != nil && t.params.Spec.Format.IsInteger() && !t.wide()
	root := c.root(name)
	switch {
	case root != name:
		t.place, t.slot = c.tensors[root].place, c.tensors[root].slot
	case coded && at == 0 && c.m.Inputs[0].BytesAreCodes(t.params):
		t.place = inInput
	case root == c.root(c.m.Outputs[0]):
		t.place = inLogits
	case coded:
		t.place, t.slot = inCodes, c.codes.take(at, max(at, c.last[name]), t.size)
	default:
		t.place, t.slot = inValues, c.values.take(at, max(at, c.last[name]), t.size)
	}
	c.tensors[name] = t
	return t
}

// op chooses the kernel of a node; nil for a view.
func (c *compiler) op(n *model.Node, in, out *tensor) (op, error) {
	if wide, err := newWide(c.m, n, in, c.tensors[n.In[len(n.In)-1]], out); wide != nil || err != nil {
		return wide, err
	}
	switch n.Op {
	case model.Conv, model.Dense:
		if n.Requant != nil {
			return newIntegerLayer(c.m, n, in, out)
		}
		return newFloatLayer(c.m, n, in, out)
	case model.MaxPool:
		a := n.Attr
		g := kernel.PoolGeom{
			H: in.shape[0], W: in.shape[1], C: in.shape[2], KH: a.Kernel[0], KW: a.Kernel[1], StrideH: a.Stride[0], StrideW: a.Stride[1],
			PadTop: a.Pad[0], PadLeft: a.Pad[1], PadBottom: a.Pad[2], PadRight: a.Pad[3],
		}
		return &maxPool{in: in, out: out, geom: g}, g.Check()
	case model.ReLU:
		return newReLU(n, in, out), nil
	case model.Add:
		return newAddition(n, in, c.tensors[n.In[1]], out), nil
	case model.GlobalAvgPool:
		return newGlobalAvg(n, in, out), nil
	case model.Flatten:
		return nil, nil
	}
	return nil, fmt.Errorf("the engine has no kernel for it")
}

// convGeom is the geometry of a conv; a dense layer is the case of one pixel.
func convGeom(n *model.Node, in *tensor) kernel.ConvGeom {
	a := n.Attr
	if n.Op == model.Dense {
		return kernel.ConvGeom{H: 1, W: 1, Cin: in.size, KH: 1, KW: 1, Cout: a.Units, StrideH: 1, StrideW: 1, Groups: 1}
	}
	return kernel.ConvGeom{
		H: in.shape[0], W: in.shape[1], Cin: in.shape[2], KH: a.Kernel[0], KW: a.Kernel[1], Cout: a.Units, StrideH: a.Stride[0], StrideW: a.Stride[1],
		PadTop: a.Pad[0], PadLeft: a.Pad[1], PadBottom: a.Pad[2], PadRight: a.Pad[3], Groups: a.Groups,
	}
}

// slotPlan gives tensors of one kind their buffers, so that tensors that never live at the same time share one.
type slotPlan struct {
	sizes []int // elements per example
	until []int // the last step that reads what the buffer holds
}

// take finds a buffer for a tensor made by step at and last read by step last: the smallest free one that is large
// enough, or else the largest free one, enlarged, or else a new one.
func (p *slotPlan) take(at, last, size int) int {
	best := -1
	for i, n := range p.sizes {
		if p.until[i] >= at {
			continue
		}
		if best < 0 || (n >= size && (p.sizes[best] < size || n < p.sizes[best])) || (n < size && p.sizes[best] < n) {
			best = i
		}
	}
	if best < 0 {
		best = len(p.sizes)
		p.sizes, p.until = append(p.sizes, 0), append(p.until, 0)
	}
	p.sizes[best], p.until[best] = max(p.sizes[best], size), last
	return best
}
