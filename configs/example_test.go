package configs_test

import (
	"errors"
	"fmt"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

func ExampleParse() {
	_, err := configs.Parse("mine.yaml", []byte(`version: 1
dataset: {name: digits, batch: 8.5}
model:
  - flatten: {}
  - dense: {units: 10}
train: {epochs: 5, optimzer: adam}
`), "seed=-1")
	fmt.Println(err)
	var e *configs.Errors
	fmt.Println(errors.As(err, &e), len(e.Problems), e.Problems[1].Field)
	// Output:
	// --set seed=-1: seed: is the number -1 (allowed: a whole number from 0 to 18446744073709551615)
	// mine.yaml:2: dataset.batch: is the number 8.5 (allowed: a whole number from 1 to 65536)
	//     2 | dataset: {name: digits, batch: 8.5}
	//       |                                ^^^
	// mine.yaml:6: train.optimzer: unknown key (allowed: epochs, optimizer, lr, momentum, nesterov, weight_decay, beta1, beta2, eps, schedule, warmup_steps, step_every, step_gamma, min_lr, loss, label_smoothing, early_stop, init_range, weight_clip, track_test); did you mean "optimizer"?
	//     6 | train: {epochs: 5, optimzer: adam}
	//       |                    ^^^^^^^^
	// true 3 dataset.batch
}

func ExampleOpen() {
	c, err := configs.Open("digits", "train.epochs=2", "model.fc1.units=32")
	fmt.Println(c.Name, c.Train.Epochs, c.Model[1].Dense.Units, err)
	_, err = configs.Open("digts")
	fmt.Println(err)
	// Output:
	// digits-mlp 2 32 <nil>
	// no preset is called "digts" (allowed: cifar-resnet8, digits-cnn, digits-mlp, fashion-cnn, fashion-mbnet, fashion-mlp, mnist-mlp, mnist-sfc, mnist-tfc); did you mean "digits-mlp"?
}

func ExampleConfig_BuildModel() {
	c, err := configs.Preset("digits-cnn")
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := c.BuildModel(model.Input{Name: "input", Shape: model.Shape{8, 8, 1}, Scale: 1.0 / 16})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, n := range m.Nodes {
		fmt.Println(n.Name, n.Op, n.Shape, n.Origin)
	}
	// Output:
	// c1 conv [8 8 16] digits-cnn.yaml:7
	// c2 conv [8 8 32] digits-cnn.yaml:8
	// pool maxpool [4 4 32] digits-cnn.yaml:9
	// flatten1 flatten [512] digits-cnn.yaml:10
	// fc1 dense [64] digits-cnn.yaml:11
	// fc2 dense [10] digits-cnn.yaml:12
}

func ExampleConfig_QuantConfig() {
	c, err := configs.Open("digits", "quant.rules=[{layer: fc3, weight: {format: int8}}]")
	if err != nil {
		fmt.Println(err)
		return
	}
	p, _ := quant.ParsePrecision("w4a8")
	q, err := c.QuantConfig(p)
	fmt.Println(q.Weight, "|", q.Act, "|", q.Rules[0].Layer, q.Rules[0].Weight, err)
	// Output:
	// int4 symmetric/channel/lsq | int8 affine/tensor/envelope | fc3 int8 symmetric/channel/lsq <nil>
}
