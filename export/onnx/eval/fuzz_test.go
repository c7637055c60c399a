package eval_test

import (
	"math/rand/v2"
	"testing"

	"github.com/narrow-ml/narrow/export/onnx/eval"
	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

// Whatever the file, loading and both readings end in a result or an error.
func FuzzLoadRun(f *testing.F) {
	f.Add(onnxpb.Marshal(cnn(f, rand.New(rand.NewPCG(1, 1))).m))
	for _, name := range supported {
		if _, file, err := readCase("testdata/cases/" + name + ".json"); err == nil && len(file) < 400 {
			f.Add(file)
		}
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		m, err := onnxpb.Unmarshal(file)
		if err != nil {
			return
		}
		p, err := eval.Load(m)
		if err != nil {
			return
		}
		inputs := map[string]eval.Tensor{}
		for _, in := range m.Graph.Inputs {
			if in.Type == nil || in.Type.Shape == nil {
				return
			}
			x, n := eval.Tensor{Type: in.Type.Elem}, int64(1)
			for _, d := range in.Type.Shape.Dims {
				if !d.HasValue {
					d.Value = 2
				}
				if d.Value < 0 || d.Value > 4096 {
					return
				}
				n *= d.Value
				if n > 4096 {
					return
				}
				x.Shape = append(x.Shape, int(d.Value))
			}
			for i := range n {
				if x.IsReal() {
					x.Reals = append(x.Reals, float64(i%7)-2.5)
				} else {
					x.Ints = append(x.Ints, i%5)
				}
			}
			inputs[in.Name] = x
		}
		for _, r := range []eval.Reading{eval.Float, eval.Integer} {
			_, _ = p.Run(inputs, r, nil)
		}
	})
}
