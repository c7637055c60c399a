package layers_test

import (
	"testing"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/model"
)

// benchNet is a network of the presets, for benchmarks.
type benchNet struct {
	name, preset string
	in           model.Shape
}

var benchNets = []benchNet{
	{"cnn", "fashion-cnn", model.Shape{28, 28, 1}},
	{"mlp", "mnist-mlp", model.Shape{784}},
	{"mbnet", "fashion-mbnet", model.Shape{28, 28, 1}},
	{"resnet8", "cifar-resnet8", model.Shape{32, 32, 3}},
}

func (n benchNet) model(b *testing.B) *model.Model {
	b.Helper()
	c, err := configs.Preset(n.preset)
	if err != nil {
		b.Fatal(err)
	}
	m, err := c.BuildModel(model.Input{Name: "x", Shape: n.in, Scale: 1.0 / 255})
	if err != nil {
		b.Fatal(err)
	}
	return fused(b, m)
}

// data is a batch of random bytes.
func (n benchNet) data() (x []uint8, labels []int32) {
	x, labels = make([]uint8, benchBatch*n.in.Size()), make([]int32, benchBatch)
	s := rng.New(1, rng.Test)
	for i := range x {
		x[i] = uint8(s.IntN(256))
	}
	for i := range labels {
		labels[i] = int32(s.IntN(10))
	}
	return x, labels
}
