package ptq_test

import (
	"testing"

	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat/ptq"
)

// residual is a conv, its sum with a depthwise branch under a limited ReLU, the mean over the image, and the logits.
func residual(t *testing.T) *model.Model {
	t.Helper()
	conv := func(name, from string, kernel, groups int) model.Node {
		p := kernel / 2
		return model.Node{Name: name, Layer: name, Op: model.Conv, In: []string{from}, Attr: model.Attr{Kernel: [2]int{kernel, kernel}, Stride: [2]int{1, 1}, Pad: [4]int{p, p, p, p}, Groups: groups, Units: 16, Bias: true}}
	}
	m := model.New("residual", model.Input{Name: "x", Shape: model.Shape{6, 6, 1}, Scale: 1.0 / 64, Zero: 128})
	m.Append(conv("c1", "x", 3, 1))
	m.Append(conv("dw", "c1", 3, 16))
	m.Append(model.Node{Name: "sum/add", Layer: "sum", Op: model.Add, In: []string{"dw", "c1"}})
	m.Append(model.Node{Name: "sum", Layer: "sum", Op: model.ReLU, Attr: model.Attr{Cap: 1.5}})
	m.Append(model.Node{Name: "mean", Layer: "mean", Op: model.GlobalAvgPool})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: 3, Bias: true}})
	m, err := model.Shapes(m)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = model.Fuse(m); err != nil {
		t.Fatal(err)
	}
	s := rng.New(3, rng.Test)
	for _, name := range m.ParamNames() {
		for i := range m.Params[name].Data {
			m.Params[name].Data[i] = float32(s.Norm()) * 0.4
		}
	}
	return m
}

// TestCalibratesSumsAndMeans: operations without weights get ranges too, of what they store.
func TestCalibratesSumsAndMeans(t *testing.T) {
	m := residual(t)
	train, test := lesson(t, m, 300, 1), lesson(t, m, 400, 2)
	for _, method := range []ptq.Method{ptq.MinMax, ptq.Percentile, ptq.MSE} {
		q, err := ptq.Calibrate(t.Context(), m, precision(t, "int8"), train, ptq.Options{Workers: 1, Method: method})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"sum", "mean"} {
			p := q.Quant[name]
			if p == nil || !p.Ready() || p.Zero[0] != 0 {
				t.Fatalf("%s: %s has quantizer %+v", method, name, p)
			}
			if top := p.Scale[0] * 255; top > 1.5001 || top < 0.1 {
				t.Errorf("%s: the grid of %s ends at %v, its values at 1.5", method, name, top)
			}
		}
		if got := agreement(t, q, test); got < 95 {
			t.Errorf("%s: int8 agrees with float on %.1f %%, want at least 95", method, got)
		}
	}
	if _, err := ptq.Calibrate(t.Context(), m, precision(t, "fp16"), train, ptq.Options{Workers: 1}); err != nil {
		t.Error(err)
	}
}
