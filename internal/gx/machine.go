package gx

import (
	"fmt"

	G "gorgonia.org/gorgonia"
)

// Machine runs a graph on Gorgonia's tape machine. It must not be used from two goroutines at once.
type Machine struct {
	vm interface {
		RunAll() error
		Reset()
		Close() error
	}
}

// NewMachine compiles g. It refuses a graph with colliding hashes, which the compiler would merge silently.
func NewMachine(g *G.ExprGraph) (m *Machine, err error) {
	defer recovered(&err, "compile graph")
	if err := CheckHashes(g); err != nil {
		return nil, err
	}
	return &Machine{vm: G.NewTapeMachine(g)}, nil
}

// Run executes every node once.
func (m *Machine) Run() (err error) {
	defer recovered(&err, "run graph")
	defer m.vm.Reset() // without it the next run would start at the end of the program and do nothing
	return m.vm.RunAll()
}

// Close releases the machine.
func (m *Machine) Close() error { return m.vm.Close() }

// Grad is gorgonia.Grad: the nodes of the gradients of the scalar cost, in the order of wrt. Panics become errors.
func Grad(cost *G.Node, wrt ...*G.Node) (grads G.Nodes, err error) {
	defer recovered(&err, "gradient")
	return G.Grad(cost, wrt...)
}

// CheckHashes reports two nodes of g with the same hash: the compiler takes them for one. Call it after Grad, which adds
// nodes.
func CheckHashes(g *G.ExprGraph) error {
	seen := make(map[uint32]*G.Node, len(g.AllNodes()))
	for _, n := range g.AllNodes() {
		if other, ok := seen[n.Hashcode()]; ok {
			return fmt.Errorf("nodes %q and %q have the same hash and would be computed as one: rename one of them", Name(other), Name(n))
		}
		seen[n.Hashcode()] = n
	}
	return nil
}
