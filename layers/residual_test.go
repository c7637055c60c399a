package layers_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
)

// convOf is a square convolution with the padding that keeps the extent at stride 1.
func convOf(name, layer, from string, units, kernel, stride, groups int, bias bool) model.Node {
	p := kernel / 2
	n := model.Node{Name: name, Layer: layer, Op: model.Conv, Attr: model.Attr{
		Units: units, Kernel: [2]int{kernel, kernel}, Stride: [2]int{stride, stride}, Pad: [4]int{p, p, p, p}, Groups: groups, Bias: bias}}
	if from != "" {
		n.In = []string{from}
	}
	return n
}

// block adds a conv with batch norm and a ReLU; limit 0 is a plain ReLU, below 0 none.
func block(m *model.Model, layer, from string, units, kernel, stride, groups int, limit float32) {
	m.Append(convOf(layer+"/conv", layer, from, units, kernel, stride, groups, false))
	name := layer
	if limit >= 0 {
		name += "/norm"
	}
	m.Append(model.Node{Name: name, Layer: layer, Op: model.BatchNorm, Attr: model.Attr{Eps: 1e-5, Momentum: 0.1}})
	if limit >= 0 {
		m.Append(model.Node{Name: layer, Layer: layer, Op: model.ReLU, Attr: model.Attr{Cap: limit}})
	}
}

// resNet has an identity shortcut, a strided 1x1 shortcut with bias and without norm, a tensor with three readers, and
// additions with ReLU, with a limited ReLU and without.
func resNet(t testing.TB) *model.Model {
	t.Helper()
	m := model.New("resnet", model.Input{Name: "x", Shape: model.Shape{8, 6, 2}, Scale: 1.0 / 64, Zero: 3})
	block(m, "c1", "", 4, 3, 1, 1, 0)
	block(m, "b1a", "c1", 4, 3, 1, 1, 0)
	block(m, "b1b", "b1a", 4, 3, 1, 1, -1)
	m.Append(model.Node{Name: "a1/add", Layer: "a1", Op: model.Add, In: []string{"b1b", "c1"}})
	m.Append(model.Node{Name: "a1", Layer: "a1", Op: model.ReLU})
	m.Append(convOf("side", "side", "c1", 4, 1, 1, 1, true))
	m.Append(model.Node{Name: "a2", Layer: "a2", Op: model.Add, In: []string{"side", "a1"}})
	block(m, "b2a", "a2", 6, 3, 2, 1, 0)
	block(m, "b2b", "b2a", 6, 3, 1, 1, -1)
	m.Append(convOf("short", "short", "a2", 6, 1, 2, 1, true))
	m.Append(model.Node{Name: "a3/add", Layer: "a3", Op: model.Add, In: []string{"b2b", "short"}})
	m.Append(model.Node{Name: "a3", Layer: "a3", Op: model.ReLU, Attr: model.Attr{Cap: 1.5}})
	m.Append(model.Node{Name: "f", Layer: "f", Op: model.Flatten})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: classes, Bias: true}})
	return fused(t, m)
}

// sumNet adds what comes from a ReLU to what does not, behind a ReLU again: two masks meet in one gradient.
func sumNet(t testing.TB) *model.Model {
	t.Helper()
	m := model.New("sumnet", model.Input{Name: "x", Shape: model.Shape{8, 6, 2}, Scale: 1.0 / 64, Zero: 3})
	block(m, "c1", "", 4, 3, 1, 1, 0)
	block(m, "left", "c1", 4, 3, 1, 1, 0)
	block(m, "right", "c1", 4, 3, 1, 1, -1)
	m.Append(model.Node{Name: "a/add", Layer: "a", Op: model.Add, In: []string{"left", "right"}})
	m.Append(model.Node{Name: "a", Layer: "a", Op: model.ReLU})
	m.Append(model.Node{Name: "f", Layer: "f", Op: model.Flatten})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: classes, Bias: true}})
	return fused(t, m)
}

// poolSum has an addition with a ReLU whose readers are poolings, which have no second input to be differentiated by:
// Gorgonia adds their gradients itself.
func poolSum(t testing.TB) *model.Model {
	t.Helper()
	m := model.New("poolsum", model.Input{Name: "x", Shape: model.Shape{8, 6, 2}, Scale: 1.0 / 64, Zero: 3})
	block(m, "c1", "", 4, 3, 1, 1, -1)
	block(m, "right", "c1", 4, 3, 1, 1, -1)
	m.Append(model.Node{Name: "a/add", Layer: "a", Op: model.Add, In: []string{"c1", "right"}})
	m.Append(model.Node{Name: "a", Layer: "a", Op: model.ReLU})
	m.Append(model.Node{Name: "p", Layer: "p", Op: model.MaxPool, In: []string{"a"}, Attr: model.Attr{Kernel: [2]int{3, 3}, Stride: [2]int{1, 1}, Pad: [4]int{1, 1, 1, 1}}})
	m.Append(model.Node{Name: "q", Layer: "q", Op: model.MaxPool, In: []string{"a"}, Attr: model.Attr{Kernel: [2]int{3, 3}, Stride: [2]int{1, 1}, Pad: [4]int{2, 2, 0, 0}}})
	m.Append(model.Node{Name: "b", Layer: "b", Op: model.Add, In: []string{"p", "q"}})
	m.Append(model.Node{Name: "f", Layer: "f", Op: model.Flatten})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: classes, Bias: true}})
	return fused(t, m)
}

// mobileNet has limited ReLUs, depthwise and strided convolutions, a global average and a limited ReLU of its own.
func mobileNet(t testing.TB) *model.Model {
	t.Helper()
	m := model.New("mobilenet", model.Input{Name: "x", Shape: model.Shape{8, 6, 2}, Scale: 1.0 / 64, Zero: 3})
	block(m, "c1", "", 4, 3, 1, 1, 1.2)
	block(m, "d1", "", 4, 3, 2, 4, 0.9)
	block(m, "p1", "", 6, 1, 1, 1, 1.1)
	m.Append(convOf("c2", "c2", "", 6, 3, 1, 2, true))
	m.Append(model.Node{Name: "mean", Layer: "mean", Op: model.GlobalAvgPool})
	m.Append(model.Node{Name: "own", Layer: "own", Op: model.ReLU, Attr: model.Attr{Cap: 0.35}})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: classes, Bias: true}})
	return fused(t, m)
}

// inputNet adds and averages the bytes themselves: nothing trained lies before them.
func inputNet(t testing.TB) *model.Model {
	t.Helper()
	m := model.New("inputnet", model.Input{Name: "x", Shape: model.Shape{8, 6, 2}, Scale: 1.0 / 64, Zero: 3})
	m.Append(model.Node{Name: "p", Layer: "p", Op: model.MaxPool, Attr: model.Attr{Kernel: [2]int{3, 3}, Stride: [2]int{1, 1}, Pad: [4]int{1, 1, 1, 1}}})
	m.Append(model.Node{Name: "a/add", Layer: "a", Op: model.Add, In: []string{"x", "p"}})
	m.Append(model.Node{Name: "a", Layer: "a", Op: model.ReLU, Attr: model.Attr{Cap: 4}})
	m.Append(convOf("c", "c", "a", 2, 3, 1, 1, true))
	m.Append(model.Node{Name: "b", Layer: "b", Op: model.Add, In: []string{"c", "a"}})
	m.Append(model.Node{Name: "g", Layer: "g", Op: model.GlobalAvgPool})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: classes, Bias: true}})
	return fused(t, m)
}

func residualNets(t testing.TB) map[string]*model.Model {
	return map[string]*model.Model{
		"resnet": resNet(t), "odd resnet": odd(resNet(t)), "sum": sumNet(t), "odd sum": odd(sumNet(t)), "pool sum": poolSum(t), "mobilenet": mobileNet(t), "odd mobilenet": odd(mobileNet(t)), "input": inputNet(t),
	}
}

// TestResidualRepeats: a second run on the same rows, and a second graph, give the same gradients to the bit. Gorgonia
// adds the gradients of a tensor with several readers in place, which must not leave anything behind.
func TestResidualRepeats(t *testing.T) {
	x, labels := blobs(12, 96, 31)
	for kind, float := range residualNets(t) {
		for _, name := range []string{"fp32", "int8", "w2a4"} {
			m := float.Clone()
			if name != "fp32" {
				m = quantized(t, m, precision(t, name), nil)
			}
			var want []uint32
			for graph := range 2 {
				net := build(t, m, layers.Options{Batch: 12, Train: true})
				net.SetPhase(layers.Phase{FreezeNorm: true, FreezeRanges: true}) // nothing moves between the runs
				for again := range 3 {
					run(t, net, x, labels, 12)
					got := fingerprint(m, net)
					if want == nil {
						want = got
					} else if !slices.Equal(got, want) {
						t.Fatalf("%s, %s: run %d of graph %d differs from the first", kind, name, again, graph)
					}
					run(t, net, x, labels, 7) // a partial batch leaves the other rows' memory dirty
				}
			}
		}
	}
}

func TestResidualWorkersDoNotChangeBits(t *testing.T) {
	for kind, float := range residualNets(t) {
		for _, name := range []string{"fp32", "bf16", "w4a8"} {
			var want []uint32
			for _, workers := range []int{1, 2, 3} {
				m := float.Clone()
				if name != "fp32" {
					m = quantized(t, m, precision(t, name), nil)
				}
				pool := par.New(workers)
				defer pool.Close()
				net := build(t, m, layers.Options{Batch: 20, Train: true, Pool: pool})
				adam(t, net, 20, 3, 96, 0.01)
				got := fingerprint(m, net)
				if want == nil {
					want = got
				} else if !slices.Equal(got, want) {
					t.Errorf("%s, %s: %d workers give other bits than 1", kind, name, workers)
				}
			}
		}
	}
}

// TestCapBoundsRanges: an observer behind a limited ReLU never sees more than the limit, whatever the accumulators hold.
func TestCapBoundsRanges(t *testing.T) {
	m := quantized(t, mobileNet(t), precision(t, "int8"), nil)
	net := build(t, m, layers.Options{Batch: 32, Train: true})
	adam(t, net, 32, 20, 96, 0.02)
	for name, limit := range map[string]float32{"c1": 1.2, "d1": 0.9, "p1": 1.1} {
		q := m.Quant[name]
		_, hi := q.Spec.Grid()
		if top := q.Scale[0] * float32(hi-q.Zero[0]); top > limit*1.01 || top < limit*0.2 {
			t.Errorf("%s: the grid ends at %v, the limit is %v", name, top, limit)
		}
	}
	net.SetPhase(layers.Phase{FreezeNorm: true}) // now the limit is the quantizer's
	adam(t, net, 32, 20, 96, 0.02)
	for name, limit := range map[string]float32{"c1": 1.2, "d1": 0.9, "p1": 1.1} {
		q := m.Quant[name]
		_, hi := q.Spec.Grid()
		if top := q.Scale[0] * float32(hi-q.Zero[0]); top > limit*1.01 {
			t.Errorf("%s, norm frozen: the grid ends at %v, the limit is %v", name, top, limit)
		}
	}
}

func TestBuildRefusesSums(t *testing.T) {
	m := quantized(t, resNet(t), precision(t, "int8"), nil)
	delete(m.Quant, "a2")
	if _, err := layers.Build(m, layers.Options{Batch: 2}); err == nil || fmt.Sprint(err) != `model "resnet": add "a2": a quantized model must end in a dense or conv layer, whose float32 logits are the output` {
		t.Error(err)
	}
}
