package qat

import (
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/quant"
)

// Needs says which inputs get gradients.
func (a *Act) Needs() []bool {
	needs := []bool{a.needDX}
	for range a.learned {
		needs = append(needs, true)
	}
	return needs
}

// Backward is the straight-through estimator and the gradients of what is learned.
func (a *Act) Backward(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	k := &actGrad{f: a}
	var result G.Value
	if signSlope(a.p.Spec.Estimator) == nil && !gx.Foreign(grad) {
		k.masked = NewMaskedGrad(a.st, a.shape, a.mask)
		result = k.masked
	} else {
		k.dx = gx.NewTensor(a.shape...)
		result = k.dx
	}
	dx, err := gx.Apply(k, "gradient(act "+a.name+")", result, out, grad)
	if err != nil {
		return nil, err
	}
	grads := make(G.Nodes, len(in))
	if a.needDX {
		grads[0] = dx
	}
	for i, kind := range a.learned {
		if grads[1+i], err = gx.Side(fmt.Sprintf("gradient(%s %s)", kind, a.name), gx.Wrap(a.grads[i], 1), dx); err != nil {
			return nil, err
		}
	}
	return grads, nil
}

// actGrad is the gradient of a quantizer: where the estimator is a mask it is left to its readers to apply it.
type actGrad struct {
	f      *Act
	masked *MaskedGrad
	dx     *tensor.Dense // else
}

func (k *actGrad) Run(in []G.Value) (G.Value, error) {
	a := k.f
	dy, err := gx.Floats(in[1])
	if err != nil {
		return nil, err
	}
	if k.masked != nil {
		k.masked.Set(dy)
		a.BeginGrad(nil, dy, nil)
		if len(a.learned) > 0 {
			if err := a.st.EachRow(a.Arrive); err != nil {
				return nil, err
			}
		}
		a.EndGrad()
		return k.masked, nil
	}
	a.BeginGrad(k.dx.Data().([]float32), dy, nil)
	if err := a.st.EachRow(a.ExamplesGrad); err != nil {
		return nil, err
	}
	a.EndGrad()
	return k.dx, nil
}

// BeginGrad takes the memory of the gradients of the input and of the output; up is the mask that is still to be applied to
// the latter, or nil, and needs [Act.Masks]. [Act.ExamplesGrad] and [Act.EndGrad] follow, as in the forward pass.
func (a *Act) BeginGrad(dx, dy []float32, up *MaskedGrad) {
	a.dxs, a.dy, a.up = dx, dy, up
	clear(a.parts[:])
}

// EndGrad joins the gradients of what is learned.
func (a *Act) EndGrad() {
	if len(a.learned) == 0 {
		return
	}
	_, hi := a.p.Spec.Grid()
	scale, z := a.p.At(0)
	var sum slopes
	for s := range par.Count(a.st.Rows) {
		sum.join(a.parts[s])
	}
	a.grads[0][0], a.grads[1][0] = gradients(a.p.Spec.Range, sum, scale, hi-z, a.st.ScaleFactor.Of(a.share, hi), a.st.PACTDecay)
}

// LearnedGrads is the memory of the gradients of what is learned.
func (a *Act) LearnedGrads() [][]float32 { return a.grads[:len(a.learned)] }

// ExamplesGrad makes the gradients of the examples [from, to) of a shard.
func (a *Act) ExamplesGrad(s, from, to int) { a.ReLUExamplesGrad(s, from, to, nil) }

// ReLUExamplesGrad is ExamplesGrad, and brings the gradients through a ReLU before the quantizer, whose outputs are relu. There is
// none where that is nil.
func (a *Act) ReLUExamplesGrad(s, from, to int, relu []float32) {
	e, m := a.row, a.maskRow
	if slope := signSlope(a.p.Spec.Estimator); slope != nil {
		a.slopeGrad(s, from, to, slope)
		if dx := a.dxs[from*e : to*e]; relu != nil {
			kernel.ReLUGrad(dx, dx, relu[from*e:to*e])
		}
		return
	}
	a.Arrive(s, from, to)
	step := a.step(from, to)
	for i := from; i < to; i += step {
		j := i + step
		dx, dy, mask := a.dxs[i*e:j*e], a.dy[i*e:j*e], a.mask[i*m:j*m]
		if relu != nil {
			kernel.MaskReLUGrad(dx, dy, relu[i*e:j*e], mask)
		} else {
			kernel.MaskGrad(dx, dy, mask)
		}
	}
}

// Masks reports that the gradient of the input is that of the output where [Act.Mask] says.
func (a *Act) Masks() bool { return signSlope(a.p.Spec.Estimator) == nil }

// Mask is the bits of one example where its gradient passes.
func (a *Act) Mask(i int) []uint8 { return a.mask[i*a.maskRow : (i+1)*a.maskRow] }

// Arrive is the part of [Act.ExamplesGrad] for an op that applies [Act.Mask] itself: it sums the gradients of what is learned
// over the examples [from, to), and narrows their masks by that which the gradient of the output came with.
func (a *Act) Arrive(s, from, to int) {
	a.learnedGrad(s, from, to)
	if a.up == nil {
		return
	}
	for i := from; i < to; i++ {
		mask := a.Mask(i)
		for j, b := range a.upMask(i)[:len(mask)] {
			mask[j] &= b
		}
	}
}

// learnedGrad sums the gradients of what is learned over the examples [from, to): of dense rows together, of images one by one,
// for where a sum is cut is part of its value.
func (a *Act) learnedGrad(s, from, to int) {
	if len(a.learned) == 0 {
		return
	}
	sum, method := &a.parts[s], a.p.Spec.Range
	codes := method != quant.PACT && a.rounds()
	for i, n := from, 1; i < to; i += n {
		n = min(a.together, to-i)
		if codes {
			sum.Scale += a.scaleGrad(s, i, n)
		}
		if codes && onlyScale(method) {
			continue
		}
		lo, hi := a.p.Spec.Grid()
		_, z := a.p.At(0)
		dy := a.passed(s, i, n)
		x, unit := a.values(s, i, n)
		if !codes && method != quant.PACT {
			sum.Scale += kernel.ScaleGrad(dy, x, unit, lo-z, hi-z)
		}
		sum.others(method, dy, x, unit, lo-z, hi-z)
	}
}

// rounds reports that codes are the rounded values, and the mask says which of them were on the grid: not at an upper limit of
// what came in, see [Act.limit].
func (a *Act) rounds() bool {
	return a.out != nil && !a.Sign() && (a.wait == nil || !a.wait.wide() && a.wait.limit().Cap == 0)
}

// scaleGrad is the sum of the scale's gradient over n examples, from their codes.
func (a *Act) scaleGrad(s, i, n int) (sum float64) {
	e := a.row
	scale, z := a.p.At(0)
	from, to := i*e, (i+n)*e
	dy, codes, mask, up := a.dy[from:to], a.out.U8[from:to], a.mask[i*a.maskRow:], a.upMask(i)
	switch {
	case a.norm != nil:
		lo, hi := a.p.Spec.Grid()
		return a.norm.ScaleGrad(dy, up, a.x[from:to], codes, mask, scale, z, lo, hi)
	case a.wait == nil:
		return kernel.ScaleGradU8(dy, up, a.x[from:to], 1/scale, codes, mask, z)
	}
	if acc, ok := a.wait.(*Acc); ok {
		return kernel.ScaleGradRows(a.passed(s, i, n), acc.Raw[from:to], acc.Offset, a.rq.M, codes, mask, z)
	}
	for len(dy) > 0 { // the values of a piece at a time, while they are in cache
		k := min(maxPiece, len(dy))
		t := grow(&a.t[s], k)
		a.wait.scaled(t, a.rq, to-len(dy))
		sum += kernel.ScaleGradU8(dy[:k], up, t, 1, codes, mask, z)
		dy, codes, mask = dy[k:], codes[k:], mask[k/8:]
		if up != nil {
			up = up[k/8:]
		}
	}
	return sum
}

// values are what n examples had rounded, and the scale they are divided by first.
func (a *Act) values(s, i, n int) (x []float32, unit float32) {
	scale, _ := a.p.At(0)
	from, to := i*a.row, (i+n)*a.row
	if a.wait == nil && a.norm == nil {
		return a.x[from:to], scale
	}
	t := grow(&a.t[s], to-from)
	if a.norm != nil {
		a.norm.Values(t, grow(&a.tmask[s], kernel.MaskLen(len(t))), a.x[from:to])
		return t, scale
	}
	a.wait.scaled(t, a.rq, from)
	a.limit(t, scale)
	return t, 1
}

// upMask is the mask that the gradient of the output came with, from example i on; nil: none.
func (a *Act) upMask(i int) []uint8 {
	if a.up == nil {
		return nil
	}
	return a.up.mask[i*a.maskRow:]
}

// passed is the gradient of the output of n examples behind the mask that it came with.
func (a *Act) passed(s, i, n int) []float32 {
	e := a.row
	if a.up == nil {
		return a.dy[i*e : (i+n)*e]
	}
	dy := grow(&a.tdy[s], n*e)
	a.up.Write(dy, i, i+n)
	return dy
}

// maxPiece is a number of values that stays in the first-level cache: a multiple of eight, so that masks are cut at bytes.
const maxPiece = 4096

// rowsTogether is how many examples are summed together.
func (a *Act) rowsTogether() int {
	if a.shape.Dims() > 2 || a.row%8 != 0 {
		return 1
	}
	return max(1, maxPiece/a.row)
}

// slopeGrad is the gradient of a sign by an estimator that is no mask.
func (a *Act) slopeGrad(s, from, to int, slope func(t float32) float32) {
	e := a.row
	scale, _ := a.p.At(0)
	for i := from; i < to; i++ {
		dx, dy := a.dxs[i*e:(i+1)*e], a.dy[i*e:(i+1)*e]
		if a.wait == nil {
			kernel.SlopeGrad(dx, dy, a.x[i*e:(i+1)*e], []float32{scale}, slope)
			continue
		}
		t := grow(&a.t[s], e)
		a.wait.scaled(t, a.rq, i*e)
		kernel.SlopeGrad(dx, dy, t, []float32{1}, slope)
	}
}

// limit applies the ReLU to values in units of the scale. An upper limit acts where it changed the code, as in the
// straight-through mask: such an element stands for cap/s, which is not the grid's doing and pulls at no scale.
func (a *Act) limit(t []float32, scale float32) {
	l := a.wait.limit()
	if l.Relu {
		kernel.ReLU(t, t)
	}
	if l.Cap == 0 {
		return
	}
	top, most := l.Cap/scale, float64(a.rq.Hi-a.rq.Zero)
	for i, v := range t {
		if v > top && math.RoundToEven(float64(v)) > most {
			t[i] = top
		}
	}
}
