package infer_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/model"
)

// builder appends layers to a model, for the networks of the benchmarks.
type builder struct {
	m     *model.Model
	last  string
	width int // channels of last
}

func newBuilder(name string, shape model.Shape) *builder {
	return &builder{m: model.New(name, model.Input{Name: "x", Shape: shape, Scale: 1.0 / 255}), last: "x", width: shape[2]}
}

func (b *builder) add(n model.Node) {
	if n.In == nil {
		n.In = []string{b.last}
	}
	if n.Layer == "" {
		n.Layer = n.Name
	}
	b.m.Append(n)
	b.last = n.Name
}

// conv appends a convolution with batch norm; top limits its ReLU, and below 0 there is none.
func (b *builder) conv(name string, kernel, units, stride, groups int, top float32) {
	pad := (kernel - 1) / 2
	before := (b.m.Inputs[0].Shape[0] + stride - 1) % 2 // of an even size, a stride of 2 needs the padding behind it only
	if stride == 1 {
		before = pad
	}
	b.add(model.Node{Name: name + ".product", Layer: name, Op: model.Conv, Attr: model.Attr{
		Kernel: [2]int{kernel, kernel}, Stride: [2]int{stride, stride}, Pad: [4]int{min(before, pad), min(before, pad), pad, pad}, Groups: groups, Units: units}})
	b.add(model.Node{Name: name + ".norm", Layer: name, Op: model.BatchNorm, Attr: model.Attr{Eps: 1e-5, Momentum: 0.1}})
	if top >= 0 {
		b.add(model.Node{Name: name, Op: model.ReLU, Attr: model.Attr{Cap: top}})
	}
	b.width = units
}

func (b *builder) pool(name string) {
	b.add(model.Node{Name: name, Op: model.MaxPool, Attr: model.Attr{Kernel: [2]int{2, 2}, Stride: [2]int{2, 2}}})
}

func (b *builder) dense(name string, units int, relu bool) {
	b.add(model.Node{Name: name, Op: model.Dense, Attr: model.Attr{Units: units, Bias: true, Relu: relu}})
}

// block is a residual block of two convolutions.
func (b *builder) block(name string, units, stride int) {
	from, width := b.last, b.width
	b.conv(name+".a", 3, units, stride, 1, 0)
	b.conv(name+".b", 3, units, 1, 1, -1)
	sum := []string{b.last, from}
	if stride != 1 || width != units {
		b.add(model.Node{Name: name + ".short", Op: model.Conv, In: []string{from}, Attr: model.Attr{
			Kernel: [2]int{1, 1}, Stride: [2]int{stride, stride}, Groups: 1, Units: units, Bias: true}})
		sum[1] = b.last
	}
	b.add(model.Node{Name: name + ".sum", Layer: name, Op: model.Add, In: sum})
	b.add(model.Node{Name: name, Op: model.ReLU})
}

// mlp, cnn, mbnet and resnet8 are the networks of the presets and of the comparison with other frameworks.
func mlp(t testing.TB) *model.Model {
	b := newBuilder("mlp", model.Shape{28, 28, 1})
	b.add(model.Node{Name: "flat", Op: model.Flatten})
	b.dense("fc1", 256, true)
	b.dense("fc2", 256, true)
	b.dense("fc3", 10, false)
	return b.filled(t)
}

func cnn(t testing.TB) *model.Model {
	b := newBuilder("cnn", model.Shape{28, 28, 1})
	for i, units := range []int{32, 64} {
		b.conv(fmt.Sprintf("c%d", i+1), 3, units, 1, 1, 0)
		b.pool(fmt.Sprintf("p%d", i+1))
	}
	b.add(model.Node{Name: "flat", Op: model.Flatten})
	b.dense("fc1", 128, true)
	b.dense("fc2", 10, false)
	return b.filled(t)
}

func mbnet(t testing.TB) *model.Model {
	b := newBuilder("mbnet", model.Shape{28, 28, 1})
	b.conv("stem", 3, 16, 1, 1, 6)
	for i, l := range [][2]int{{32, 1}, {64, 2}, {64, 1}, {128, 2}} {
		b.conv(fmt.Sprintf("d%d", i+1), 3, b.width, l[1], b.width, 6)
		b.conv(fmt.Sprintf("p%d", i+1), 1, l[0], 1, 1, 6)
	}
	b.add(model.Node{Name: "mean", Op: model.GlobalAvgPool})
	b.dense("fc", 10, false)
	return b.filled(t)
}

func resnet8(t testing.TB) *model.Model {
	b := newBuilder("resnet8", model.Shape{32, 32, 3})
	b.conv("stem", 3, 16, 1, 1, 0)
	b.block("r1", 16, 1)
	b.block("r2", 32, 2)
	b.block("r3", 64, 2)
	b.add(model.Node{Name: "mean", Op: model.GlobalAvgPool})
	b.dense("fc", 10, false)
	return b.filled(t)
}

// filled gives the model random parameters under which values keep their size from layer to layer.
func (b *builder) filled(t testing.TB) *model.Model {
	m := filled(t, b.m, rand.New(rand.NewPCG(1, 1)))
	for i := range m.Nodes {
		n := &m.Nodes[i]
		if w := m.Params[n.Param(model.Weight)]; w != nil {
			f := float32(2 / math.Sqrt(float64(len(w.Data)/n.Attr.Units)))
			for j := range w.Data {
				w.Data[j] *= f
			}
		}
	}
	return m
}

// presets are those networks by name.
var presets = []struct {
	name  string
	build func(testing.TB) *model.Model
}{{"mlp", mlp}, {"cnn", cnn}, {"mbnet", mbnet}, {"resnet8", resnet8}}

// TestPresetsBatchesAgree runs the presets example by example, and all at once on two workers.
func TestPresetsBatchesAgree(t *testing.T) {
	for _, net := range presets {
		rnd := rand.New(rand.NewPCG(3, 3))
		m := net.build(t)
		const n = 5
		x := randomBytes(rnd, n*m.Inputs[0].Shape.Size())
		for _, precision := range []string{"fp32", "fp16", "bf16", "int8", "w4a16", "int16"} {
			q := quantized(t, m, precision, x, rnd)
			one, all := compile(t, q, infer.Options{Workers: 1}), compile(t, q, infer.Options{Workers: 2, MaxBatch: 2}).ShareAlways()
			want, got := make([]float32, n*one.Classes()), make([]float32, n*one.Classes())
			for i := range n {
				if err := one.Run(want[i*one.Classes():], x[i*one.InputSize():], 1); err != nil {
					t.Fatal(err)
				}
			}
			if err := all.Run(got, x, n); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s, %s: the logits of %d examples are not those of each", net.name, precision, n)
			}
		}
	}
}
