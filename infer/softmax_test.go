package infer_test

import (
	"math"
	"testing"

	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/model"
)

func TestSoftmax(t *testing.T) {
	m := model.New("net", model.Input{Name: "x", Shape: model.Shape{2}, Scale: 1})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: 3}})
	m, err := model.Shapes(m)
	if err != nil {
		t.Fatal(err)
	}
	e, err := infer.Compile(m, infer.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	logits := []float32{1, 2, 3, -1000, 0, 1000}
	p := make([]float32, 6)
	e.Softmax(p, logits)
	sum := math.Exp(-2) + math.Exp(-1) + 1
	for i, want := range []float64{math.Exp(-2) / sum, math.Exp(-1) / sum, 1 / sum, 0, 0, 1} {
		if math.Abs(float64(p[i])-want) > 1e-6 {
			t.Errorf("p[%d] = %v, want %v", i, p[i], want)
		}
	}
}
