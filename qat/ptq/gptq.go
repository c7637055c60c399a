package ptq

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/quant"
)

// damping is the share of the mean diagonal that is added to the diagonal of the Hessian, as in the GPTQ paper.
const damping = 0.01

// maxDepth bounds the Hessian: depth*depth float64.
const maxDepth = 8192

// feedBack is GPTQ (arXiv:2210.17323): weights are rounded one input at a time, and the error each rounding makes in the
// layer's output is fed back into the inputs that are not rounded yet. With H = X^T X + damping and U the upper triangular
// factor of its inverse, H^-1 = U^T U, for input k and every output channel
//
//	e = (w[k] - s*q[k]) / U[k,k]       w[j] -= e*U[k,j]  for j > k
//
// Inputs are taken in order of falling H[k,k], so that those that matter most are rounded while there is most left to
// correct with. A group of a convolution has its own H.
func feedBack(ctx context.Context, g *grid, f *fit) ([]int8, error) {
	if f.depth > maxDepth {
		return nil, fmt.Errorf("each output has %d inputs and the Hessian would have %d^2 elements (at most %d^2): use rounding adaround", f.depth, f.depth, maxDepth)
	}
	codes, per := make([]int8, len(g.w)), f.units/f.groups
	h32 := make([]float32, f.depth*f.depth)
	for group := range f.groups {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		x := f.x[group*f.depth:]
		err := f.pool.Run(f.depth, func(shard, lo, hi int) {
			kernel.Gemm(h32[lo*f.depth:], f.depth, x[lo:], f.width(), true, x, f.width(), false, hi-lo, f.depth, f.n, false, &f.scratch[shard])
		})
		if err != nil {
			return nil, err
		}
		order, u, err := inverseFactor(h32, f.depth)
		if err != nil {
			return nil, err
		}
		err = f.pool.Run(per, func(_, lo, hi int) {
			w := make([]float64, f.depth)
			for c := group*per + lo; c < group*per+hi; c++ {
				g.feedBackChannel(codes, w, c, order, u)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return codes, nil
}

// feedBackChannel rounds the weights of one output channel; w is working memory.
func (g *grid) feedBackChannel(codes []int8, w []float64, c int, order []int, u []float64) {
	units := g.units
	for i, k := range order {
		w[i] = float64(g.w[k*units+c])
	}
	n := len(order)
	for i, k := range order {
		s := g.at(k*units + c)
		q := quant.One(float32(w[i]), s, 0, g.lo, g.hi)
		codes[k*units+c] = int8(q)
		row := u[i*n : (i+1)*n]
		e := (w[i] - float64(float64(s)*float64(q))) / row[i]
		for j := i + 1; j < n; j++ {
			w[j] -= float64(e * row[j])
		}
	}
}

// inverseFactor damps the Hessian h [n, n] and returns its order of inputs and U with H^-1 = U^T U in that order. With R
// the reversal of the order and R H R = L L^T, U is R L^-1 R.
func inverseFactor(h []float32, n int) (order []int, u []float64, err error) {
	order = make([]int, n)
	mean := 0.0
	for i := range order {
		order[i] = i
		mean += float64(h[i*n+i]) / float64(n)
	}
	if math.IsNaN(mean) || math.IsInf(mean, 0) {
		return nil, nil, fmt.Errorf("its inputs are not finite: the float model diverged or its weights are damaged")
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch x, y := h[a*n+a], h[b*n+b]; {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	damp := damping * mean
	if damp == 0 {
		damp = 1 // no input is ever other than zero: H is the identity and the weights round to nearest
	}
	l := make([]float64, n*n) // row by row, in reversed order
	for i := range n {
		a := order[n-1-i]
		for j := range i + 1 {
			v := float64(h[a*n+order[n-1-j]])
			if i == j {
				v += damp
			}
			l[i*n+j] = v
		}
	}
	if !cholesky(l, n) {
		return nil, nil, fmt.Errorf("the Hessian of its inputs is not positive definite after damping: use rounding adaround")
	}
	invertLower(l, n)
	u = make([]float64, n*n)
	for i := range n {
		for j := range i + 1 {
			u[(n-1-i)*n+n-1-j] = l[i*n+j]
		}
	}
	return order, u, nil
}

// cholesky replaces the lower triangle of a by L with a = L*L^T; false when a is not positive definite.
func cholesky(a []float64, n int) bool {
	for i := range n {
		row := a[i*n:][:n]
		for j := range i {
			row[j] = (row[j] - dot(row[:j], a[j*n:][:j])) / a[j*n+j]
		}
		d := row[i] - dot(row[:i], row[:i])
		if !(d > 0) || math.IsInf(d, 0) {
			return false
		}
		row[i] = math.Sqrt(d)
	}
	return true
}

// invertLower replaces the lower triangle l by its inverse, row by row: row i of the inverse is
//
//	(e_i - sum_{j<i} l[i,j]*inv[j]) / l[i,i]
func invertLower(l []float64, n int) {
	acc := make([]float64, n)
	for i := range n {
		row := l[i*n:][:i+1]
		clear(acc[:i])
		for j, v := range row[:i] {
			inv := l[j*n:][:j+1]
			for k, x := range inv {
				acc[k] -= float64(v * x)
			}
		}
		d := row[i]
		for k := range i {
			row[k] = acc[k] / d
		}
		row[i] = 1 / d
	}
}

// dot has four partial sums, so that it does not wait for each addition; no multiply-add is fused.
func dot(a, b []float64) float64 {
	var s0, s1, s2, s3 float64
	b = b[:len(a)]
	for len(a) >= 4 {
		s0 += float64(a[0] * b[0])
		s1 += float64(a[1] * b[1])
		s2 += float64(a[2] * b[2])
		s3 += float64(a[3] * b[3])
		a, b = a[4:], b[4:]
	}
	for i, x := range a {
		s0 += float64(x * b[i])
	}
	return (s0 + s1) + (s2 + s3)
}
