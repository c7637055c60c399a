package kernel_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/internal/kernel"
)

// addByDefinition is one element of a sum in big steps: products rounded to float32 apart, one addition, clamp, rint.
func addByDefinition(qa, qb uint8, a, b kernel.Term, zero, lo, hi int32) (t float32, code uint8) {
	x := float64(int32(qa)-a.Zero) * float64(a.M) // exact: 9 bits by 24
	y := float64(int32(qb)-b.Zero) * float64(b.M)
	t = float32(float64(float32(x)) + float64(float32(y))) // two float32 in float64: at worst rounded where float32 is too
	v := math.RoundToEven(math.Min(math.Max(float64(t), float64(lo-zero)), float64(hi-zero)))
	return t, uint8(int32(v) + zero)
}

func TestAddRequant(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		za, zb, zero, lo, hi int32
		ma, mb               float32
		relu                 bool
	}{
		{0, 0, 0, 0, 255, 1, 1, false},
		{3, 200, 128, 0, 255, 0.5, 0.5, false}, // half of all sums are ties
		{0, 17, 5, 5, 255, 0.731, 1.3, true},
		{0, 0, 0, 0, 92, 0.4, 0.25, true},     // ReLU6
		{255, 0, 9, 0, 15, 0.03, 0.05, false}, // four bits
		{0, 0, 0, 0, 255, 1e-6, 1e6, false},
	} {
		for _, n := range []int{0, 1, 7, 8, 9, 63, 1000} {
			a, b := kernel.Term{Q: make([]uint8, n), Zero: c.za, M: c.ma}, kernel.Term{Q: make([]uint8, n), Zero: c.zb, M: c.mb}
			for i := range n {
				a.Q[i], b.Q[i] = uint8(rnd.Uint32()), uint8(rnd.Uint32())
			}
			codes, scaled := make([]uint8, n), make([]float32, n)
			kernel.AddRequant(codes, a, b, c.zero, c.lo, c.hi)
			kernel.AddScaled(scaled, a, b)
			trained, mask := make([]uint8, n), make([]uint8, kernel.MaskLen(n))
			st := kernel.AddRequantTrain(trained, mask, a, b, c.zero, c.lo, c.hi, c.relu)
			least, most := float32(math.Inf(1)), float32(math.Inf(-1))
			for i := range n {
				x, want := addByDefinition(a.Q[i], b.Q[i], a, b, c.zero, c.lo, c.hi)
				r := math.RoundToEven(float64(x))
				pass := r >= float64(c.lo-c.zero) && r <= float64(c.hi-c.zero) && (!c.relu || x > 0)
				if scaled[i] != x || codes[i] != want || trained[i] != want || (mask[i/8]>>(i%8)&1 == 1) != pass {
					t.Fatalf("%+v: %d and %d: sum %v, code %d, in training %d, mask %v; want %v, %d, %v", c, a.Q[i], b.Q[i], scaled[i], codes[i], trained[i], mask[i/8]>>(i%8)&1, x, want, pass)
				}
				least, most = min(least, x), max(most, x)
			}
			if n > 0 && (st.Min != least || st.Max != most) {
				t.Errorf("%+v: extremes %v, want %v and %v", c, st, least, most)
			}
			kernel.AddRequant(a.Q, a, b, c.zero, c.lo, c.hi)
			if !slices.Equal(a.Q, codes) {
				t.Errorf("%+v: in place the sum differs", c)
			}
		}
	}
}

func TestMean(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 2))
	for _, c := range []struct{ n, cells, channels int }{{1, 1, 1}, {2, 49, 5}, {3, 64, 16}, {1, 4096, 3}} {
		x := make([]uint8, c.n*c.cells*c.channels)
		values := make([]float32, len(x))
		for i := range x {
			x[i] = uint8(rnd.Uint32())
			values[i] = rnd.Float32() - 0.3
		}
		const zero, m, zy, lo, hi = 37, float32(0.0113), int32(4), int32(4), int32(99)
		acc, codes, means := make([]int32, c.n*c.channels), make([]uint8, c.n*c.channels), make([]float32, c.n*c.channels)
		kernel.MeanSums(acc, x, zero, c.n, c.cells, c.channels)
		kernel.MeanRequant(codes, x, zero, m, zy, lo, hi, c.n, c.cells, c.channels, new(kernel.Scratch))
		kernel.GlobalAvg(means, values, c.n, c.cells, c.channels)
		for i := range c.n {
			for ch := range c.channels {
				var sum int64
				mean := 0.0
				for p := range c.cells {
					at := (i*c.cells+p)*c.channels + ch
					sum += int64(x[at]) - zero
					mean += float64(values[at]) / float64(c.cells)
				}
				at := i*c.channels + ch
				want := uint8(math.RoundToEven(math.Min(math.Max(float64(float32(sum)*m), float64(lo-zy)), float64(hi-zy)))) + uint8(zy)
				if int64(acc[at]) != sum || codes[at] != want {
					t.Fatalf("%+v [%d,%d]: sum %d, code %d; want %d, %d", c, i, ch, acc[at], codes[at], sum, want)
				}
				if math.Abs(float64(means[at])-mean) > 1e-5 {
					t.Fatalf("%+v [%d,%d]: mean %v, want %v", c, i, ch, means[at], mean)
				}
			}
		}
		dx := make([]float32, len(x))
		kernel.GlobalAvgGrad(dx, means, c.n, c.cells, c.channels)
		for i, v := range dx {
			if want := means[i/(c.cells*c.channels)*c.channels+i%c.channels] / float32(c.cells); v != want {
				t.Fatalf("%+v: dx[%d] = %v, want %v", c, i, v, want)
			}
		}
	}
}

func ExampleReLUCap() {
	x := []float32{-1, 0.5, 5.5, 6, 7}
	y, dx := make([]float32, 5), make([]float32, 5)
	kernel.ReLUCap(y, x, 6)
	kernel.ReLUCapGrad(dx, []float32{1, 2, 3, 4, 5}, y, 6)
	fmt.Println(y, dx)
	// Output: [0 0.5 5.5 6 6] [0 2 3 0 0]
}

func ExampleClampU8() {
	q, dx := []uint8{0, 9, 10, 11, 70, 71}, make([]float32, 6)
	kernel.ClampU8Grad(dx, []float32{1, 2, 3, 4, 5, 6}, q, 10, 70)
	kernel.ClampU8(q, q, 10, 70)
	fmt.Println(q, dx)
	// Output: [10 10 10 11 70 70] [0 0 0 4 5 0]
}
