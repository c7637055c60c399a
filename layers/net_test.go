package layers_test

import (
	"math"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
)

const classes = 4

// convNet is conv+norm+relu, maxpool, grouped strided conv+relu, flatten, dense+norm+relu, dense: all that Build knows.
func convNet(t testing.TB) *model.Model {
	t.Helper()
	m := model.New("convnet", model.Input{Name: "x", Shape: model.Shape{8, 6, 2}, Scale: 1.0 / 64, Zero: 3})
	norm := model.Attr{Eps: 1e-5, Momentum: 0.1}
	m.Append(model.Node{Name: "c1/conv", Layer: "c1", Op: model.Conv, Attr: model.Attr{Units: 4, Kernel: [2]int{3, 3}, Stride: [2]int{1, 1}, Pad: [4]int{1, 1, 1, 1}, Groups: 1}})
	m.Append(model.Node{Name: "c1/norm", Layer: "c1", Op: model.BatchNorm, Attr: norm})
	m.Append(model.Node{Name: "c1", Layer: "c1", Op: model.ReLU})
	m.Append(model.Node{Name: "p1", Layer: "p1", Op: model.MaxPool, Attr: model.Attr{Kernel: [2]int{2, 2}, Stride: [2]int{2, 2}}})
	m.Append(model.Node{Name: "c2/conv", Layer: "c2", Op: model.Conv, Attr: model.Attr{Units: 6, Kernel: [2]int{3, 2}, Stride: [2]int{1, 2}, Pad: [4]int{1, 0, 0, 1}, Groups: 2, Bias: true}})
	m.Append(model.Node{Name: "c2", Layer: "c2", Op: model.ReLU})
	m.Append(model.Node{Name: "f1", Layer: "f1", Op: model.Flatten})
	m.Append(model.Node{Name: "fc1/dense", Layer: "fc1", Op: model.Dense, Attr: model.Attr{Units: 8, Bias: true}})
	m.Append(model.Node{Name: "fc1/norm", Layer: "fc1", Op: model.BatchNorm, Attr: norm})
	m.Append(model.Node{Name: "fc1", Layer: "fc1", Op: model.ReLU})
	m.Append(model.Node{Name: "fc2", Layer: "fc2", Op: model.Dense, Attr: model.Attr{Units: classes, Bias: true}})
	return fused(t, m)
}

// denseNet is dense+relu, dense.
func denseNet(t testing.TB) *model.Model {
	t.Helper()
	m := model.New("densenet", model.Input{Name: "x", Shape: model.Shape{96}, Scale: 1.0 / 64})
	m.Append(model.Node{Name: "fc1/dense", Layer: "fc1", Op: model.Dense, Attr: model.Attr{Units: 16, Bias: true}})
	m.Append(model.Node{Name: "fc1", Layer: "fc1", Op: model.ReLU})
	m.Append(model.Node{Name: "fc2", Layer: "fc2", Op: model.Dense, Attr: model.Attr{Units: classes, Bias: true}})
	return fused(t, m)
}

func fused(t testing.TB, m *model.Model) *model.Model {
	t.Helper()
	m, err := model.Shapes(m)
	if err == nil {
		m, err = model.Fuse(m)
	}
	if err == nil {
		m, err = model.Shapes(m)
	}
	if err == nil {
		err = layers.Init(m, 11)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// blobs are examples of four classes: each has its own bright band in the bytes, under noise.
func blobs(n, row int, seed uint64) (x []uint8, labels []int32) {
	s := rng.New(seed, rng.Test)
	x, labels = make([]uint8, n*row), make([]int32, n)
	for i := range n {
		y := s.IntN(classes)
		labels[i] = int32(y)
		for k := range row {
			v := s.IntN(90)
			if k*classes/row == y {
				v += 60 + s.IntN(100)
			}
			x[i*row+k] = uint8(v)
		}
	}
	return x, labels
}

func build(t testing.TB, m *model.Model, o layers.Options) *layers.Net {
	t.Helper()
	net, err := layers.Build(m, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(net.Close)
	return net
}

func run(t testing.TB, net *layers.Net, x []uint8, labels []int32, n int) layers.Result {
	t.Helper()
	r, err := net.Run(x, labels, n)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// adam trains for steps batches of size batch and returns the first and the last loss.
func adam(t testing.TB, net *layers.Net, batch, steps, row int, lr float64) (first, last layers.Result) {
	t.Helper()
	params := net.Trainables()
	moments := make([][2][]float32, len(params))
	for i, p := range params {
		moments[i] = [2][]float32{make([]float32, len(p.Value)), make([]float32, len(p.Value))}
	}
	for step := 1; step <= steps; step++ {
		x, labels := blobs(batch, row, uint64(step))
		last = run(t, net, x, labels, batch)
		if step == 1 {
			first = last
		}
		for i, p := range params {
			rate := lr
			if p.Learned != 0 {
				rate /= 100
			}
			kernel.Adam(p.Value, p.Grad, moments[i][0], moments[i][1], nil, step, kernel.AdamConfig{LR: rate, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8})
		}
	}
	return first, last
}

func TestFloatTrainingLearns(t *testing.T) {
	for _, m := range []*model.Model{convNet(t), denseNet(t)} {
		for _, kind := range layers.LossKinds() {
			t.Run(m.Name+"/"+kind, func(t *testing.T) {
				m := m.Clone()
				net := build(t, m, layers.Options{Batch: 32, Train: true, Loss: layers.Loss{Kind: kind}})
				first, last := adam(t, net, 32, 60, 96, 0.01)
				if !(last.Loss < first.Loss/3) || last.Correct < 30 {
					t.Errorf("loss %v -> %v, %d of %d right", first.Loss, last.Loss, last.Correct, last.N)
				}
				x, labels := blobs(100, 96, 999)
				eval := build(t, m, layers.Options{Batch: 100})
				if r := run(t, eval, x, labels, 100); r.Correct < 95 || r.N != 100 {
					t.Errorf("evaluation graph: %d of %d right", r.Correct, r.N)
				}
			})
		}
	}
}

// The same bytes for any number of workers: parameters, statistics and logits after some steps.
func TestWorkersDoNotChangeBits(t *testing.T) {
	var want []uint32
	for _, workers := range []int{1, 2, 3} {
		m := convNet(t)
		pool := par.New(workers)
		defer pool.Close()
		net := build(t, m, layers.Options{Batch: 20, Train: true, Pool: pool})
		adam(t, net, 20, 4, 96, 0.01)
		got := fingerprint(m, net)
		if want == nil {
			want = got
		} else if !slices.Equal(got, want) {
			t.Errorf("%d workers give other bits than 1", workers)
		}
	}
}

// A partial batch computes as a graph of its own size does.
func TestPartialBatch(t *testing.T) {
	a, b := convNet(t), convNet(t)
	big, small := build(t, a, layers.Options{Batch: 16, Train: true}), build(t, b, layers.Options{Batch: 5, Train: true})
	x, labels := blobs(16, 96, 1)
	run(t, big, x, labels, 16)
	run(t, small, x, labels, 5) // a run to make the running statistics differ from their start
	b2 := a.Clone()
	small2 := build(t, b2, layers.Options{Batch: 5, Train: true})
	x, labels = blobs(5, 96, 2)
	r1, r2 := run(t, big, x, labels, 5), run(t, small2, x, labels, 5)
	if r1 != r2 {
		t.Errorf("5 rows of 16: %+v, 5 of 5: %+v", r1, r2)
	}
	if !slices.Equal(fingerprint(a, big), fingerprint(b2, small2)) {
		t.Error("gradients or statistics of a partial batch differ from those of a full one")
	}
}

func fingerprint(m *model.Model, net *layers.Net) []uint32 {
	var bits []uint32
	add := func(v []float32) {
		for _, f := range v {
			bits = append(bits, math.Float32bits(f))
		}
	}
	for _, name := range m.ParamNames() {
		add(m.Params[name].Data)
	}
	for _, name := range m.QuantNames() {
		add(m.Quant[name].Scale)
	}
	for _, p := range net.Trainables() {
		add(p.Grad)
	}
	add(net.Logits())
	return bits
}

func TestUnlabelledRowsDoNotCount(t *testing.T) {
	m := denseNet(t)
	net := build(t, m, layers.Options{Batch: 8, Train: true})
	x, labels := blobs(8, 96, 1)
	three := run(t, net, x, labels, 3)
	for i := 3; i < 8; i++ {
		labels[i] = -1
	}
	if r := run(t, net, x, labels, 8); r != three {
		t.Errorf("5 rows without label: %+v, without these rows: %+v", r, three)
	}
	if r := run(t, net, x, nil, 8); r.N != 0 || r.Loss != 0 {
		t.Errorf("no labels: %+v", r)
	}
}

func TestTrainables(t *testing.T) {
	m := convNet(t)
	net := build(t, m, layers.Options{Batch: 2, Train: true})
	var names []string
	for _, p := range net.Trainables() {
		names = append(names, p.Name+":"+p.Role)
		if len(p.Value) != len(p.Grad) || &p.Value[0] != &m.Params[p.Name].Data[0] {
			t.Errorf("%s: value is not the model's, or the gradient does not fit", p.Name)
		}
	}
	want := []string{
		"c1.beta:beta", "c1.gamma:gamma", "c1.weight:weight", "c2.bias:bias", "c2.weight:weight",
		"fc1.beta:beta", "fc1.bias:bias", "fc1.gamma:gamma", "fc1.weight:weight", "fc2.bias:bias", "fc2.weight:weight",
	}
	if !slices.Equal(names, want) {
		t.Errorf("trainables %v, want %v", names, want)
	}
	if eval := build(t, m, layers.Options{Batch: 2}); len(eval.Trainables()) != 0 {
		t.Error("an evaluation graph has trainables")
	}
}
