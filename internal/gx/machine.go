package gx

import (
	"fmt"
	"unsafe"

	G "gorgonia.org/gorgonia"
)

// Machine runs a graph on Gorgonia's tape machine. It must not be used from two goroutines at once.
type Machine struct {
	vm interface {
		WorkAvailable() <-chan bool
		RunAll() error
		Reset()
		Close() error
	}
	tape unsafe.Pointer // vm, for runTape
}

// NewMachine compiles g. It refuses a graph with colliding hashes, which the compiler would merge silently.
func NewMachine(g *G.ExprGraph) (m *Machine, err error) {
	defer recovered(&err, "compile graph")
	if err := CheckHashes(g); err != nil {
		return nil, err
	}
	vm := G.NewTapeMachine(g)
	return &Machine{vm: vm, tape: unsafe.Pointer(vm)}, nil
}

// runTape is the tape machine's loop over its instructions; at its end it sends to one of the two channels.
//
// RunAll starts this loop in a goroutine of its own and waits, locked to its thread. A program then moves to another
// thread and back at every step; where that thread wakes on a processor on which a worker of a pool is busy, the step
// waits until the operating system moves one of them, which took a tenth to a fifth of training on two threads. Nor can a
// panic in that goroutine be caught.
//
//go:linkname runTape gorgonia.org/gorgonia.(*tapeMachine).runall
func runTape(tape unsafe.Pointer, failed chan error, done chan struct{})

// Run executes every node once, in the calling goroutine.
func (m *Machine) Run() (err error) {
	defer recovered(&err, "run graph")
	defer m.vm.Reset() // without it the next run would start at the end of the program and do nothing
	if m.vm.WorkAvailable() != nil {
		return m.vm.RunAll() // a BLAS that collects calls, from G.Use: RunAll makes them while the loop runs
	}
	failed, done := make(chan error, 1), make(chan struct{}, 1)
	runTape(m.tape, failed, done)
	select {
	case err = <-failed:
	case <-done:
	}
	return err
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
