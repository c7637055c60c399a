package layers_test

import (
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/internal/cpu"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
)

// One step of both backward passes from the same point: the forward pass is the same to the bit, and each gradient is near
// the float one. Rounding to max steps leaves half a step of the greatest gradient, so the distance is a matter of how
// far the greatest stands out.
func TestInt16GradientsAreNearTheFloatOnes(t *testing.T) {
	for _, float := range []*model.Model{tiledNet(t), odd(tiledNet(t)), convNet(t), denseNet(t), poolNet(t), resNet(t), mobileNet(t)} {
		for _, name := range []string{"int8", "w4a4"} {
			t.Run(float.Name+"/"+name, func(t *testing.T) {
				q := quantized(t, float, precision(t, name), learned)
				x, labels := blobs(16, 96, 3)
				nets := map[string]*layers.Net{}
				losses := map[string]float64{}
				for _, backward := range layers.Backwards() {
					nets[backward] = build(t, q.Clone(), layers.Options{Batch: 16, Train: true, Fuse: true, Backward: backward})
					losses[backward] = run(t, nets[backward], x, labels, 16).Loss
				}
				if losses[layers.BackwardFloat] != losses[layers.BackwardInt16] {
					t.Errorf("losses %v", losses)
				}
				rounded := false
				for i, p := range nets[layers.BackwardFloat].Trainables() {
					got := nets[layers.BackwardInt16].Trainables()[i].Grad
					var d, n, far float64
					for j, v := range p.Grad {
						d += (float64(got[j]) - float64(v)) * (float64(got[j]) - float64(v))
						n += float64(v) * float64(v)
						far = max(far, math.Abs(float64(got[j])-float64(v)))
					}
					rounded = rounded || d > 0
					const least = 1e-3 // a bias whose shift the next batch norm takes away has a gradient of rounding errors
					if len(p.Grad) > 1 && math.Sqrt(d/max(n, least)) > 2e-3 {
						t.Errorf("%s: relative distance %.1e, at most %.1e", p.Name, math.Sqrt(d/max(n, least)), far)
					}
				}
				if !rounded {
					t.Error("all gradients are the float ones: nothing was rounded")
				}
			})
		}
	}
}

func TestInt16TrainingLearns(t *testing.T) {
	for _, float := range []*model.Model{convNet(t), denseNet(t), resNet(t)} {
		adam(t, build(t, float, layers.Options{Batch: 32, Train: true}), 32, 20, 96, 0.01)
		for _, name := range []string{"int8", "w2a4"} {
			q := quantized(t, float, precision(t, name), learned)
			first, last := adam(t, build(t, q, layers.Options{Batch: 32, Train: true, Fuse: true, Backward: layers.BackwardInt16}), 32, 60, 96, 0.01)
			if !(last.Loss < 0.5*first.Loss) {
				t.Errorf("%s %s: loss from %v to %v", float.Name, name, first.Loss, last.Loss)
			}
		}
	}
}

// A gradient that leaves float32 has no integers.
func TestInt16RefusesInfiniteGradients(t *testing.T) {
	q := quantized(t, denseNet(t), precision(t, "int8"), nil)
	for _, name := range q.ParamNames() {
		if strings.HasSuffix(name, ".weight") {
			for i := range q.Params[name].Data {
				q.Params[name].Data[i] *= 1e25
			}
		}
	}
	net := build(t, q, layers.Options{Batch: 8, Train: true, Fuse: true, Backward: layers.BackwardInt16})
	x, labels := blobs(8, 96, 3)
	_, err := net.Run(x, labels, 8)
	if err == nil || !strings.Contains(err.Error(), "a gradient is NaN or infinite") {
		t.Errorf("error %v", err)
	}
}

func TestBackwardRefuses(t *testing.T) {
	float := denseNet(t)
	for _, c := range []struct {
		m        *model.Model
		backward string
		want     string
	}{
		{float, layers.BackwardInt16, "this model has none"},
		{quantized(t, float, precision(t, "int8"), nil), "int8", `unknown backward pass "int8" (allowed: float, int16)`},
	} {
		_, err := layers.Build(c.m, layers.Options{Batch: 4, Train: true, Backward: c.backward})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.backward, err, c.want)
		}
	}
}

// Each layer has integers in the backward pass, or a reason why not.
func TestIntegerBackward(t *testing.T) {
	q := quantized(t, mobileNet(t), precision(t, "int8"), nil)
	want := map[string]string{"c1": "", "d1": "grouped convolution", "p1": "", "c2": "grouped convolution", "fc": ""}
	for i := range q.Nodes {
		n := &q.Nodes[i]
		why, ok := want[n.Layer]
		if !ok {
			continue
		}
		got := ""
		if err := layers.IntegerBackward(q, n, 32); err != nil {
			got = err.Error()
		}
		if got != why {
			t.Errorf("%s: %q, want %q", n.Layer, got, why)
		}
	}
	float := mobileNet(t)
	if err := layers.IntegerBackward(float, &float.Nodes[0], 32); err == nil {
		t.Error("a float layer has no integers")
	}
}

// traceOfTier is set in the process that trains on another instruction tier.
const traceOfTier = "NARROW_TEST_TRACE"

// With integer gradients no product of a quantized network is a float one, and all else gives the same bits everywhere: so
// does training, on every instruction tier. A process has one tier, so others train in processes of their own.
func TestInt16TrainingIsTheSameOnEveryTier(t *testing.T) {
	q, err := model.Place(tiledNet(t), model.DefaultQuant(precision(t, "w4a8")))
	if err == nil {
		q, err = model.Share(q)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range q.QuantNames() {
		if p := q.Quant[name]; !p.Spec.Signed && !p.Ready() { // calibration runs the float network, whose products have a tier
			p.Scale, p.Zero = []float32{0.02}, []int32{0}
		}
	}
	h := fnv.New64a()
	for _, line := range track(t, q, true, 2, layers.BackwardInt16) {
		fmt.Fprintln(h, line)
	}
	trace := fmt.Sprintf("trace %x\n", h.Sum(nil))
	if os.Getenv(traceOfTier) != "" {
		fmt.Print(trace)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for tier := cpu.Generic; tier <= cpu.Hardware(); tier++ {
		if tier == cpu.Active() {
			continue
		}
		c := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$")
		c.Env = append(os.Environ(), traceOfTier+"=1", "NARROW_ISA="+tier.String())
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", tier, err, out)
		}
		if !strings.Contains(string(out), trace) {
			t.Errorf("%s: %s, %s: %s", cpu.Active(), trace, tier, out)
		}
	}
}
