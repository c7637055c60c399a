package train

import (
	"math"
	"testing"

	"github.com/narrow-ml/narrow/model"
)

// The average against its definition in float64, through a swap and back.
func TestAverage(t *testing.T) {
	m := &model.Model{Params: map[string]*model.Param{"a": {Shape: model.Shape{2}, Data: []float32{1, -2}}}}
	live := m.Params["a"].Data
	a := newAverage(0.9, m)
	want := []float64{1, -2}
	for step := range 200 {
		live[0], live[1] = float32(step%7), float32(step)/10
		keep := math.Min(0.9, float64(1+step)/float64(10+step))
		for i := range want {
			want[i] = keep*want[i] + (1-keep)*float64(live[i])
		}
		a.update()
	}
	last := [2]float32{live[0], live[1]}
	a.swap()
	for i := range want {
		if math.Abs(float64(live[i])-want[i]) > 1e-5 {
			t.Errorf("average %d is %v, want %v", i, live[i], want[i])
		}
	}
	a.swap()
	if live[0] != last[0] || live[1] != last[1] {
		t.Errorf("after two swaps %v, want %v", live, last)
	}
}
