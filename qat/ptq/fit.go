package ptq

import (
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/model"
)

// fit computes a layer on its rows and the error of the result. Products are cut along outputs into the fixed shards of
// par, so that nothing depends on the number of workers.
type fit struct {
	*layerRows
	mul, add []float32 // y = mul*v + add, batch norm or bias
	relu     bool
	cap      float32 // 0: none
	pool     *par.Pool
	scratch  [par.Shards]kernel.Scratch
}

func newFit(r *layerRows, affine model.Affine, a model.Attr, pool *par.Pool) *fit {
	f := &fit{layerRows: r, relu: a.Relu, cap: a.Cap, pool: pool}
	f.mul, f.add = affine.Float32()
	return f
}

// forward writes v = x*w for rows [from, from+n).
func (f *fit) forward(v, w []float32, from, n int) error {
	x, per := f.x[from*f.width():], f.units/f.groups
	if f.groups > 1 {
		return f.pool.Run(f.groups, func(shard, lo, hi int) {
			for g := lo; g < hi; g++ {
				kernel.Gemm(v[g*per:], f.units, x[g*f.depth:], f.width(), false, w[g*per:], f.units, false, n, per, f.depth, false, &f.scratch[shard])
			}
		})
	}
	return f.pool.Run(n, func(shard, lo, hi int) {
		kernel.Gemm(v[lo*f.units:], f.units, x[lo*f.depth:], f.depth, false, w, f.units, false, hi-lo, f.units, f.depth, false, &f.scratch[shard])
	})
}

// backward writes dw = x^T*dv for rows [from, from+n).
func (f *fit) backward(dw, dv []float32, from, n int) error {
	x, per := f.x[from*f.width():], f.units/f.groups
	if f.groups > 1 {
		return f.pool.Run(f.groups, func(shard, lo, hi int) {
			for g := lo; g < hi; g++ {
				kernel.Gemm(dw[g*per:], f.units, x[g*f.depth:], f.width(), true, dv[g*per:], f.units, false, f.depth, per, n, false, &f.scratch[shard])
			}
		})
	}
	return f.pool.Run(f.depth, func(shard, lo, hi int) {
		kernel.Gemm(dw[lo*f.units:], f.units, x[lo:], f.depth, true, dv, f.units, false, hi-lo, f.units, n, false, &f.scratch[shard])
	})
}

// residual turns the products of rows [from, from+n) into the errors of the outputs, e = act(mul*v + add) - y, in place,
// and the derivative of e*e/2 with respect to v beside them, where dv is not nil.
func (f *fit) residual(v, dv []float32, from, n int) {
	y := f.y[from*f.units:]
	for i := range n * f.units {
		c := i % f.units
		slope := float32(1)
		if f.mul != nil {
			slope = f.mul[c]
		}
		t := float32(v[i]*slope) + f.add[c]
		if f.relu {
			if t < 0 {
				t, slope = 0, 0
			} else if f.cap > 0 && t > f.cap {
				t, slope = f.cap, 0
			}
		}
		e := t - y[i]
		v[i] = e
		if dv != nil {
			dv[i] = e * slope
		}
	}
}

// errors is the mean square of each channel's error over all rows, for weights w.
func (f *fit) errors(w []float32) ([]float64, error) {
	const chunk = 256
	sum := make([]float64, f.units)
	v := make([]float32, chunk*f.units)
	for from := 0; from < f.n; from += chunk {
		n := min(chunk, f.n-from)
		if err := f.forward(v, w, from, n); err != nil {
			return nil, err
		}
		f.residual(v, nil, from, n)
		for i, e := range v[:n*f.units] {
			sum[i%f.units] += float64(float64(e) * float64(e))
		}
	}
	for c := range sum {
		sum[c] /= float64(f.n)
	}
	return sum, nil
}
