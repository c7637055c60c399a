package kernel

import (
	"math"
	"testing"
)

// Statistics joined from groups of any size are those of two passes in float64, also far from zero; of a constant channel
// only the rounding of the mean is left.
func TestMoments(t *testing.T) {
	const channels, rows = 19, 333
	r := newRand(7)
	x := make([]float32, rows*channels)
	for i := range x {
		c := i % channels
		x[i] = float32(c*c*40) + float32(r.NormFloat64())*float32(1+c)
		if c == 3 {
			x[i] = 0.1
		}
	}
	var all, part Moments
	all.Reset(channels)
	for from, n := 0, 1; from < rows; from, n = from+n, n*3 {
		part.Reset(channels)
		part.Add(x[from*channels : min(from+n, rows)*channels])
		part.Add(nil)
		all.Join(&part)
	}
	mean, variance, inv := make([]float32, channels), make([]float32, channels), make([]float32, channels)
	all.Stats(mean, variance, inv, 1e-5)
	for c := range channels {
		var m, v float64
		for i := range rows {
			m += float64(x[i*channels+c]) / rows
		}
		for i := range rows {
			d := float64(x[i*channels+c]) - m
			v += d * d / rows
		}
		if math.Abs(float64(mean[c])-m) > 1e-6*(1+math.Abs(m)) || math.Abs(float64(variance[c])-v) > 1e-5*v+1e-14 {
			t.Errorf("channel %d: mean %v, variance %v, want %v and %v", c, mean[c], variance[c], m, v)
		}
		if want := float32(1 / math.Sqrt(float64(variance[c])+1e-5)); math.Abs(float64(inv[c]/want-1)) > 1e-6 {
			t.Errorf("channel %d: 1/std %v, want %v", c, inv[c], want)
		}
	}
	if variance[3] > 1e-14 {
		t.Errorf("a constant channel has variance %v", variance[3])
	}
}
