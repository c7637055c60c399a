package eval

import (
	"fmt"

	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

// Reading chooses what the nodes of a file are taken to mean.
type Reading int

const (
	// Float runs operator by operator, as the ONNX standard defines each.
	Float Reading = iota
	// Integer runs each quantized group as integer arithmetic.
	Integer
)

// Program is a loaded model. It is not changed by running and may be used by several goroutines.
type Program struct {
	opset   int64
	inputs  []*onnxpb.ValueInfo
	outputs []string
	consts  map[string]Tensor
	steps   []step
}

// step is one node with what running it needs.
type step struct {
	node *onnxpb.Node
	run  operator
	uses []string // tensors that no later step reads
}

// Load checks a model and prepares it: an unknown operator, a tensor used before it exists or a damaged initializer is
// an error here.
func Load(m *onnxpb.Model) (*Program, error) {
	if m == nil || m.Graph == nil {
		return nil, fmt.Errorf("%w: no graph", ErrModel)
	}
	p := &Program{consts: map[string]Tensor{}}
	for _, o := range m.Opsets {
		if o.Domain == "" || o.Domain == "ai.onnx" {
			p.opset = o.Version
		}
	}
	if p.opset < 1 {
		return nil, fmt.Errorf("%w: no opset version of ai.onnx", ErrModel)
	}
	known := map[string]bool{"": true}
	for _, t := range m.Graph.Initializers {
		v, err := decode(t)
		if err != nil {
			return nil, err
		}
		if t.Name == "" || known[t.Name] {
			return nil, fmt.Errorf("%w: initializer name %q is empty or used twice", ErrModel, t.Name)
		}
		p.consts[t.Name] = v
		known[t.Name] = true
	}
	for _, in := range m.Graph.Inputs {
		if _, is := p.consts[in.Name]; is {
			continue // before IR 4 initializers were listed as inputs too
		}
		if in.Name == "" || known[in.Name] {
			return nil, fmt.Errorf("%w: input name %q is empty or used twice", ErrModel, in.Name)
		}
		p.inputs = append(p.inputs, in)
		known[in.Name] = true
	}
	for i, n := range m.Graph.Nodes {
		run, err := lookup(n)
		if err != nil {
			return nil, fmt.Errorf("node %d %s: %w", i, title(n), err)
		}
		for _, name := range n.Inputs {
			if !known[name] {
				return nil, fmt.Errorf("node %d %s: %w: reads %q, which no earlier node makes", i, title(n), ErrModel, name)
			}
		}
		for _, name := range n.Outputs {
			if name != "" && known[name] {
				return nil, fmt.Errorf("node %d %s: %w: %q exists already", i, title(n), ErrModel, name)
			}
			known[name] = true
		}
		p.steps = append(p.steps, step{node: n, run: run})
	}
	for _, out := range m.Graph.Outputs {
		if out.Name == "" || !known[out.Name] {
			return nil, fmt.Errorf("%w: no node makes the output %q", ErrModel, out.Name)
		}
		p.outputs = append(p.outputs, out.Name)
	}
	p.release()
	return p, nil
}

// release notes after which step each tensor can be forgotten.
func (p *Program) release() {
	keep := map[string]bool{"": true}
	for _, name := range p.outputs {
		keep[name] = true
	}
	for i := len(p.steps) - 1; i >= 0; i-- {
		for _, list := range [][]string{p.steps[i].node.Inputs, p.steps[i].node.Outputs} {
			for _, name := range list {
				if !keep[name] {
					keep[name] = true
					p.steps[i].uses = append(p.steps[i].uses, name)
				}
			}
		}
	}
}

// Inputs names the tensors that Run needs.
func (p *Program) Inputs() []string {
	names := make([]string, len(p.inputs))
	for i, in := range p.inputs {
		names[i] = in.Name
	}
	return names
}

// Outputs names the tensors that Run returns.
func (p *Program) Outputs() []string { return append([]string{}, p.outputs...) }

// title names a node in messages.
func title(n *onnxpb.Node) string {
	name := n.Name
	if name == "" && len(n.Outputs) > 0 {
		name = n.Outputs[0]
	}
	return fmt.Sprintf("%s %q", n.Op, name)
}

// Run computes the outputs for the inputs, which must have the declared types and shapes (a symbolic dimension takes
// any size). Visit, unless nil, sees the tensors in the order of the nodes: in the Float reading every node's results;
// in the Integer reading the codes of every QuantizeLinear and of every operator on codes, and the real outputs. An
// error of visit stops the run and is returned. Visited tensors must not be changed.
func (p *Program) Run(inputs map[string]Tensor, reading Reading, visit func(name string, t Tensor) error) (map[string]Tensor, error) {
	if err := p.checkInputs(inputs); err != nil {
		return nil, err
	}
	if visit == nil {
		visit = func(string, Tensor) error { return nil }
	}
	switch reading {
	case Float:
		return p.runFloat(inputs, visit)
	case Integer:
		return p.runInteger(inputs, visit)
	}
	return nil, fmt.Errorf("%w: reading %d (allowed: Float, Integer)", ErrUnsupported, reading)
}

func (p *Program) checkInputs(inputs map[string]Tensor) error {
	symbols := map[string]int{}
	for _, in := range p.inputs {
		t, ok := inputs[in.Name]
		if !ok {
			return fmt.Errorf("%w: input %q is missing", ErrModel, in.Name)
		}
		if err := t.check(); err != nil {
			return fmt.Errorf("input %q: %w", in.Name, err)
		}
		if in.Type == nil {
			continue
		}
		if in.Type.Elem != t.Type {
			return fmt.Errorf("input %q: %w: element type %v, want %v", in.Name, ErrModel, t.Type, in.Type.Elem)
		}
		if in.Type.Shape == nil {
			continue
		}
		dims := in.Type.Shape.Dims
		bad := len(dims) != len(t.Shape)
		for i := 0; i < len(dims) && !bad; i++ {
			d := dims[i]
			if d.HasValue {
				bad = int64(t.Shape[i]) != d.Value
			} else if d.Param != "" {
				if n, seen := symbols[d.Param]; seen {
					bad = n != t.Shape[i]
				}
				symbols[d.Param] = t.Shape[i]
			}
		}
		if bad {
			return fmt.Errorf("input %q: %w: shape %v does not match the declared one", in.Name, ErrModel, t.Shape)
		}
	}
	return nil
}

func (p *Program) runFloat(inputs map[string]Tensor, visit func(string, Tensor) error) (map[string]Tensor, error) {
	env := map[string]Tensor{}
	for name, t := range p.consts {
		env[name] = t
	}
	for _, in := range p.inputs {
		env[in.Name] = inputs[in.Name]
	}
	for i := range p.steps {
		s := &p.steps[i]
		c := &call{node: s.node, opset: p.opset, in: make([]*Tensor, len(s.node.Inputs))}
		for k, name := range s.node.Inputs {
			if name != "" {
				t := env[name]
				c.in[k] = &t
			}
		}
		out, err := s.run(c)
		if err != nil {
			return nil, fmt.Errorf("node %d %s: %w", i, title(s.node), err)
		}
		for k, name := range s.node.Outputs {
			if name == "" {
				continue
			}
			if k >= len(out) {
				return nil, fmt.Errorf("node %d %s: %w: output %d", i, title(s.node), ErrUnsupported, k)
			}
			env[name] = out[k]
			if err := visit(name, out[k]); err != nil {
				return nil, err
			}
		}
		for _, name := range s.uses {
			delete(env, name)
		}
	}
	return p.collect(func(name string) (Tensor, error) { return env[name], nil })
}

func (p *Program) collect(get func(name string) (Tensor, error)) (map[string]Tensor, error) {
	out := map[string]Tensor{}
	for _, name := range p.outputs {
		t, err := get(name)
		if err != nil {
			return nil, err
		}
		out[name] = t
	}
	return out, nil
}
