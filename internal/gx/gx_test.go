package gx_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
)

// square is y = x*x with dx = 2*x*dy, and the sum of dy as a second result of its backward kernel.
type square struct {
	y  *tensor.Dense
	on func() // what else Run does
}

func newSquare(n int) *square { return &square{y: gx.NewTensor(n)} }

func (k *square) Run(in []G.Value) (G.Value, error) {
	x, err := gx.Floats(in[0])
	if err != nil {
		return nil, err
	}
	if k.on != nil {
		k.on()
	}
	y := k.y.Data().([]float32)
	for i, v := range x {
		y[i] = v * v
	}
	return k.y, nil
}

func (k *square) Needs() []bool { return []bool{true} }

func (k *square) Backward(in G.Nodes, _, grad *G.Node) (G.Nodes, error) {
	b := &squareBack{dx: gx.NewTensor(in[0].Shape()...)}
	n, err := gx.Apply(b, "square/dx", b.dx, in[0], grad)
	return G.Nodes{n}, err
}

type squareBack struct{ dx *tensor.Dense }

func (k *squareBack) Run(in []G.Value) (G.Value, error) {
	x, _ := gx.Floats(in[0])
	dy, _ := gx.Floats(in[1])
	dx := k.dx.Data().([]float32)
	for i := range dx {
		dx[i] = 2 * x[i] * dy[i]
	}
	return k.dx, nil
}

func leaf(t testing.TB, g *G.ExprGraph, name string, data ...float32) *G.Node {
	t.Helper()
	n, err := gx.Leaf(g, name, gx.Wrap(data, len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func apply(t testing.TB, k gx.Kernel, name string, out G.Value, in ...*G.Node) *G.Node {
	t.Helper()
	n, err := gx.Apply(k, name, out, in...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRunTwiceAndGradientsDoNotAccumulate(t *testing.T) {
	g := G.NewGraph()
	x := leaf(t, g, "x", 1, 2, 3)
	k := newSquare(3)
	cost := G.Must(G.Sum(apply(t, k, "square", k.y, x)))
	grads, err := gx.Grad(cost, x)
	if err != nil {
		t.Fatal(err)
	}
	m, err := gx.NewMachine(g)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	data := x.Value().Data().([]float32)
	for run := range 3 {
		data[0] = float32(run) // the second run would not see this without Reset
		if err := m.Run(); err != nil {
			t.Fatal(err)
		}
		got, err := gx.Floats(gx.Output(grads[0]))
		if err != nil {
			t.Fatal(err)
		}
		want := []float32{2 * float32(run), 4, 6}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("run %d: gradient %v, want %v", run, got, want)
				break
			}
		}
	}
}

// product is y = a*b with gradients for both.
type product struct{ y *tensor.Dense }

func (k *product) Run(in []G.Value) (G.Value, error) { return k.y, times(k.y, in[0], in[1]) }

func times(y *tensor.Dense, a, b G.Value) error {
	x, err := gx.Floats(a)
	if err != nil {
		return err
	}
	z, err := gx.Floats(b)
	for i := range x {
		y.Data().([]float32)[i] = x[i] * z[i]
	}
	return err
}

func (k *product) Needs() []bool { return []bool{true, true} }

func (k *product) Backward(in G.Nodes, _, grad *G.Node) (G.Nodes, error) {
	grads := make(G.Nodes, 2)
	for i := range grads {
		b := &product{gx.NewTensor(in[0].Shape()...)}
		var err error
		if grads[i], err = gx.Apply(plain{b}, fmt.Sprintf("product/d%d", i), b.y, in[1-i], grad); err != nil {
			return nil, err
		}
	}
	return grads, nil
}

// plain is a Kernel without a gradient.
type plain struct{ gx.Kernel }

// total adds all its inputs.
type total struct{ y *tensor.Dense }

func (k *total) Run(in []G.Value) (G.Value, error) {
	y := k.y.Data().([]float32)
	clear(y)
	for _, v := range in {
		x, err := gx.Floats(v)
		if err != nil {
			return nil, err
		}
		for i := range x {
			y[i] += x[i]
		}
	}
	return k.y, nil
}

// Readers of a fork of x^2, with a second input and without: all gradients arrive, anew in each run, and Gorgonia adds
// those of readers without a second input only.
func TestFork(t *testing.T) {
	for _, alone := range []int{1, 2} { // readers without a second input
		g := G.NewGraph()
		x, b := leaf(t, g, "x", 1, 2, -3), leaf(t, g, "b", 5, 7, 11)
		first := newSquare(3)
		dx := gx.NewTensor(3)
		f, err := gx.Fork(apply(t, first, "first", first.y, x), "fork", func() (gx.Kernel, G.Value) { return &total{dx}, dx })
		if err != nil {
			t.Fatal(err)
		}
		var terms G.Nodes
		for i := range alone {
			k := newSquare(3)
			terms = append(terms, apply(t, k, fmt.Sprintf("square %d", i), k.y, f))
		}
		for i := range 2 {
			k := &product{gx.NewTensor(3)}
			terms = append(terms, apply(t, k, fmt.Sprintf("product %d", i), k.y, b, f))
		}
		sum := terms[0]
		for _, n := range terms[1:] {
			sum = G.Must(G.Add(sum, n))
		}
		cost := G.Must(G.Sum(sum))
		if got := gx.Summed(f); got != (alone > 1) {
			t.Errorf("%d readers alone: Gorgonia adds: %t", alone, got)
		}
		grads, err := gx.Grad(cost, x, b)
		if err != nil {
			t.Fatal(err)
		}
		var dX, dB G.Value
		G.Read(grads[0], &dX)
		G.Read(grads[1], &dB)
		m, err := gx.NewMachine(g)
		if err != nil {
			t.Fatal(err)
		}
		for run := range 2 {
			if err := m.Run(); err != nil {
				t.Fatal(err)
			}
			gotX, _ := gx.Floats(dX)
			gotB, _ := gx.Floats(dB)
			for i, v := range []float32{1, 2, -3} {
				q, w := v*v, []float32{5, 7, 11}[i]
				if wantX, wantB := 2*v*(float32(alone)*2*q+2*w), 2*q; gotX[i] != wantX || gotB[i] != wantB {
					t.Errorf("%d readers alone, run %d: gradients %v and %v, want %v and %v", alone, run, gotX[i], gotB[i], wantX, wantB)
				}
			}
		}
		m.Close()
	}
}

// joiner is y = x*x whose gradient takes in those of the other readers of x, where it may.
type joiner struct {
	*square
	joined int
}

func (k *joiner) Backward(in G.Nodes, _, grad *G.Node) (G.Nodes, error) {
	others := gx.Join(in[0])
	k.joined = len(others)
	b := &joinerBack{squareBack{gx.NewTensor(in[0].Shape()...)}}
	n, err := gx.Apply(b, "joiner/dx", b.dx, append(G.Nodes{in[0], grad}, others...)...)
	return G.Nodes{n}, err
}

type joinerBack struct{ squareBack }

func (k *joinerBack) Run(in []G.Value) (G.Value, error) {
	v, err := k.squareBack.Run(in[:2])
	dx := k.dx.Data().([]float32)
	for _, o := range in[2:] {
		g, err := gx.Floats(o)
		if err != nil {
			return nil, err
		}
		for i := range dx {
			dx[i] += g[i]
		}
	}
	return v, err
}

// The first reader of a fork adds the gradients of readers that lie behind it; where they do not have theirs yet, the
// fork adds them. Either way the sum is the same.
func TestJoin(t *testing.T) {
	for _, behind := range []bool{true, false} {
		g := G.NewGraph()
		x := leaf(t, g, "x", 1, 2, -3)
		first := newSquare(3)
		dx := gx.NewTensor(3)
		added := false
		f, err := gx.Fork(apply(t, first, "first", first.y, x), "fork", func() (gx.Kernel, G.Value) {
			added = true
			return &total{dx}, dx
		})
		if err != nil {
			t.Fatal(err)
		}
		k := &joiner{square: newSquare(3)}
		square := apply(t, k, "joiner", k.y, f) // q^2, q = x^2
		p := &product{gx.NewTensor(3)}
		with, wrt := square, G.Nodes{x}
		if !behind {
			with = leaf(t, g, "b", 5, 7, 11)
			wrt = append(wrt, with) // else Gorgonia does not ask the product
		}
		cost := apply(t, p, "product", p.y, with, f) // q^3, or b*q + q^2
		if !behind {
			last := newSquare(3)
			cost = G.Must(G.Add(cost, apply(t, last, "square", last.y, square)))
		}
		grads, err := gx.Grad(G.Must(G.Sum(cost)), wrt...)
		if err != nil {
			t.Fatal(err)
		}
		var dX G.Value
		G.Read(grads[0], &dX)
		m, err := gx.NewMachine(g)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := m.Run(); err != nil {
				t.Fatal(err)
			}
			got, _ := gx.Floats(dX)
			for i, v := range []float32{1, 2, -3} {
				q := v * v
				want := 3 * q * q * 2 * v
				if !behind { // b*q + q^4
					want = ([]float32{5, 7, 11}[i] + 4*q*q*q) * 2 * v
				}
				if got[i] != want {
					t.Errorf("behind %t: gradient %v, want %v", behind, got[i], want)
				}
			}
		}
		if joined := k.joined == 1; joined == added || behind && !joined {
			t.Errorf("behind %t: joined %d gradients, the fork added: %t", behind, k.joined, added)
		}
		m.Close()
	}
}

func TestPanicsBecomeErrors(t *testing.T) {
	g := G.NewGraph()
	x := leaf(t, g, "x", 1)
	k := newSquare(1)
	cause := errors.New("boom")
	k.on = func() { panic(cause) }
	apply(t, k, "square", k.y, x)
	m, err := gx.NewMachine(g)
	if err != nil {
		t.Fatal(err)
	}
	err = m.Run()
	var p *gx.PanicError
	if !errors.As(err, &p) && (err == nil || !strings.Contains(err.Error(), "square: panic: boom")) {
		t.Fatalf("panic of an op gave %v", err)
	}
	k.on = nil
	if err := m.Run(); err != nil {
		t.Fatalf("the machine is unusable after an error: %v", err)
	}
}

// rude is an op of Gorgonia's own making that panics: nothing of Apply guards it.
type rude struct{ G.Op }

func (rude) Do(...G.Value) (G.Value, error) { panic("rude") }

func TestPanicsOfForeignOpsBecomeErrors(t *testing.T) {
	g := G.NewGraph()
	y := G.Must(G.Neg(leaf(t, g, "x", 1)))
	G.Must(G.ApplyOp(rude{y.Op()}, y))
	m, err := gx.NewMachine(g)
	if err != nil {
		t.Fatal(err)
	}
	var p *gx.PanicError
	if err := m.Run(); !errors.As(err, &p) || p.Value != "rude" {
		t.Fatalf("panic of an op that is not ours gave %v", err)
	}
}

// An op runs in the goroutine that called Run, so a program stays on its thread.
func TestRunStaysInItsGoroutine(t *testing.T) {
	g := G.NewGraph()
	k := newSquare(1)
	var where string
	k.on = func() {
		stack := make([]byte, 1<<16)
		where = string(stack[:runtime.Stack(stack, false)])
	}
	apply(t, k, "square", k.y, leaf(t, g, "x", 1))
	m, err := gx.NewMachine(g)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(where, "TestRunStaysInItsGoroutine(") {
		t.Errorf("the op ran in another goroutine:\n%s", where)
	}
}

// Gorgonia takes SoftMax and LogSoftMax of one node for the same op; ours stay apart however alike they are.
func TestNodesAreNotMerged(t *testing.T) {
	g := G.NewGraph()
	x := leaf(t, g, "x", 1, 2)
	a, b := newSquare(2), newSquare(2)
	if apply(t, a, "square", a.y, x) == apply(t, b, "square", b.y, x) {
		t.Error("two ops with the same name and input became one node")
	}
	if err := gx.CheckHashes(g); err != nil {
		t.Error(err)
	}
	m := G.NewMatrix(g, tensor.Float32, G.WithShape(1, 2), G.WithName("m"))
	soft, log := G.Must(G.SoftMax(m)), G.Must(G.LogSoftMax(m))
	if soft != log {
		t.Error("Gorgonia no longer merges SoftMax and LogSoftMax: this guard's reason is gone")
	}
}

func TestCheckHashesReportsCollisions(t *testing.T) {
	g := G.NewGraph()
	leaf(t, g, "x", 1)
	leaf(t, g, "x", 2) // inputs hash their name and type
	if len(g.AllNodes()) < 2 {
		if gx.CheckHashes(g) != nil {
			t.Error("one node collides with itself")
		}
		t.Log("Gorgonia merged the two inputs itself")
		return
	}
	if err := gx.CheckHashes(g); err == nil || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("two inputs called x: %v", err)
	}
	if _, err := gx.NewMachine(g); err == nil {
		t.Error("NewMachine accepts colliding hashes")
	}
}

// After a run the node's own value may be another node's: Watch keeps the right one.
func TestWatch(t *testing.T) {
	g := G.NewGraph()
	x := leaf(t, g, "x", 1, 2)
	k := newSquare(2)
	y := apply(t, k, "square", k.y, x)
	b := G.Must(G.Neg(y))
	w := gx.Watch(b)
	c := G.Must(G.Tanh(b))
	G.Must(G.Add(c, c))
	if _, err := w.Values(); err == nil {
		t.Error("values before the first run")
	}
	m, err := gx.NewMachine(g)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(); err != nil {
		t.Fatal(err)
	}
	v, err := w.Values()
	if err != nil || len(v) != 2 || v[0] != -1 || v[1] != -4 {
		t.Errorf("watched %v (%v), want [-1 -4]", v, err)
	}
}

func TestSideGivesSecondGradient(t *testing.T) {
	g := G.NewGraph()
	x := leaf(t, g, "x", 1, 2)
	k := newSquare(2)
	y := apply(t, k, "square", k.y, x)
	extra := gx.Wrap([]float32{7, 8}, 2)
	s, err := gx.Side("extra", extra, y)
	if err != nil {
		t.Fatal(err)
	}
	w := gx.Watch(s)
	m, err := gx.NewMachine(g)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(); err != nil {
		t.Fatal(err)
	}
	if v, err := w.Values(); err != nil || v[0] != 7 || v[1] != 8 {
		t.Errorf("side node holds %v (%v)", v, err)
	}
}

func TestLispMachineIsRefused(t *testing.T) {
	g := G.NewGraph()
	x := leaf(t, g, "x", 1, 2)
	k := newSquare(2)
	G.Must(G.Sum(apply(t, k, "square", k.y, x)))
	lm := G.NewLispMachine(g)
	defer lm.Close()
	if err := lm.RunAll(); err == nil {
		t.Error("the LispMachine ran an op that has no DoDiff")
	}
}

// wrong says it needs a gradient and gives none.
type wrong struct{ *square }

func (wrong) Backward(G.Nodes, *G.Node, *G.Node) (G.Nodes, error) { return G.Nodes{nil}, nil }

func TestErrorsNameTheOp(t *testing.T) {
	g := G.NewGraph()
	x := leaf(t, g, "x", 1, 2)
	if _, err := gx.Apply(newSquare(2), "orphan", gx.NewTensor(2)); err == nil || !strings.Contains(err.Error(), "orphan") {
		t.Errorf("no input: %v", err)
	}
	if _, err := gx.Apply(newSquare(2), "hole", gx.NewTensor(2), nil); err == nil || !strings.Contains(err.Error(), "hole") {
		t.Errorf("nil input: %v", err)
	}
	k := wrong{newSquare(2)}
	cost := G.Must(G.Sum(apply(t, k, "liar", k.y, x)))
	if _, err := gx.Grad(cost, x); err == nil || !strings.Contains(err.Error(), "liar") {
		t.Errorf("missing gradient: %v", err)
	}
}

func Example() {
	g := G.NewGraph()
	x, _ := gx.Leaf(g, "x", gx.Wrap([]float32{1, 2, 3}, 3))
	k := newSquare(3)
	y, _ := gx.Apply(k, "square", k.y, x)
	grads, _ := gx.Grad(G.Must(G.Sum(y)), x)
	m, _ := gx.NewMachine(g)
	defer m.Close()
	fmt.Println(m.Run())
	fmt.Println(gx.Floats(gx.Output(grads[0])))
	// Output:
	// <nil>
	// [2 4 6] <nil>
}
