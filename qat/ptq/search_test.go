package ptq_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
	"github.com/narrow-ml/narrow/qat/ptq"
)

// qparams is D6 on a range, the rule of PyTorch's observers.
func qparams(lo, hi float32, c qtest.Case) (scale float64, zero int) {
	l, h := min(float64(lo), 0), max(float64(hi), 0)
	qmin, qmax := c.Float("quant_min", 0), c.Float("quant_max", 0)
	if strings.HasSuffix(c.Str("qscheme"), "symmetric") {
		if c.Str("dtype") == "quint8" {
			zero = 128
		}
		return max(max(-l, h)/((qmax-qmin)/2), c.Float("eps", 0)), zero
	}
	scale = max((h-l)/(qmax-qmin), c.Float("eps", 0))
	return scale, int(min(max(qmin-math.RoundToEven(l/scale), qmin), qmax))
}

// TestHistogramObserverD8 holds the observer to PyTorch 1.13: range of the histogram exactly, scale within 2 %, zero point
// within 1, after every batch.
func TestHistogramObserverD8(t *testing.T) {
	seen := 0
	for _, c := range qtest.Cases(t, "observer_per_tensor") {
		if c.Str("observer") != "HistogramObserver" {
			continue
		}
		seen++
		o := ptq.HistogramObserver{Bins: c.Int("bins", 0), Levels: 256, Truncate: true}
		for i := range c.Int("batches", 0) {
			if err := o.Observe(c.Inputs[fmt.Sprintf("batch%d", i)].F32()); err != nil {
				t.Fatal(err)
			}
			lo, hi := o.Range()
			s, z := qparams(lo, hi, c)
			want, zero := float64(c.Outputs[fmt.Sprintf("scale%d", i)].F32()[0]), int(c.Outputs[fmt.Sprintf("zero_point%d", i)].I32()[0])
			if math.Abs(s-want) > 0.02*want || z < zero-1 || z > zero+1 {
				t.Errorf("%s batch %d: scale %v zero %d, PyTorch %v and %d", c.Name, i, s, z, want, zero)
			}
		}
	}
	if seen != 24 {
		t.Errorf("%d cases, want 24", seen)
	}
}

// TestHistogramObserverStates: no values, one value, values that are refused, a histogram that has to grow.
func TestHistogramObserverStates(t *testing.T) {
	o := ptq.HistogramObserver{Bins: 64, Levels: 16}
	if lo, hi := o.Range(); lo != 0 || hi != 0 {
		t.Errorf("no data: [%v, %v]", lo, hi)
	}
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1))} {
		if err := o.Observe([]float32{1, bad}); err == nil || !strings.Contains(err.Error(), "value[1]") {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if err := o.Observe([]float32{3, 3, 3}); err != nil {
		t.Fatal(err)
	}
	if lo, hi := o.Range(); lo != 3 || hi != 3 {
		t.Errorf("one value: [%v, %v]", lo, hi)
	}
	for scale := float32(1); scale < 1000; scale *= 10 {
		x := make([]float32, 500)
		for i := range x {
			x[i] = scale * float32(i-100) / 400
		}
		if err := o.Observe(x); err != nil {
			t.Fatal(err)
		}
	}
	if lo, hi := o.Range(); lo > -10 || hi < 50 || lo < -26 || hi > 105 {
		t.Errorf("three decades: [%v, %v]", lo, hi)
	}
	if err := (&ptq.HistogramObserver{}).Observe([]float32{1}); err == nil || !strings.Contains(err.Error(), "0 bins and 0 levels") {
		t.Errorf("no settings: %v", err)
	}
}

// The largest value is alone far out; the search leaves it out.
func ExampleHistogramObserver() {
	o := ptq.HistogramObserver{Bins: 2048, Levels: 16}
	x := []float32{9}
	for i := range 4000 {
		x = append(x, float32(i)/1000)
	}
	if err := o.Observe(x); err != nil {
		fmt.Println(err)
		return
	}
	lo, hi := o.Range()
	fmt.Printf("%.1f to %.1f\n", lo, hi)
	// Output: 0.0 to 4.0
}
