package qat

import (
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// weightPasses are the passes over a weight on the workers of its graph: what model.CodeWeights makes, packing, and the
// gradient's mask. A dense layer's weight can be larger than all activations of a step, and a pass over it in one
// goroutine is what keeps the others waiting. Maxima and single elements do not depend on the cut.
type weightPasses struct {
	w     *Weight
	piece int // elements that are not cut: whole rows, a multiple of what kernels mask at a time
	loops model.Loops
	err   error     // of the workers
	noise []float32 // of stochastic rounding

	squashed []float32 // what dorefa codes, of the last step
	top      float32   // the greatest magnitude of the master

	// of the running pass
	x, scale []float32
	channels int // whose maxima are sought; 1: that of the tensor
	codes    []int8
	mask     []uint8
	lo, hi   int32
	dw, dy   []float32
	tops     [par.Shards][]float32 // greatest magnitudes
	nans     [par.Shards]int
	parts    []float64 // of the gradients of learned scales, by shard
	inverse  []float32 // of the scales, where codes and mask give the gradients of learned ones
	byRows   bool      // gradRows makes the gradient of this step
	slope    func(t float32) float32

	eachTop, eachSquash, eachCode, eachColumn, eachGrad func(shard, lo, hi int)
}

// A piece has at least pieceElements, so that small weights are not cut, and a multiple of pieceRows rows.
const (
	pieceElements = 8192
	pieceRows     = 16
)

func (p *weightPasses) init(w *Weight, channels int) {
	p.w = w
	unit := pieceRows * channels
	p.piece = (pieceElements + unit - 1) / unit * unit
	for s := range p.tops {
		p.tops[s] = make([]float32, channels)
	}
	p.loops = model.Loops{AbsMax: p.absMax, Quantize: p.quantize, Squash: p.squash}
	p.eachTop, p.eachSquash, p.eachCode, p.eachColumn, p.eachGrad = p.topShard, p.squashShard, p.codeShard, p.columnShard, p.gradShard
}

// span is the elements of the pieces [lo, hi) of n.
func (p *weightPasses) span(n, lo, hi int) (from, to int) {
	return lo * p.piece, min(hi*p.piece, n)
}

// pieces is how many pieces n elements are.
func (p *weightPasses) pieces(n int) int { return (n + p.piece - 1) / p.piece }

// code makes the codes and their scales.
func (p *weightPasses) code(affine *model.Affine) (raised int, err error) {
	w := p.w
	p.err = nil
	p.loops.Noise = p.draw()
	raised, err = p.loops.CodeWeights(w.out.S8, w.mask, w.out.Params.Scale, w.master, w.p, w.in, affine)
	if p.err != nil {
		err = p.err
	}
	return raised, err
}

func (p *weightPasses) absMax(dst, w []float32, channels int) (nan int) {
	p.x, p.channels = w, channels
	clear(dst)
	nan = p.run(p.eachTop)
	for s := range par.Count(p.pieces(len(w))) {
		for c, v := range p.tops[s][:channels] {
			if v > dst[c] {
				dst[c] = v
			}
		}
	}
	return nan
}

func (p *weightPasses) topShard(s, lo, hi int) {
	from, to := p.span(len(p.x), lo, hi)
	if p.channels == 1 {
		p.tops[s][0], p.nans[s] = kernel.AbsMax(p.x[from:to])
		return
	}
	p.nans[s] = kernel.AbsMaxChannels(p.tops[s], p.x[from:to], p.channels)
}

func (p *weightPasses) squash(w []float32, top float32) []float32 {
	if p.squashed == nil {
		p.squashed = make([]float32, len(w))
	}
	p.x, p.top = w, top
	if p.err == nil {
		p.err = p.w.st.Each(p.pieces(len(w)), p.eachSquash)
	}
	return p.squashed
}

func (p *weightPasses) squashShard(_, lo, hi int) {
	from, to := p.span(len(p.x), lo, hi)
	model.Squash(p.squashed[from:to], p.x[from:to], p.top)
}

func (p *weightPasses) quantize(codes []int8, mask []uint8, w, scale []float32, lo, hi int32) (nan int) {
	p.codes, p.mask, p.x, p.scale, p.lo, p.hi = codes, mask, w, scale, lo, hi
	return p.run(p.eachCode)
}

func (p *weightPasses) codeShard(s, lo, hi int) {
	from, to := p.span(len(p.x), lo, hi)
	mask := p.mask
	if mask != nil {
		mask = mask[from/8 : kernel.MaskLen(to)]
	}
	p.nans[s] = kernel.QuantizeS8(p.codes[from:to], mask, p.x[from:to], p.scale, p.lo, p.hi)
}

// run runs a pass and returns the index of the first NaN, or -1.
func (p *weightPasses) run(each func(shard, lo, hi int)) (nan int) {
	n := p.pieces(len(p.x))
	if p.err == nil {
		p.err = p.w.st.Each(n, each)
	}
	if p.err != nil {
		return -1
	}
	for s := range par.Count(n) {
		if p.nans[s] >= 0 {
			lo, _ := par.Span(n, s)
			return lo*p.piece + p.nans[s]
		}
	}
	return -1
}

// pack packs the codes as the layer reads them: a matrix by columns, a convolution, which is small, as a whole.
func (p *weightPasses) pack() error {
	w, g := p.w, p.w.geom
	if g.KH*g.KW > 1 || g.Groups > 1 {
		w.packed.RepackConv(w.out.S8, g, w.st.Scratch(0))
		return nil
	}
	w.packed.Begin(w.out.S8, g.Depth(), g.Cout)
	return w.st.Each((g.Cout+kernel.ColumnUnit-1)/kernel.ColumnUnit, p.eachColumn)
}

func (p *weightPasses) columnShard(_, lo, hi int) {
	p.w.packed.RepackColumns(lo*kernel.ColumnUnit, min(hi*kernel.ColumnUnit, p.w.geom.Cout))
}

// grad brings dy through the estimator into dw, and sums the gradients of learned scales. A weight with groups of rows is
// not cut.
func (p *weightPasses) grad(dw, dy []float32) error {
	w := p.w
	n := p.pieces(len(dy))
	if w.p.Spec.Per == quant.PerGroup {
		n = 1
	}
	p.beginGrad(dw, dy, n)
	err := w.st.Each(n, p.eachGrad)
	kernel.Combine(w.sums, p.parts, len(p.scale))
	return err
}

// beginGrad begins a pass of n pieces.
func (p *weightPasses) beginGrad(dw, dy []float32, n int) {
	w := p.w
	p.dw, p.dy, p.scale = dw, dy, w.out.Params.Scale
	p.parts = grow(&p.parts, par.Count(n)*len(p.scale))
	clear(p.parts)
	p.slope = signSlope(w.p.Spec.Estimator)
	_, p.hi = w.p.Spec.Grid()
	if p.byCodes() {
		p.inverse = grow(&p.inverse, len(p.scale))
		for i, v := range p.scale {
			p.inverse[i] = 1 / v
		}
	}
}

// byCodes reports that codes and mask give the gradients of learned scales.
func (p *weightPasses) byCodes() bool {
	spec := p.w.p.Spec
	return spec.Range.Learns() && !spec.Even && p.w.wide == nil
}

// beginRows makes ready for gradRows, in a loop over rows, and reports whether the weight's gradient can be made so.
func (p *weightPasses) beginRows(dw []float32, rows int) bool {
	w := p.w
	if !p.byCodes() || w.p.Spec.Per == quant.PerGroup || w.mask == nil || w.node.Attr.Units%8 != 0 || &dw[0] != &w.dws[0] {
		return false
	}
	p.beginGrad(dw, dw, rows)
	p.byRows = true
	return true
}

// gradRows is grad for the rows [lo, hi), which shard s just made.
func (p *weightPasses) gradRows(s, lo, hi int) {
	c := p.w.node.Attr.Units
	p.codesGrad(s, p.parts[s*len(p.scale):][:c], lo*c, hi*c, p.inverse)
}

// gradByRows ends what gradRows did, and reports whether it did.
func (p *weightPasses) gradByRows() bool {
	if !p.byRows {
		return false
	}
	kernel.Combine(p.w.sums, p.parts, len(p.scale))
	p.byRows = false
	return true
}

// codesGrad adds the gradients of scales of the elements [from, to) to parts, and masks them.
func (p *weightPasses) codesGrad(s int, parts []float64, from, to int, inverse []float32) {
	w := p.w
	kernel.AddScaleGradCodes(parts, p.dw[from:to], w.master[from:to], inverse, w.out.S8[from:to], w.mask[from/8:], w.st.Scratch(s))
}

func (p *weightPasses) gradShard(s, lo, hi int) {
	spec, c := p.w.p.Spec, p.w.node.Attr.Units
	from, to := p.span(len(p.dy), lo, hi)
	if spec.Per == quant.PerGroup {
		from, to = 0, len(p.dy)
	}
	if spec.Range == quant.DoReFa {
		model.SquashGrad(p.dw[from:to], p.dy[from:to], p.squashed[from:to], p.top)
		return
	}
	w, dy, dw, parts := p.w.master[from:to], p.dy[from:to], p.dw[from:to], p.parts[s*len(p.scale):]
	codes := p.byCodes()
	if codes && &dw[0] != &dy[0] {
		copy(dw, dy)
	}
	for b := range model.Blocks(len(dy), c, spec) {
		w, dy, dw, scale, parts := w[b.From:b.To], dy[b.From:b.To], dw[b.From:b.To], p.scale[b.Scale:b.Scale+c], parts[b.Scale:b.Scale+c]
		switch { // before dw, which may be dy
		case codes:
			p.codesGrad(s, parts, from+b.From, from+b.To, p.inverse[b.Scale:b.Scale+c])
			continue // dw is masked
		case !spec.Range.Learns():
		case spec.Even:
			kernel.ScaleGradEven(parts, dy, w, scale, p.hi)
		default: // no codes of 8 bits
			lo, hi := spec.Grid()
			kernel.ScaleGradChannels(parts, dy, w, scale, lo, hi)
		}
		if p.slope != nil {
			kernel.SlopeGrad(dw, dy, w, scale, p.slope)
		}
	}
	if p.slope == nil && !codes {
		kernel.MaskGrad(dw, dy, p.w.mask[from/8:kernel.MaskLen(to)])
	}
}
