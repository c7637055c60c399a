package layers_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// compareGradients checks up to 8 elements of every trainable of net, which has just run, against finite differences of
// ref, and the loss too. A difference is measured against the tensor's largest gradient. factor says what a learned
// scale's gradient is multiplied by.
func compareGradients(t *testing.T, net *layers.Net, r layers.Result, ref *net64, tol float64, factor func(name string) float64) {
	t.Helper()
	if want := ref.cost(); math.Abs(r.Loss-want) > tol*math.Max(1, want) {
		t.Errorf("loss %v, reference %v", r.Loss, want)
	}
	for _, p := range net.Trainables() {
		largest := 0.0
		for _, g := range p.Grad {
			largest = math.Max(largest, math.Abs(float64(g)))
		}
		f := 1.0
		if p.Learned != 0 {
			f = factor(p.Name)
		}
		stride := max(1, len(p.Grad)/8)
		for i := 0; i < len(p.Grad); i += stride {
			want := f * ref.gradient(p.Name, i, 1e-6)
			if d := math.Abs(float64(p.Grad[i]) - want); d > tol*math.Max(largest, 1e-3) {
				t.Errorf("%s[%d]: gradient %v, finite difference %v (largest %v)", p.Name, i, p.Grad[i], want, largest)
				break
			}
		}
	}
}

// residualKinds are the networks of residual_test.go.
var residualKinds = []string{"resnet", "sum", "pool sum", "mobilenet", "input"}

// Every op of a float network, through the whole network: forward, backward, batch statistics or frozen ones, losses.
func TestFloatGradients(t *testing.T) {
	const n = 6
	x, labels := blobs(n, 96, 21)
	losses := []layers.Loss{{Kind: layers.CrossEntropy}, {Kind: layers.CrossEntropy, Smoothing: 0.1}, {Kind: layers.CrossEntropy, Smoothing: 0.1, Distill: layers.Distill{Weight: 0.7, Temperature: 3}}, {Kind: layers.MSE}, {Kind: layers.SmoothL1}, {Kind: layers.BCE}}
	for kind, m := range map[string]*model.Model{"conv": convNet(t), "dense": denseNet(t), "pool": poolNet(t), "odd": odd(convNet(t)),
		"resnet": resNet(t), "sum": sumNet(t), "pool sum": poolSum(t), "mobilenet": mobileNet(t), "input": inputNet(t)} {
		for _, frozen := range []bool{false, true} {
			for i, loss := range losses {
				if i > 0 && slices.Contains(residualKinds, kind) {
					continue // the loss does not depend on what is before it
				}
				t.Run(fmt.Sprintf("%s/frozen=%t/%s%v%v", kind, frozen, loss.Kind, loss.Smoothing, loss.Distill.Weight), func(t *testing.T) {
					m := m.Clone()
					ref := newNet64(m, frozen, loss, x, labels)
					net := build(t, m, layers.Options{Batch: n + 2, Train: true, Loss: loss})
					net.SetPhase(layers.Phase{FreezeNorm: frozen})
					if loss.Distill != (layers.Distill{}) {
						ref.teacher = teacherLogits(n, 3)
						if err := net.Teach(ref.teacher); err != nil {
							t.Fatal(err)
						}
					}
					r := run(t, net, x, labels, n)
					compareGradients(t, net, r, ref, 2e-4, nil)
				})
			}
		}
	}
}

// The straight-through and learned-scale gradients of a whole quantized network, against their definition.
func TestQuantizedGradients(t *testing.T) {
	const n = 6
	x, labels := blobs(n, 96, 22)
	loss := layers.Loss{Kind: layers.CrossEntropy}
	for kind, float := range map[string]*model.Model{"conv": convNet(t), "dense": denseNet(t), "pool": poolNet(t), "resnet": resNet(t), "sum": sumNet(t), "mobilenet": mobileNet(t), "input": inputNet(t)} {
		methods := learnedRanges(float)
		methods["default"] = nil
		for _, name := range []string{"int8", "w4a4", "int16"} {
			for method, change := range methods {
				later := method == "lsq+" || method == "pact" || method == "tqt"
				if name == "int16" {
					if method != "lsq" || kind != "conv" && kind != "dense" {
						continue
					}
					change = func(c *model.QuantConfig) { // layers with 64-bit accumulators
						c.Weight = quant.WeightSpec(quant.Int4)
						c.Weight.Range = quant.LSQ
					}
				}
				if later && (name == "int8" || kind == "resnet" || kind == "input" || testing.Short() && kind != "conv" && kind != "dense") {
					continue // they differ from lsq in one sum
				}
				if !later && slices.Contains(residualKinds, kind) && (name == "int8") != (method == "lsq") {
					continue // half of them: the reference is slow
				}
				for _, frozen := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%s/%s/frozen=%t", kind, name, method, frozen), func(t *testing.T) {
						m := quantized(t, float.Clone(), precision(t, name), change)
						for _, q := range m.Quant { // narrow the ranges, so that much is clamped
							if q != m.Quant["x"] && q.Ready() && !q.Spec.Signed {
								q.Scale[0] *= 0.75
								switch { // pact's sum has a step at its limit, and 3/4 puts an element within float32's error of it
								case q.Spec.Scheme == quant.PowerOfTwo:
									q.Scale[0] *= 2. / 3
								case q.Spec.Range == quant.PACT:
									q.Scale[0] *= 0.9
								}
							}
						}
						net := build(t, m, layers.Options{Batch: n + 2, Train: true, Loss: loss})
						ref := newNet64(m, frozen, loss, x, labels)
						net.SetPhase(layers.Phase{FreezeNorm: frozen, FreezeRanges: true})
						r := run(t, net, x, labels, n)
						compareGradients(t, net, r, ref, 2e-3, func(name string) float64 {
							tensor := name[:strings.LastIndex(name, ".")]
							q := m.Quant[tensor]
							if q.Spec.Range == quant.PACT || q.Spec.Range == quant.TQT {
								return 1
							}
							_, hi := q.Spec.Grid()
							size := 0
							if p := m.Params[tensor]; p != nil {
								size = len(p.Data) / len(q.Scale)
							} else {
								size = m.Node(tensor).Shape.Size()
							}
							return 1 / math.Sqrt(float64(size)*float64(hi))
						})
					})
				}
			}
		}
	}
}
