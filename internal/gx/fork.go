package gx

import (
	"fmt"

	G "gorgonia.org/gorgonia"
)

// Fork makes a node of x's value for several readers. Gorgonia would add the readers' gradients itself, into new memory
// or into one of them; behind a fork they come to one node that computes add, whose inputs are these gradients in the
// order in which the readers were applied and whose value is dx.
//
// To Gorgonia only the first reader has a gradient. The others must have a further input that needs one, so that
// Gorgonia still asks them; those that have none stay with Gorgonia: see [Summed].
//
// The first reader may add the others' gradients to its own: see [Join]. add is called where it did not.
func Fork(x *G.Node, name string, add func() (sum Kernel, dx G.Value)) (*G.Node, error) {
	return Apply(&fork{name: name, add: add}, name, Output(x), x)
}

type fork struct {
	name   string
	add    func() (Kernel, G.Value)
	known  int     // readers whose gradients Gorgonia knows
	late   []*late // the others
	joined bool    // the first reader adds theirs
}

// Join is for the gradient of a reader of x, while it is built. Where x is a fork whose other readers have their gradients
// already, it returns these, in order, and takes the reader's gradient for the sum of its own and them; else it returns nil.
func Join(x *G.Node) G.Nodes {
	o, ok := x.Op().(*op)
	if !ok {
		return nil
	}
	f, ok := o.kernel.(*fork)
	if !ok || f.known != 1 || f.joined {
		return nil
	}
	var grads G.Nodes
	for _, l := range f.late {
		if l.grad == nil {
			return nil
		}
		grads = append(grads, l.grad)
	}
	f.joined = len(grads) > 0
	return grads
}

// late is the gradient that a reader hands to a fork past Gorgonia.
type late struct {
	reader string
	grad   *G.Node
}

// Summed reports that Gorgonia adds several gradients of n itself, perhaps into one of them.
func Summed(n *G.Node) bool {
	if o, ok := n.Op().(*op); ok {
		if f, ok := o.kernel.(*fork); ok {
			return f.known > 1
		}
	}
	return n.Graph().To(n.ID()).Len() > 1
}

// attach takes the gradients of o's inputs that are forks past Gorgonia.
func (o *op) attach(in G.Nodes) {
	left := 0 // inputs that Gorgonia knows of
	for _, need := range o.needs {
		if need {
			left++
		}
	}
	for i, c := range in {
		from, ok := c.Op().(*op)
		if !ok || !o.needs[i] {
			continue
		}
		f, ok := from.kernel.(*fork)
		if !ok {
			continue
		}
		if f.known == 0 || left == 1 {
			f.known++
			continue
		}
		left--
		o.needs[i] = false
		o.late[i] = &late{reader: o.name}
		f.late = append(f.late, o.late[i])
	}
}

func (f *fork) Run(in []G.Value) (G.Value, error) { return in[0], nil }

func (f *fork) Needs() []bool { return []bool{true} }

func (f *fork) Backward(_ G.Nodes, _, grad *G.Node) (G.Nodes, error) {
	all := G.Nodes{grad}
	for _, l := range f.late {
		if l.grad == nil {
			return nil, fmt.Errorf("reader %q has no gradient: nothing it computes reaches the cost", l.reader)
		}
		all = append(all, l.grad)
	}
	if len(all) == 1 || f.joined {
		return all[:1], nil
	}
	sum, dx := f.add()
	n, err := Apply(sum, "gradient("+f.name+")", dx, all...)
	return G.Nodes{n}, err
}
