package layers_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// tiledNet has what the block's passes look at: sixteen channels with batch norm, bias, ReLU and a pooling of 3x2
// windows; a layer of ReLU6 without norm whose pooling does not tile; one without ReLU whose pooling does.
func tiledNet(t testing.TB) *model.Model {
	t.Helper()
	m := model.New("tilednet", model.Input{Name: "x", Shape: model.Shape{12, 8, 1}, Scale: 1.0 / 64, Zero: 3})
	conv := model.Attr{Units: 16, Kernel: [2]int{3, 3}, Stride: [2]int{1, 1}, Pad: [4]int{1, 1, 1, 1}, Groups: 1, Bias: true}
	pool := func(name string, kh, kw, sh, sw int) {
		m.Append(model.Node{Name: name, Layer: name, Op: model.MaxPool, Attr: model.Attr{Kernel: [2]int{kh, kw}, Stride: [2]int{sh, sw}}})
	}
	m.Append(model.Node{Name: "c1/conv", Layer: "c1", Op: model.Conv, Attr: conv})
	m.Append(model.Node{Name: "c1/norm", Layer: "c1", Op: model.BatchNorm, Attr: model.Attr{Eps: 1e-5, Momentum: 0.1}})
	m.Append(model.Node{Name: "c1", Layer: "c1", Op: model.ReLU})
	pool("p1", 3, 2, 3, 2)
	m.Append(model.Node{Name: "c2/conv", Layer: "c2", Op: model.Conv, Attr: conv})
	m.Append(model.Node{Name: "c2", Layer: "c2", Op: model.ReLU, Attr: model.Attr{Cap: 6}})
	pool("p2", 2, 2, 1, 2)
	m.Append(model.Node{Name: "c3", Layer: "c3", Op: model.Conv, Attr: conv})
	pool("p3", 3, 1, 3, 1)
	m.Append(model.Node{Name: "flat", Layer: "flat", Op: model.Flatten})
	m.Append(model.Node{Name: "fc1/dense", Layer: "fc1", Op: model.Dense, Attr: model.Attr{Units: 24, Bias: true}})
	m.Append(model.Node{Name: "fc1/norm", Layer: "fc1", Op: model.BatchNorm, Attr: model.Attr{Eps: 1e-5, Momentum: 0.1}})
	m.Append(model.Node{Name: "fc1", Layer: "fc1", Op: model.ReLU})
	m.Append(model.Node{Name: "fc2", Layer: "fc2", Op: model.Dense, Attr: model.Attr{Units: classes, Bias: true}})
	return fused(t, m)
}

// track trains for some steps, with batch norm and then without, and returns everything that a step leaves behind.
func track(t *testing.T, m *model.Model, fuse bool, workers int, backward string) (trace []string) {
	t.Helper()
	pool := par.New(workers)
	defer pool.Close()
	const batch = 11
	net := build(t, m, layers.Options{Batch: batch, Train: true, Fuse: fuse, Pool: pool, Backward: backward})
	params := net.Trainables()
	moments := make([][2][]float32, len(params))
	for i, p := range params {
		moments[i] = [2][]float32{make([]float32, len(p.Value)), make([]float32, len(p.Value))}
	}
	hash := func(bits []uint32) uint64 {
		h := uint64(14695981039346656037)
		for _, b := range bits {
			h = (h ^ uint64(b)) * 1099511628211
		}
		return h
	}
	for step := 1; step <= 6; step++ {
		net.SetPhase(layers.Phase{FreezeNorm: step > 3, FreezeRanges: step > 5})
		rows := batch - step%3
		x, labels := blobs(rows, 96, uint64(step))
		r := run(t, net, x, labels, rows)
		note := func(what string, v []float32) {
			bits := make([]uint32, len(v))
			for i, f := range v {
				bits[i] = math.Float32bits(f)
			}
			trace = append(trace, fmt.Sprintf("step %d: %s: %x", step, what, hash(bits)))
		}
		trace = append(trace, fmt.Sprintf("step %d: %+v", step, r))
		note("logits", net.Logits())
		for i, p := range params {
			note("gradient of "+p.Name, p.Grad)
			lr := 0.01
			if p.Learned != 0 {
				lr = 1e-4
			}
			kernel.Adam(p.Value, p.Grad, moments[i][0], moments[i][1], nil, step, kernel.AdamConfig{LR: lr, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8})
		}
		for _, name := range m.ParamNames() {
			note("parameter "+name, m.Params[name].Data)
		}
		for _, name := range m.QuantNames() {
			q := m.Quant[name]
			note("scale of "+name, slices.Concat(q.Scale, q.Learned))
		}
		for i := range m.Nodes {
			name := m.Nodes[i].Name
			behind := i+1 < len(m.Nodes) && m.Nodes[i+1].Op == model.MaxPool
			if codes, values, ok := net.Tensor(name); ok && !behind { // what a pooling reads is inside a block
				bits := make([]uint32, len(codes))
				for k, q := range codes {
					bits[k] = uint32(q)
				}
				trace = append(trace, fmt.Sprintf("step %d: codes of %s: %x", step, name, hash(bits)))
				note("values of "+name, values)
			}
		}
	}
	return trace
}

// Both forms of a training graph leave the same bits behind after every step: loss, codes, every gradient, running
// statistics, ranges and learned scales, for any number of workers.
func TestFusedEqualsSeparate(t *testing.T) {
	for _, float := range []*model.Model{tiledNet(t), odd(tiledNet(t)), convNet(t), denseNet(t), poolNet(t), resNet(t), sumNet(t), odd(sumNet(t)), poolSum(t), mobileNet(t)} {
		for _, name := range []string{"fp32", "fp16", "int8", "w4a4", "w2a4"} {
			methods := learnedRanges(float)
			methods[""], methods["ema"] = nil, perTensor
			for method, change := range methods {
				p := precision(t, name)
				if method != "" && !p.Act.IsInteger() || testing.Short() && name == "w2a4" || name != "w4a4" && (method == "lsq+" || method == "pact" || method == "tqt") {
					continue
				}
				t.Run(float.Name+"/"+name+"/"+method, func(t *testing.T) {
					q := float
					switch {
					case p.Act.IsInteger():
						q = quantized(t, float, p, change)
					case p.Act != quant.FP32:
						var err error
						if q, err = model.Place(float, model.DefaultQuant(p)); err == nil {
							q, err = model.Share(q)
						}
						if err != nil {
							t.Fatal(err)
						}
					}
					backwards := []string{layers.BackwardFloat}
					if p.Act.IsInteger() && method != "ema" && name != "w4a4" {
						backwards = append(backwards, layers.BackwardInt16)
					}
					for _, backward := range backwards {
						want := track(t, q.Clone(), false, 1, backward)
						for workers := 1; workers <= 3; workers++ {
							got := track(t, q.Clone(), true, workers, backward)
							for i, w := range want {
								if i >= len(got) || got[i] != w {
									t.Fatalf("backward %s, %d workers: fused %q, separate %q", backward, workers, got[min(i, len(got)-1)], w)
								}
							}
							if len(got) != len(want) {
								t.Fatalf("%d results fused, %d separate", len(got), len(want))
							}
						}
					}
				})
			}
		}
	}
}

// A drawing of the fused graph still shows the quantizers of weights and inputs, and a block says what it has inside.
func TestFusedDot(t *testing.T) {
	net := build(t, quantized(t, tiledNet(t), precision(t, "int8"), nil), layers.Options{Batch: 2, Train: true, Fuse: true})
	var text strings.Builder
	if err := net.Dot(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"fakequant input x", "fakequant weight c1", "conv+batchnorm+relu+maxpool+fakequant act c1", "dense+batchnorm+relu+fakequant act fc1"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the drawing has no %q", want)
		}
	}
	if _, _, ok := net.Tensor("c1"); ok {
		t.Error("a tensor inside a block is there")
	}
}
