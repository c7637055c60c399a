package infer

import "github.com/narrow-ml/narrow/internal/kernel"

// maxPool takes maxima over windows, of codes or of values; both keep the scale and any rounding of their input.
type maxPool struct {
	in, out *tensor
	geom    kernel.PoolGeom
}

func (p *maxPool) run(w *worker, n int) error {
	if p.in.coded() {
		kernel.MaxPoolU8(w.codes(p.out, n), nil, w.codes(p.in, n), n, p.geom)
	} else {
		kernel.MaxPool(w.values(p.out, n), nil, w.values(p.in, n), n, p.geom)
	}
	return nil
}

func (p *maxPool) kernel() string { return kind(p.in) + " max-pool" }

// relu is a ReLU that no layer before it took in: max(q, z) on codes, whose scale it shares.
type relu struct{ in, out *tensor }

func (r *relu) run(w *worker, n int) error {
	if !r.in.coded() {
		kernel.ReLU(w.values(r.out, n), w.values(r.in, n))
		return nil
	}
	z, y := uint8(r.in.params.Zero[0]), w.codes(r.out, n)
	for i, q := range w.codes(r.in, n) {
		y[i] = max(q, z)
	}
	return nil
}

func (r *relu) kernel() string { return kind(r.in) + " maximum with zero" }

func kind(t *tensor) string {
	if t.coded() {
		return "u8"
	}
	return "float32"
}
