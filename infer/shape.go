package infer

import (
	"fmt"

	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/model"
)

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

// relu is a ReLU that no layer before it took in: limits on codes, whose scale it shares.
type relu struct {
	in, out *tensor
	name    string
	after   activation
	lo, hi  uint8 // limits of codes
}

func newReLU(n *model.Node, in, out *tensor) op {
	r := &relu{in: in, out: out, name: fmt.Sprintf("%s %q", n.Op, n.Layer), after: activationOf(n)}
	if in.coded() {
		_, lo, hi := n.Limits(in.params)
		r.lo, r.hi = uint8(lo), uint8(hi)
	} else if in.wide() && n.Attr.Cap > 0 {
		_, _, hi := n.Limits(in.params)
		r.after.cap = float32(hi)
	}
	return r
}

func (r *relu) run(w *worker, n int) error {
	if !r.in.coded() {
		y := w.values(r.out, n)
		copy(y, w.values(r.in, n))
		return r.out.store(r.name, y, r.after, w.first) // a limit may lie between two 16-bit values
	}
	kernel.ClampU8(w.codes(r.out, n), w.codes(r.in, n), r.lo, r.hi)
	return nil
}

func (r *relu) kernel() string {
	if r.after.cap > 0 {
		return kind(r.in) + fmt.Sprintf(" limited to [0, %v]", r.after.cap)
	}
	return kind(r.in) + " maximum with zero"
}

func kind(t *tensor) string {
	if t.coded() {
		return "u8"
	}
	return "float32"
}
