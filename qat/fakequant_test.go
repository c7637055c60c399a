package qat_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/qtest"
	"github.com/narrow-ml/narrow/qat"
	"github.com/narrow-ml/narrow/quant"
)

// once runs FakeQuant of x and returns y and, for the cost sum(up*y), the gradients of x and of what is learned first.
func once(x, up []float32, shape []int, cfg qat.Config) (y, dx, ds []float32, err error) {
	y, dx, learned, err := onceLearned(x, up, shape, cfg)
	if len(learned) > 0 {
		ds = learned[0]
	}
	return y, dx, ds, err
}

func onceLearned(x, up []float32, shape []int, cfg qat.Config) (y, dx []float32, learned [][]float32, err error) {
	g := G.NewGraph()
	xn, err := gx.Leaf(g, "x", gx.Wrap(x, shape...))
	if err != nil {
		return nil, nil, nil, err
	}
	un, err := gx.Leaf(g, "up", gx.Wrap(up, shape...))
	if err != nil {
		return nil, nil, nil, err
	}
	yn, q, err := qat.FakeQuant(xn, cfg)
	if err != nil {
		return nil, nil, nil, err
	}
	w := gx.Watch(yn)
	grads, err := gx.Grad(G.Must(G.Sum(G.Must(G.HadamardProd(yn, un)))), append(G.Nodes{xn}, q.Learned()...)...)
	if err != nil {
		return nil, nil, nil, err
	}
	m, err := gx.NewMachine(g)
	if err != nil {
		return nil, nil, nil, err
	}
	defer m.Close()
	if err := m.Run(); err != nil {
		return nil, nil, nil, err
	}
	if y, err = w.Values(); err != nil {
		return nil, nil, nil, err
	}
	dx, err = gx.Floats(gx.Output(grads[0]))
	for _, g := range grads[1:] {
		v, err := gx.Floats(gx.Output(g))
		if err != nil {
			return nil, nil, nil, err
		}
		learned = append(learned, v)
	}
	return y, dx, learned, err
}

// specOf finds a spec with the grid [lo, hi].
func specOf(lo, hi int, symmetric bool, method quant.Range) (quant.Spec, error) {
	for f := quant.Int2; f <= quant.Int8; f++ {
		for _, signed := range []bool{false, true} {
			s := quant.Spec{Format: f, Scheme: quant.Affine, Per: quant.PerTensor, Range: method, Rounding: quant.HalfEven, Signed: signed}
			if symmetric {
				s.Scheme = quant.Symmetric
			}
			if a, b := s.Grid(); int(a) == lo && int(b) == hi {
				return s, nil
			}
		}
	}
	return quant.Spec{}, fmt.Errorf("no format has the grid [%d, %d]", lo, hi)
}

// learnable replays a case of PyTorch's learnable fake-quantization: scale and real zero point, which is range method lsq+, or
// the scale alone. Channels with zero points of their own, which our specs do not have, are taken one at a time.
func learnable(c qtest.Case) error {
	x, up := c.Inputs["x"], c.Upstream["y"].F32()
	scale, zeros := c.Inputs["scale"].F32(), c.Inputs["zero_point"].F32()
	lo, hi := c.Int("quant_min", 0), c.Int("quant_max", 0)
	s, err := specOf(lo, hi, false, quant.LSQ)
	if err != nil {
		return err
	}
	plus, axis := s, c.Int("axis", 0)
	plus.Range = quant.LSQPlus
	dz := make([]float32, len(scale))
	one := func(ch int, x, up []float32, shape []int) ([]float32, []float32, []float32, error) {
		p := &quant.Params{Spec: plus, Scale: scale[ch : ch+1], Zero: []int32{0}, Learned: zeros[ch : ch+1]}
		y, dx, learned, err := onceLearned(x, up, shape, qat.Config{Name: "t", Spec: plus, Weight: true, Params: p})
		if err != nil {
			return nil, nil, nil, err
		}
		dz[ch] = learned[1][0]
		return y, dx, learned[0], nil
	}
	var y, dx, ds []float32
	share := len(x.Data)
	switch {
	case len(scale) == 1:
		y, dx, ds, err = one(0, x.F32(), up, x.Shape)
	case !slices.ContainsFunc(zeros, func(z float32) bool { return z != 0 }):
		s.Scheme, s.Per = quant.Symmetric, quant.PerChannel
		share /= len(scale)
		if !s.Signed { // a symmetric unsigned grid has its zero point in the middle
			y, dx, ds, err = perChannel(x, up, axis, len(scale), one)
			break
		}
		p := &quant.Params{Spec: s, Scale: scale, Zero: make([]int32, len(scale))}
		y, dx, ds, err = once(x.F32(), up, x.Shape, qat.Config{Name: "t", Spec: s, Axis: axis, Weight: true, Params: p})
		dz = nil // this form has no zero point to learn
	default:
		share /= len(scale)
		y, dx, ds, err = perChannel(x, up, axis, len(scale), one)
	}
	if err != nil {
		return err
	}
	inner := 1
	for _, d := range x.Shape[axis+1:] {
		inner *= d
	}
	wantY, wantDX, xs := c.Outputs["y"].F32(), c.Grads["x"].F32(), x.F32()
	nearTies := make([]bool, len(scale))
	for i := range xs {
		ch := 0
		if len(scale) > 1 {
			ch = i / inner % len(scale)
		}
		r := math.Abs(float64(xs[i] / scale[ch]))
		tie := math.Abs(r-math.Floor(r)-0.5) < 1e-4
		nearTies[ch] = nearTies[ch] || tie
		if tie { // torch multiplies by 1/s
			continue
		}
		if y[i] != wantY[i] || dx[i] != wantDX[i] {
			return fmt.Errorf("x[%d] = %v: y %v and gradient %v, torch %v and %v", i, xs[i], y[i], dx[i], wantY[i], wantDX[i])
		}
	}
	factor := c.Float("grad_factor", 1) * math.Sqrt(float64(share)*float64(hi))
	for ch, want := range c.Grads["scale"].Data {
		got := float64(ds[ch]) * factor
		if nearTies[ch] {
			continue
		}
		if math.Abs(got-want) > 1e-4*math.Max(1, math.Abs(want)) {
			return fmt.Errorf("gradient of scale[%d] = %v, torch %v", ch, got, want)
		}
	}
	for ch, v := range dz {
		got, want := float64(v)*factor, c.Grads["zero_point"].Data[ch]
		if !nearTies[ch] && math.Abs(got-want) > 1e-4*math.Abs(want)+1e-6 {
			return fmt.Errorf("gradient of zero_point[%d] = %v, torch %v", ch, got, want)
		}
	}
	return nil
}

func perChannel(x qtest.Tensor, up []float32, axis, n int, one func(ch int, x, up []float32, shape []int) (y, dx, ds []float32, err error)) (y, dx, ds []float32, err error) {
	inner := 1
	for _, d := range x.Shape[axis+1:] {
		inner *= d
	}
	data := x.F32()
	y, dx, ds = make([]float32, len(data)), make([]float32, len(data)), make([]float32, n)
	for ch := range n {
		var at []int
		var cx, cup []float32
		for i, v := range data {
			if i/inner%n == ch {
				at, cx, cup = append(at, i), append(cx, v), append(cup, up[i])
			}
		}
		cy, cdx, cds, err := one(ch, cx, cup, []int{len(cx)})
		if err != nil {
			return nil, nil, nil, err
		}
		for k, i := range at {
			y[i], dx[i] = cy[k], cdx[k]
		}
		ds[ch] = cds[0]
	}
	return y, dx, ds, nil
}

func TestD5TorchLearnable(t *testing.T) {
	exceptions := qtest.Exceptions{}
	for _, n := range []int{4, 13, 16, 17, 28, 37, 41, 44, 48, 57, 61} {
		exceptions[fmt.Sprintf("fake_quantize_learnable_per_tensor/%d", n)] = "negative zero point: torch 1.13 takes trunc(zp+0.5) of it in its backward, one too many"
	}
	t.Run("per tensor", func(t *testing.T) { qtest.Conform(t, "fake_quantize_learnable_per_tensor", exceptions, learnable) })
	t.Run("per channel", func(t *testing.T) { qtest.Conform(t, "fake_quantize_learnable_per_channel", nil, learnable) })
}

// The channel axis may be any: the result is that of FakeQuantize with the channels moved last.
func TestFakeQuantAxis(t *testing.T) {
	shape := []int{2, 3, 4}
	x := make([]float32, 24)
	up := make([]float32, 24)
	for i := range x {
		x[i], up[i] = float32(i*7%11)-5, 1
	}
	for axis := range shape {
		spec := quant.WeightSpec(quant.Int4)
		y, dx, _, err := once(slices.Clone(x), up, shape, qat.Config{Spec: spec, Axis: axis, Weight: true})
		if err != nil {
			t.Fatal(err)
		}
		inner := 1
		for _, d := range shape[axis+1:] {
			inner *= d
		}
		top := make([]float32, shape[axis])
		for i, v := range x {
			c := i / inner % shape[axis]
			top[c] = max(top[c], v, -v)
		}
		for i, v := range x {
			s, z := spec.Choose(0, top[i/inner%shape[axis]])
			want := s * float32(quant.One(v, s, z, -7, 7))
			if y[i] != want || dx[i] != 1 {
				t.Errorf("axis %d: y[%d] = %v, want %v; gradient %v", axis, i, y[i], want, dx[i])
			}
		}
		last, _, _, err := once(slices.Clone(x), up, shape, qat.Config{Spec: spec, Axis: axis - 3, Weight: true})
		if err != nil || !slices.Equal(last, y) {
			t.Errorf("axis %d differs from axis %d (%v)", axis-3, axis, err)
		}
	}
}

// An activation's range is delayed: a run quantizes with what the runs before saw; the first with what it sees itself.
func TestFakeQuantDelayedRange(t *testing.T) {
	g := G.NewGraph()
	x := []float32{0, 1, 2, 2.55}
	xn, err := gx.Leaf(g, "x", gx.Wrap(x, 1, 4))
	if err != nil {
		t.Fatal(err)
	}
	spec := quant.ActSpec(quant.Int8)
	yn, q, err := qat.FakeQuant(xn, qat.Config{Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	if q.Params().Ready() {
		t.Error("ready before the first run")
	}
	eval := G.NewGraph()
	en, err := gx.Leaf(eval, "x", gx.Wrap(x, 1, 4))
	if err != nil {
		t.Fatal(err)
	}
	ey, _, err := qat.FakeQuant(en, qat.Config{Eval: q})
	if err != nil {
		t.Fatal(err)
	}
	w, ew := gx.Watch(yn), gx.Watch(ey)
	m, err := gx.NewMachine(g)
	if err != nil {
		t.Fatal(err)
	}
	em, err := gx.NewMachine(eval)
	if err != nil {
		t.Fatal(err)
	}
	if err := em.Run(); err == nil || !strings.Contains(err.Error(), "run the training graph first") {
		t.Errorf("evaluation before training: %v", err)
	}
	check := func(top float32, w *gx.Watched, m *gx.Machine, what string) {
		t.Helper()
		if err := m.Run(); err != nil {
			t.Fatal(err)
		}
		y, err := w.Values()
		if err != nil || math.Abs(float64(y[3]-top)) > 0.011 {
			t.Errorf("%s: x = %v gives %v, want a top of %v (%v)", what, x, y, top, err)
		}
	}
	check(2.55, w, m, "first run")
	x[3] = 5.1
	check(2.55, w, m, "second run, clamped by the range of the first")
	check(5.1, w, m, "third run")
	check(5.1, ew, em, "evaluation")
	x[3] = 51
	check(5.1, ew, em, "evaluation changes nothing")
	check(5.1, ew, em, "evaluation again")
	q.Freeze(true)
	check(5.1, w, m, "frozen")
	check(5.1, w, m, "frozen again")
}

// A weight has no delay: an evaluation graph quantizes the weight that the last update left, by its own range.
func TestFakeQuantEvaluatesCurrentWeight(t *testing.T) {
	w := []float32{1, -7, 0.4, 3.5}
	cfg := qat.Config{Spec: quant.WeightSpec(quant.Int4), Axis: 1, Weight: true}
	train, eval := G.NewGraph(), G.NewGraph()
	tn, err := gx.Leaf(train, "w", gx.Wrap(w, 2, 2))
	if err != nil {
		t.Fatal(err)
	}
	en, err := gx.Leaf(eval, "w", gx.Wrap(w, 2, 2))
	if err != nil {
		t.Fatal(err)
	}
	_, q, err := qat.FakeQuant(tn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	y, _, err := qat.FakeQuant(en, qat.Config{Axis: 1, Eval: q})
	if err != nil {
		t.Fatal(err)
	}
	seen := gx.Watch(y)
	for _, g := range []*G.ExprGraph{train, eval} {
		m, err := gx.NewMachine(g)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Run(); err != nil {
			t.Fatal(err)
		}
		m.Close()
		copy(w, []float32{2, 14, 14, 6}) // the update between training and evaluation
	}
	if v, err := seen.Values(); err != nil || !slices.Equal(v, []float32{2, 14, 14, 6}) {
		t.Errorf("evaluation gives %v (%v)", v, err)
	}
	if s := q.Params().Scale; !slices.Equal(s, []float32{float32(1) / 7, 1}) {
		t.Errorf("evaluation changed the training quantizer's scales to %v", s)
	}
}

func TestFakeQuantHalf(t *testing.T) {
	x := []float32{1, 1.0001, -3.14159}
	for _, f := range []quant.Format{quant.FP16, quant.BF16} {
		y, dx, _, err := once(slices.Clone(x), []float32{1, 2, 3}, []int{3}, qat.Config{Spec: quant.Spec{Format: f}, Weight: true})
		want := make([]float32, 3)
		if err == nil {
			err = quant.Round16(want, x, f)
		}
		if err != nil || !slices.Equal(y, want) || !slices.Equal(dx, []float32{1, 2, 3}) {
			t.Errorf("%s: %v, gradient %v (%v)", f, y, dx, err)
		}
	}
	if _, _, _, err := once([]float32{1, 7e4}, []float32{1, 1}, []int{2}, qat.Config{Name: "big", Spec: quant.Spec{Format: quant.FP16}}); err == nil || !strings.Contains(err.Error(), "big") || !strings.Contains(err.Error(), "value[1]") {
		t.Errorf("overflow: %v", err)
	}
}

func TestFakeQuantRefuses(t *testing.T) {
	g := G.NewGraph()
	x := G.NewMatrix(g, tensor.Float32, G.WithShape(2, 3), G.WithName("x"))
	spec := quant.WeightSpec(quant.Int8)
	lsq, mse, env := spec, spec, spec
	lsq.Range, mse.Range, env.Range = quant.LSQ, quant.MSE, quant.Envelope
	drawn, floor := spec, lsq
	drawn.Rounding, floor.Rounding = quant.Stochastic, quant.Floor
	done := G.NewMatrix(g, tensor.Float32, G.WithShape(2, 2), G.WithName("done"))
	if _, err := G.Grad(G.Must(G.Sum(done)), done); err != nil {
		t.Fatal(err)
	}
	_, q, err := qat.FakeQuant(x, qat.Config{Spec: spec, Weight: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		node *G.Node
		cfg  qat.Config
		want string
	}{
		{nil, qat.Config{Spec: spec}, "nil"},
		{x, qat.Config{}, "format is not set"},
		{x, qat.Config{Spec: spec, Axis: 2, Weight: true}, "channel axis 2"},
		{x, qat.Config{Spec: spec, Axis: -3, Weight: true}, "channel axis"},
		{x, qat.Config{Spec: mse, Weight: true}, "give its params"},
		{x, qat.Config{Spec: drawn, Axis: 1, Weight: true}, "stochastic rounding draws by the step"},
		{x, qat.Config{Spec: floor, Axis: 1, Weight: true}, "rounding floor with the learned range lsq"},
		{x, qat.Config{Spec: env, Axis: 1, Weight: true}, "follows batches"},
		{x, qat.Config{Spec: spec, Weight: true, Params: &quant.Params{Spec: lsq}}, "params are of spec"},
		{x, qat.Config{Spec: spec, Axis: 1, Weight: true, Params: &quant.Params{Spec: spec, Scale: []float32{1}, Zero: []int32{0}}}, "needs 3"},
		{x, qat.Config{Eval: q, Spec: spec}, "leave them empty"},
		{done, qat.Config{Spec: spec, Weight: true}, "before gorgonia.Grad"},
		{G.NewMatrix(g, tensor.Float64, G.WithShape(2, 3), G.WithName("f64")), qat.Config{Spec: spec}, "float32"},
		{G.NewScalar(g, tensor.Float32, G.WithName("s")), qat.Config{Spec: spec}, "scalar"},
	} {
		if _, _, err := qat.FakeQuant(row.node, row.cfg); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%+v: %v, want %q", row.cfg, err, row.want)
		}
	}
	if _, _, _, err := once([]float32{1, float32(math.NaN())}, []float32{1, 1}, []int{2}, qat.Config{Name: "t", Spec: quant.ActSpec(quant.Int8)}); err == nil || !strings.Contains(err.Error(), "value[1] is NaN") {
		t.Errorf("NaN: %v", err)
	}
}

// What users of hand-written models do: BindDualValues and a solver of Gorgonia's, here with learned scales.
func TestFakeQuantWithSolver(t *testing.T) {
	for _, method := range []quant.Range{quant.MinMax, quant.LSQ} {
		t.Run(method.String(), func(t *testing.T) {
			losses := stockTraining(t, method)
			if first, last := losses[0], losses[len(losses)-1]; !(last < first/20) {
				t.Errorf("loss %v -> %v", first, last)
			}
		})
	}
}

// stockTraining fits y = relu(x w1) w2 with 4-bit weights and 8-bit activations to data of its own kind.
func stockTraining(t testing.TB, method quant.Range) []float32 {
	t.Helper()
	g := G.NewGraph()
	fill := func(n, seed int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32((i*37+seed*101)%64)/32 - 1
		}
		return v
	}
	node := func(name string, v []float32, shape ...int) *G.Node {
		n, err := gx.Leaf(g, name, gx.Wrap(v, shape...))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	target := make([]float32, 32)
	data := fill(32*4, 3)
	for i := range target {
		target[i] = max(data[i*4]-data[i*4+1], 0) + max(data[i*4+2], 0)/2
	}
	x, want := node("x", data, 32, 4), node("target", target, 32, 1)
	w1, w2 := node("w1", fill(4*8, 1), 4, 8), node("w2", fill(8, 2), 8, 1)
	weights, learn := G.Nodes{w1, w2}, G.Nodes{w1, w2}
	quantize := func(n *G.Node, spec quant.Spec, weight bool) *G.Node {
		spec.Range = method
		if !weight && method == quant.MinMax {
			spec.Range = quant.Envelope
		}
		y, q, err := qat.FakeQuant(n, qat.Config{Spec: spec, Axis: -1, Weight: weight})
		if err != nil {
			t.Fatal(err)
		}
		learn = append(learn, q.Learned()...)
		return y
	}
	h := G.Must(G.Rectify(G.Must(G.Mul(x, quantize(w1, quant.WeightSpec(quant.Int4), true)))))
	y := G.Must(G.Mul(quantize(h, quant.ActSpec(quant.Int8), false), quantize(w2, quant.WeightSpec(quant.Int4), true)))
	cost := G.Must(G.Mean(G.Must(G.Square(G.Must(G.Sub(y, want))))))
	seen := gx.Watch(cost)
	if _, err := G.Grad(cost, learn...); err != nil {
		t.Fatal(err)
	}
	vm := G.NewTapeMachine(g, G.BindDualValues(learn...))
	defer vm.Close()
	// Adam moves every scale by about its rate per step, whatever its size: learned scales need a small one of their own.
	solver, scales := G.NewAdamSolver(G.WithLearnRate(0.02)), G.NewAdamSolver(G.WithLearnRate(0.0005))
	var losses []float32
	for range 200 {
		if err := vm.RunAll(); err != nil {
			t.Fatal(err)
		}
		v, err := seen.Values()
		if err != nil {
			t.Fatal(err)
		}
		losses = append(losses, v[0])
		if err := solver.Step(G.NodesToValueGrads(weights)); err != nil {
			t.Fatal(err)
		}
		if rest := learn[len(weights):]; len(rest) > 0 {
			if err := scales.Step(G.NodesToValueGrads(rest)); err != nil {
				t.Fatal(err)
			}
		}
		vm.Reset()
	}
	return losses
}

// Where no calibration has been, a learned range starts from the first batch; the gradients are those of docs/arithmetic.md.
func TestFakeQuantLearnedRanges(t *testing.T) {
	x := []float32{-0.7, 0.1, 0.26, 0.5, 0.9, 1.3, 2.2, 3.4}
	up := []float32{1, -2, 3, 0.5, -1, 2, 4, -3}
	for _, method := range []quant.Range{quant.PACT, quant.TQT} {
		spec := quant.ActSpec(quant.Int3)
		spec.Range = method
		p := &quant.Params{Spec: spec, Scale: []float32{0.25}, Zero: []int32{0}}
		if method == quant.TQT {
			p.Spec.Scheme = quant.PowerOfTwo
		}
		y, dx, learned, err := onceLearned(x, up, []int{2, 4}, qat.Config{Name: "t", Spec: p.Spec, Params: p})
		if err != nil {
			t.Fatal(err)
		}
		want := 0.0
		for i, v := range x {
			r := math.RoundToEven(float64(v) / 0.25)
			q, in := min(max(r, 0), 7), r >= 0 && r <= 7
			if float64(y[i]) != 0.25*q || (dx[i] != 0) != in {
				t.Errorf("%s: %v becomes %v with gradient %v", method, v, y[i], dx[i])
			}
			switch {
			case method == quant.PACT && float64(v)/0.25 >= 7:
				want += 7 * float64(up[i]) // dalpha * dalpha/ds
			case method == quant.TQT && in:
				want += math.Ln2 * 0.25 * float64(up[i]) * (r - float64(v)/0.25)
			case method == quant.TQT:
				want += math.Ln2 * 0.25 * float64(up[i]) * q
			}
		}
		if got := float64(learned[0][0]); math.Abs(got-want) > 1e-5*math.Abs(want) {
			t.Errorf("%s: gradient %v, want %v", method, got, want)
		}
	}
	for _, method := range []quant.Range{quant.LSQ, quant.LSQPlus, quant.PACT, quant.TQT} {
		spec := quant.ActSpec(quant.Int4)
		spec.Range = method
		if method == quant.TQT {
			spec.Scheme = quant.PowerOfTwo
		}
		y, _, _, err := onceLearned(x, up, []int{2, 4}, qat.Config{Name: "t", Spec: spec})
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range x {
			if d := math.Abs(float64(y[i] - v)); v > 0 && v < 1 && d > 0.35 {
				t.Errorf("%s without calibration: %v becomes %v", method, v, y[i])
			}
		}
	}
}
