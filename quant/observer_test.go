package quant_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
	"github.com/narrow-ml/narrow/quant"
)

func observer(t testing.TB, method quant.Range) *quant.Observer {
	t.Helper()
	s := quant.ActSpec(quant.Int8)
	s.Range = method
	o, err := quant.NewObserver(s, 7)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestObserverMethods(t *testing.T) {
	batches := [][]float32{{-1, 2}, {-3, 1}, {0.5, 8}, {0, 0}}
	for _, row := range []struct {
		method   quant.Range
		min, max []float32 // after each batch
	}{
		{quant.MinMax, []float32{-1, -3, -3, -3}, []float32{2, 2, 8, 8}},
		{quant.EMA, []float32{-1, -1.02, -1.0048, -0.994752}, []float32{2, 1.99, 2.0501, 2.029599}},
		{quant.Envelope, []float32{-1, -3, -2.997, -2.994003}, []float32{2, 1.998, 8, 7.992}},
	} {
		o := observer(t, row.method)
		for i, b := range batches {
			if err := o.Observe(b); err != nil {
				t.Fatal(err)
			}
			lo, hi := o.Range(0)
			if math.Abs(float64(lo-row.min[i])) > 1e-6 || math.Abs(float64(hi-row.max[i])) > 1e-6 {
				t.Errorf("%s after batch %d: [%v, %v], want [%v, %v]", row.method, i, lo, hi, row.min[i], row.max[i])
			}
		}
	}
}

// An envelope whose range lies on one side of 0 follows the batch there: the range is widened to 0 in any case.
func TestEnvelopeOnOneSide(t *testing.T) {
	o := observer(t, quant.Envelope)
	for _, b := range [][2]float32{{3, 9}, {1, 2}, {5, 6}} {
		if err := o.ObserveRange(b[0], b[1]); err != nil {
			t.Fatal(err)
		}
	}
	if lo, hi := o.Range(0); lo != 5 || math.Abs(float64(hi)-8.982009) > 1e-5 {
		t.Errorf("range [%v, %v]", lo, hi)
	}
}

func TestObserverPerChannel(t *testing.T) {
	s := quant.WeightSpec(quant.Int8)
	o, err := quant.NewObserver(s, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Observe([]float32{1, -254, -127, 3}); err != nil {
		t.Fatal(err)
	}
	p, err := o.Params()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Scale, []float32{1, 2}) || !slices.Equal(p.Zero, []int32{0, 0}) {
		t.Errorf("scales %v, zeros %v", p.Scale, p.Zero)
	}
	if o.Observe([]float32{1, 2, 3}) == nil {
		t.Error("three values of two channels are accepted")
	}
	if o.ObserveRange(0, 1) == nil {
		t.Error("one range for two channels is accepted")
	}
}

func TestObserverRefuses(t *testing.T) {
	inf := float32(math.Inf(1))
	nan := float32(math.NaN())
	o := observer(t, quant.MinMax)
	if _, err := o.Params(); err == nil {
		t.Error("params before the first batch")
	}
	if err := o.Observe([]float32{-1, 1}); err != nil {
		t.Fatal(err)
	}
	var at *quant.NaNError
	if err := o.Observe([]float32{9, nan}); !errors.As(err, &at) || at.Index != 1 {
		t.Errorf("NaN: %v", err)
	}
	for _, x := range [][]float32{{9, inf}, {-inf}} {
		if o.Observe(x) == nil {
			t.Errorf("%v is accepted", x)
		}
	}
	for _, r := range [][2]float32{{nan, 1}, {0, inf}, {2, 1}} {
		if o.ObserveRange(r[0], r[1]) == nil {
			t.Errorf("range %v is accepted", r)
		}
	}
	if err := o.Observe(nil); err != nil {
		t.Error(err)
	}
	if lo, hi := o.Range(0); lo != -1 || hi != 1 {
		t.Errorf("errors moved the range to [%v, %v]", lo, hi)
	}
	for _, s := range []quant.Spec{{}, {Format: quant.FP16}, {Format: quant.FP32}} {
		if _, err := quant.NewObserver(s, 1); err == nil {
			t.Errorf("an observer of %s", s)
		}
	}
	fixed := quant.ActSpec(quant.Int8)
	fixed.Range = quant.LSQ
	if _, err := quant.NewObserver(fixed, 1); err == nil || !strings.Contains(err.Error(), "lsq") {
		t.Errorf("an observer of a learned range: %v", err)
	}
	if _, err := quant.NewObserver(quant.WeightSpec(quant.Int8), 0); err == nil {
		t.Error("an observer of no channels")
	}
}

func TestObserverState(t *testing.T) {
	a, b := observer(t, quant.EMA), observer(t, quant.EMA)
	if err := b.Restore(a.State()); err != nil || b.Seen() {
		t.Errorf("restoring nothing: %v, seen %t", err, b.Seen())
	}
	for i := range 5 {
		if err := a.ObserveRange(-float32(i), 3); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Restore(a.State()); err != nil {
		t.Fatal(err)
	}
	for _, o := range []*quant.Observer{a, b} {
		if err := o.ObserveRange(-9, 9); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(a.State(), b.State()) {
		t.Errorf("a restored observer goes on to %v, the original to %v", b.State(), a.State())
	}
	for _, bad := range [][]float32{{1}, {2, 1}, {float32(math.NaN()), 1}, {0, float32(math.Inf(1))}} {
		if b.Restore(bad) == nil {
			t.Errorf("state %v is accepted", bad)
		}
	}
}

// What an observer adopts from calibrated parameters gives these parameters back, to rounding.
func TestObserverAdopt(t *testing.T) {
	p := &quant.Params{Spec: quant.ActSpec(quant.Int4), Scale: []float32{0.3}, Zero: []int32{5}}
	o, err := quant.NewObserver(p.Spec, 1)
	if err == nil {
		err = o.Adopt(p)
	}
	if err != nil {
		t.Fatal(err)
	}
	q, err := o.Params()
	if err != nil || math.Abs(float64(q.Scale[0])-0.3) > 1e-7 || q.Zero[0] != 5 {
		t.Errorf("%v %v (%v)", q.Scale, q.Zero, err)
	}
}

// grid finds the format whose codes are [lo, hi], any if several.
func grid(lo, hi int, symmetric bool, method quant.Range) (quant.Spec, error) {
	for f := quant.Int2; f <= quant.Int8; f++ {
		for _, signed := range []bool{false, true} {
			for _, narrow := range []bool{false, true} {
				s := quant.Spec{Format: f, Scheme: quant.Affine, Per: quant.PerTensor, Range: method, Rounding: quant.HalfEven, Signed: signed, Narrow: narrow}
				if symmetric {
					s.Scheme = quant.Symmetric
				}
				if a, b := s.Grid(); s.Validate() == nil && int(a) == lo && int(b) == hi {
					return s, nil
				}
			}
		}
	}
	return quant.Spec{}, fmt.Errorf("no format has the grid [%d, %d]", lo, hi)
}

// torchObserver replays a case of PyTorch's observers, one observer of ours for each channel (PyTorch's per-channel
// affine scheme has no place here, but the ranges are the same), and compares scales and zero points after every batch
// and the ranges after the last. The vectors hold the final range for every batch.
func torchObserver(c qtest.Case) error {
	method := quant.MinMax
	switch name := c.Str("observer"); {
	case name == "HistogramObserver":
		return fmt.Errorf("a histogram search is not a running range")
	case strings.HasPrefix(name, "MovingAverage") || name == "":
		method = quant.EMA
	}
	lo, hi := c.Int("quant_min", 0), c.Int("quant_max", 0)
	symmetric := strings.HasSuffix(c.Str("qscheme"), "symmetric") || c.Bool("symmetric")
	s, err := grid(lo, hi, symmetric, method)
	if err != nil {
		return err
	}
	var all []*quant.Observer
	batches := c.Int("batches", 0)
	for b := range batches {
		at := func(name string) qtest.Tensor { return c.Outputs[fmt.Sprintf("%s%d", name, b)] }
		scale, zero := at("scale").F32(), at("zero_point").I32()
		for len(all) < len(scale) {
			o, err := quant.NewObserver(s, 1)
			if err != nil {
				return err
			}
			o.Weight = float32(c.Float("averaging_constant", 0))
			all = append(all, o)
		}
		for ch, x := range channels(c.Inputs[fmt.Sprintf("batch%d", b)], c.Int("axis", -1), len(scale)) {
			o := all[ch]
			if err := o.Observe(x); err != nil {
				return err
			}
			p, err := o.Params()
			if err != nil {
				return err
			}
			if math.Abs(float64(p.Scale[0]/scale[ch])-1) > 1e-6 || p.Zero[0] != zero[ch] {
				return fmt.Errorf("batch %d, channel %d: scale %v zero %d, torch %v and %d", b, ch, p.Scale[0], p.Zero[0], scale[ch], zero[ch])
			}
			if y, ok := c.Outputs[fmt.Sprintf("y%d", b)]; ok { // the fused op quantizes with the range it has just updated
				if err := sameFakeQuant(x, y.F32(), p); err != nil {
					return fmt.Errorf("batch %d: %w", b, err)
				}
			}
			if b < batches-1 {
				continue
			}
			min, max := o.Range(0)
			if err := qtest.Close("range", []float32{min, max}, []float64{at("min").Data[ch], at("max").Data[ch]}, 1e-6, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// sameFakeQuant compares with torch, which multiplies by 1/s: a value within 1e-4 of a tie may be one step off.
func sameFakeQuant(x, want []float32, p *quant.Params) error {
	got := make([]float32, len(x))
	if err := quant.FakeQuantize(got, x, p, nil); err != nil {
		return err
	}
	s := float64(p.Scale[0])
	for i, w := range want {
		allowed := 2e-6 * math.Abs(float64(w)) // the scales agree to 1e-6
		if frac := math.Abs(float64(x[i]) / s); math.Abs(frac-math.Floor(frac)-0.5) < 1e-4 {
			allowed += s
		}
		if math.Abs(float64(got[i]-w)) > allowed {
			return fmt.Errorf("y[%d] = %v for %v, torch %v", i, got[i], x[i], w)
		}
	}
	return nil
}

// channels cuts x along axis.
func channels(x qtest.Tensor, axis, n int) [][]float32 {
	data := x.F32()
	if n == 1 {
		return [][]float32{data}
	}
	inner := 1
	for _, d := range x.Shape[axis+1:] {
		inner *= d
	}
	out := make([][]float32, n)
	for i, v := range data {
		c := i / inner % n
		out[c] = append(out[c], v)
	}
	return out
}

// The differences from PyTorch 1.13, each of them listed case by case.
const (
	histogram  = "HistogramObserver searches a range in a histogram: calibration, not an observer of ours"
	torchFused = "the fused op divides by 128 or 127, whichever end is reached; its own observers, and we, by 127.5"
)

func cases(op, why string, numbers ...int) qtest.Exceptions {
	e := qtest.Exceptions{}
	for _, n := range numbers {
		e[fmt.Sprintf("%s/%d", op, n)] = why
	}
	return e
}

func TestD7TorchObservers(t *testing.T) {
	perTensor := cases("observer_per_tensor", histogram,
		2, 5, 10, 13, 18, 25, 30, 33, 38, 41, 46, 53, 58, 61, 66, 69, 74, 81, 86, 89, 94, 97, 102, 109)
	for op, exceptions := range map[string]qtest.Exceptions{
		"observer_per_tensor":       perTensor,
		"observer_per_channel":      nil,
		"observer_fake_quant_fused": cases("observer_fake_quant_fused", torchFused, 0, 2, 4, 6),
	} {
		t.Run(op, func(t *testing.T) { qtest.Conform(t, op, exceptions, torchObserver) })
	}
}

func ExampleObserver() {
	o, err := quant.NewObserver(quant.ActSpec(quant.Int8), 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, batch := range [][]float32{{-1, 4}, {0, 2}, {-1.1, 3}} {
		if err := o.Observe(batch); err != nil {
			fmt.Println(err)
		}
		fmt.Println(o.Range(0))
	}
	// Output:
	// -1 4
	// -0.999 3.996
	// -1.1 3.9920042
}
