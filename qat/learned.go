package qat

import (
	"math"

	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/quant"
)

// slopes are the sums over a tensor that the gradients of its learned numbers are made of. With t = x/s:
//
//	Scale     sum dy * { lo-z below, hi-z above, rint(t)-t inside }      (D5)
//	Outside   sum dy over what is outside the grid
//	Reach     sum dy over t >= hi-z
//
// Which of them a range method needs is in the table of [gradients]; the others stay 0.
type slopes struct{ Scale, Outside, Reach float64 }

// onlyScale reports a method that needs the first sum alone.
func onlyScale(r quant.Range) bool { return r != quant.PACT && r != quant.LSQPlus }

// add sums over elements x of scale s, which may be values in units of the scale and 1; limits are relative to the zero
// point.
func (k *slopes) add(r quant.Range, dy, x []float32, s float32, lo, hi int32) {
	if r != quant.PACT {
		k.Scale += kernel.ScaleGrad(dy, x, s, lo, hi)
	}
	k.others(r, dy, x, s, lo, hi)
}

// others is add without Scale.
func (k *slopes) others(r quant.Range, dy, x []float32, s float32, lo, hi int32) {
	switch r {
	case quant.PACT:
		k.Reach += kernel.ReachGrad(dy, x, s, hi)
	case quant.LSQPlus:
		k.Outside += kernel.OutsideGrad(dy, x, s, lo, hi)
	}
}

func (k *slopes) join(o slopes) {
	k.Scale += o.Scale
	k.Outside += o.Outside
	k.Reach += o.Reach
}

// gradients are those of the learned numbers of a range method, in the order of [quant.Range.Learned], from the sums k of a
// tensor with scale s, highest code hi relative to the zero point, factor g, and decay of a clipping limit:
//
//	lsq    ds = g*Scale
//	lsq+   ds = g*Scale            do = -g*s*Outside                 an offset is in codes
//	pact   ds = hi*(Reach + decay*alpha), alpha = s*hi               ds = dalpha * (dalpha/ds)
//	tqt    dt = ln2*s*Scale                                          s = 2^t but for the rounding up
func gradients(r quant.Range, k slopes, s float32, hi int32, g, decay float64) (first, second float32) {
	switch r {
	case quant.LSQPlus:
		return float32(k.Scale * g), float32(-k.Outside * g * float64(s))
	case quant.PACT:
		top := float64(hi)
		return float32((k.Reach + float64(decay*float64(s)*top)) * top), 0
	case quant.TQT:
		return float32(k.Scale * float64(s) * math.Ln2), 0
	}
	return float32(k.Scale * g), 0
}
