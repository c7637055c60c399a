package layers_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// With weights 1, 1/2, 1/3 ... the running statistics become the plain means of the batches'.
func TestNormWeightGivesPlainMeans(t *testing.T) {
	for name, m := range map[string]*model.Model{"float": convNet(t), "w4a4": quantized(t, convNet(t), precision(t, "w4a4"), nil)} {
		for _, fuse := range []bool{false, true} {
			net := build(t, m, layers.Options{Batch: 16, Train: true, Fuse: fuse})
			stats := m.Params["c1.var"].Data
			var sums [4]float64
			const batches = 5
			for k := range uint64(batches) {
				x, labels := blobs(16, 96, k)
				net.SetPhase(layers.Phase{FreezeRanges: true, NormWeight: 1})
				run(t, net, x, labels, 16)
				for c, v := range stats {
					sums[c] += float64(v) / batches
				}
			}
			for k := range uint64(batches) {
				x, labels := blobs(16, 96, k)
				net.SetPhase(layers.Phase{FreezeRanges: true, NormWeight: 1 / float64(k+1)})
				run(t, net, x, labels, 16)
			}
			for c, v := range stats {
				if math.Abs(float64(v)-sums[c]) > 1e-6*sums[c] {
					t.Errorf("%s, fuse %t: variance of channel %d is %v, the mean of the batches' %v", name, fuse, c, v, sums[c])
				}
			}
		}
	}
}

func TestTeachRefuses(t *testing.T) {
	x, labels := blobs(3, 96, 1)
	plain := build(t, convNet(t), layers.Options{Batch: 3, Train: true})
	if err := plain.Teach(make([]float32, 3*classes)); err == nil || !strings.Contains(err.Error(), "no teacher") {
		t.Errorf("a loss without a teacher: %v", err)
	}
	net := build(t, convNet(t), layers.Options{Batch: 3, Train: true, Loss: layers.Loss{Distill: layers.Distill{Weight: 0.5, Temperature: 2}}})
	if err := net.Teach(make([]float32, 3*classes-1)); err == nil || !strings.Contains(err.Error(), "rows of 4") {
		t.Errorf("a part of a row: %v", err)
	}
	if _, err := net.Run(x, labels, 3); err == nil || !strings.Contains(err.Error(), "Teach") {
		t.Errorf("a run without the teacher's logits: %v", err)
	}
	if err := net.Teach(make([]float32, 3*classes)); err != nil {
		t.Fatal(err)
	}
	run(t, net, x, labels, 3)
	if _, err := net.Run(x, labels, 3); err == nil {
		t.Error("the logits of one run served another")
	}
	for _, loss := range []layers.Loss{
		{Distill: layers.Distill{Weight: 1.5, Temperature: 2}}, {Distill: layers.Distill{Weight: 0.5}},
		{Kind: layers.MSE, Distill: layers.Distill{Weight: 0.5, Temperature: 2}},
	} {
		if _, err := layers.Build(convNet(t), layers.Options{Batch: 3, Train: true, Loss: loss}); err == nil || !strings.Contains(err.Error(), "distillation") {
			t.Errorf("loss %+v: %v", loss, err)
		}
	}
}

// A teacher that gives the student's own logits moves nothing but through the labels.
func TestDistillationFromItselfIsTheLabelsAlone(t *testing.T) {
	x, labels := blobs(8, 96, 3)
	m := convNet(t)
	plain := build(t, m.Clone(), layers.Options{Batch: 8, Train: true})
	want := run(t, plain, x, labels, 8)
	net := build(t, m.Clone(), layers.Options{Batch: 8, Train: true, Loss: layers.Loss{Distill: layers.Distill{Weight: 0.5, Temperature: 4}}})
	if err := net.Teach(slices.Clone(plain.Logits())); err != nil {
		t.Fatal(err)
	}
	got := run(t, net, x, labels, 8)
	if math.Abs(got.Loss-want.Loss/2) > 1e-9 {
		t.Errorf("loss %v, want half of %v", got.Loss, want.Loss)
	}
	for i, p := range net.Trainables() {
		for k, g := range p.Grad {
			if w := plain.Trainables()[i].Grad[k] / 2; math.Abs(float64(g-w)) > 1e-6 {
				t.Fatalf("%s[%d]: gradient %v, want %v", p.Name, k, g, w)
			}
		}
	}
}

// Codes are those that the frozen model has.
func TestCodesAreThoseOfFreeze(t *testing.T) {
	m := quantized(t, convNet(t), precision(t, "w4a4"), learned)
	net := build(t, m, layers.Options{Batch: 4, Train: true, Fuse: true})
	net.SetPhase(layers.Phase{FreezeNorm: true, FreezeRanges: true})
	x, labels := blobs(4, 96, 1)
	run(t, net, x, labels, 4)
	frozen, err := model.Freeze(m)
	if err != nil {
		t.Fatal(err)
	}
	codes := net.Codes()
	if len(codes) != 4 {
		t.Fatalf("%d weights, want 4", len(codes))
	}
	for _, w := range codes {
		if !slices.Equal(w.Codes, frozen.Params[w.Name].Codes) { // gamma is positive: no sign changes
			t.Errorf("%s: codes differ from the frozen model's", w.Name)
		}
		if w.Spec.Format != quant.Int4 {
			t.Errorf("%s: %s", w.Name, w.Spec)
		}
	}
	if float := build(t, convNet(t), layers.Options{Batch: 4, Train: true}); len(float.Codes()) != 0 {
		t.Error("a float graph has codes")
	}
}
