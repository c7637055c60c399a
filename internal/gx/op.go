package gx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"runtime/debug"
	"slices"

	"github.com/chewxy/hm"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Kernel is the computation of one node. Run reads in, the values of the node's inputs, and returns a value of the shape
// that was declared to [Apply]; it owns that value and may return the same one each time. Run must not keep in.
type Kernel interface {
	Run(in []G.Value) (G.Value, error)
}

// Differentiable is a Kernel with a gradient. Needs tells for each input whether it gets one. Backward builds the nodes
// of these gradients from the node's inputs, its output and the gradient of its output; entries of inputs that need none
// are nil.
type Differentiable interface {
	Kernel
	Needs() []bool
	Backward(in G.Nodes, out, grad *G.Node) (G.Nodes, error)
}

// op makes a Kernel a gorgonia.Op. It is always an SDOp: Gorgonia refuses to differentiate a graph in which an op that
// is not, such as the conversion of the network's input, follows another op.
type op struct {
	name   string
	id     uint64 // unique in the graph
	in     []signature
	out    G.Value
	shape  tensor.Shape
	kernel Kernel
	asks   []bool  // which inputs get gradients
	needs  []bool  // which of them by Gorgonia
	late   []*late // and which by a fork
}

// signature is the type of an input or output: the type system takes types by value and recycles them, so they are made
// anew at every call.
type signature struct {
	dims int
	of   tensor.Dtype
}

func (s signature) typ() hm.Type {
	if s.dims == 0 {
		return s.of
	}
	return G.TensorType{Dims: s.dims, Of: s.of}
}

// Apply adds a node that computes k. name appears in errors and in drawings of the graph. out says the node's shape and
// number type and is what [Output] returns.
func Apply(k Kernel, name string, out G.Value, in ...*G.Node) (n *G.Node, err error) {
	defer recovered(&err, name)
	if len(in) == 0 {
		return nil, fmt.Errorf("%s: a node needs at least one input", name)
	}
	o := &op{name: name, out: out, shape: out.Shape().Clone(), kernel: k, in: make([]signature, len(in))}
	for i, c := range in {
		if c == nil {
			return nil, fmt.Errorf("%s: input %d is missing", name, i)
		}
		o.in[i] = signature{dims: c.Shape().Dims(), of: c.Dtype()}
		if c.IsScalar() {
			o.in[i].dims = 0
		}
	}
	o.id = nextID(in[0].Graph())
	o.needs = make([]bool, len(in))
	if d, ok := k.(Differentiable); ok {
		if o.needs = d.Needs(); len(o.needs) != len(in) {
			return nil, fmt.Errorf("%s: says of %d inputs whether they need gradients, and has %d", name, len(o.needs), len(in))
		}
	}
	o.asks, o.needs, o.late = o.needs, slices.Clone(o.needs), make([]*late, len(in))
	o.attach(in)
	n, err = G.ApplyOp(o, in...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if n.Op() != G.Op(o) {
		return nil, fmt.Errorf("%s: its hash equals that of node %q and Gorgonia merged them", name, n.Name())
	}
	G.WithName(name)(n)
	return n, nil
}

// nextID is the number that the next node of g will have.
func nextID(g *G.ExprGraph) uint64 {
	all := g.AllNodes()
	if len(all) == 0 {
		return 0
	}
	return uint64(all[len(all)-1].ID()) + 1
}

// Output is the value that a node made by Apply declared, nil for other nodes. It is the value Run returns unless the
// kernel says otherwise, so gradients can be held before the first run.
func Output(n *G.Node) G.Value {
	if o, ok := n.Op().(*op); ok {
		return o.out
	}
	return nil
}

// Foreign reports a node that Apply did not make, whose memory Gorgonia may use for other values once its readers have run.
func Foreign(n *G.Node) bool {
	_, own := n.Op().(*op)
	return !own
}

// Name is the name given to Apply, or the node's own name for other nodes.
func Name(n *G.Node) string {
	if o, ok := n.Op().(*op); ok {
		return o.name
	}
	return n.Name()
}

func recovered(err *error, name string) {
	if v := recover(); v != nil {
		*err = &PanicError{Op: name, Value: v, Stack: debug.Stack()}
	}
}

// PanicError is a panic of an op or of Gorgonia, as an error.
type PanicError struct {
	Op    string
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("%s: panic: %v", e.Op, e.Value) }

// Unwrap is the panic's value if it was an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

var errShape = errors.New("returned a value of another shape than it declared")

func (o *op) Do(in ...G.Value) (v G.Value, err error) {
	defer recovered(&err, o.name)
	v, err = o.kernel.Run(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.name, err)
	}
	if v != o.out && !v.Shape().Eq(o.shape) {
		return nil, fmt.Errorf("%s: %w: %v, not %v", o.name, errShape, v.Shape(), o.shape)
	}
	return v, nil
}

func (o *op) Arity() int { return len(o.in) }

func (o *op) Type() hm.Type {
	types := make([]hm.Type, 0, len(o.in)+1)
	for _, s := range o.in {
		types = append(types, s.typ())
	}
	return hm.NewFnType(append(types, signature{o.shape.Dims(), o.out.Dtype()}.typ())...)
}

func (o *op) InferShape(...G.DimSizer) (tensor.Shape, error) { return o.shape.Clone(), nil }
func (o *op) ReturnsPtr() bool                               { return false }
func (o *op) CallsExtern() bool                              { return false }
func (o *op) OverwritesInput() int                           { return -1 }
func (o *op) String() string                                 { return o.name }

func (o *op) WriteHash(h hash.Hash) {
	var id [8]byte
	binary.LittleEndian.PutUint64(id[:], o.id)
	h.Write([]byte("narrow/" + o.name))
	h.Write(id[:])
}

func (o *op) Hashcode() uint32 {
	h := fnv.New32a()
	o.WriteHash(h)
	return h.Sum32()
}

func (o *op) DiffWRT(int) []bool { return o.needs }

func (o *op) SymDiff(in G.Nodes, out, grad *G.Node) (grads G.Nodes, err error) {
	defer recovered(&err, o.name)
	d, ok := o.kernel.(Differentiable)
	if !ok {
		return nil, fmt.Errorf("%s has no gradient", o.name)
	}
	grads, err = d.Backward(in, out, grad)
	if err != nil {
		return nil, fmt.Errorf("gradient of %s: %w", o.name, err)
	}
	if len(grads) != len(in) {
		return nil, fmt.Errorf("gradient of %s: %d gradients for %d inputs", o.name, len(grads), len(in))
	}
	for i, need := range o.asks {
		if need != (grads[i] != nil) {
			return nil, fmt.Errorf("gradient of %s: input %d needs a gradient: %t, has one: %t", o.name, i, need, grads[i] != nil)
		}
		if l := o.late[i]; l != nil {
			l.grad, grads[i] = grads[i], nil
		}
	}
	return grads, nil
}

// DoDiff refuses Gorgonia's LispMachine, which would otherwise leave this op's gradient out without a word.
func (o *op) DoDiff(G.ExecutionContext, G.Nodes, *G.Node) error {
	return fmt.Errorf("%s: the LispMachine is not supported; call Grad and use the tape machine", o.name)
}

// Side makes a node of a further result of the kernel of node of. The edge only says that of runs first; the node's
// value is out, which that kernel fills.
func Side(name string, out G.Value, of *G.Node) (*G.Node, error) {
	return Apply(side{out}, name, out, of)
}

type side struct{ out G.Value }

func (s side) Run([]G.Value) (G.Value, error) { return s.out, nil }
