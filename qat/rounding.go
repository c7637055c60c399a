package qat

import (
	"hash/fnv"

	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/quant"
)

// draw is the numbers by which a step of training rounds the weight stochastically; nil where it does not. They belong to the
// seed, the layer, the step and the weight, so they are the same for any number of workers and after a resume.
func (p *weightPasses) draw() []float32 {
	w := p.w
	if w.p.Spec.Rounding != quant.Stochastic || !w.st.Train || w.st.At == 0 {
		return nil
	}
	if p.noise == nil {
		p.noise = make([]float32, len(w.master))
	}
	name := fnv.New64a()
	name.Write([]byte(w.node.Layer))
	stream := rng.New(w.st.Seed, rng.Round, name.Sum64(), w.st.At)
	for i := range p.noise {
		p.noise[i] = stream.Float32()
	}
	return p.noise
}

// codedScaleGrad is kernel.ScaleGradChannels for weights that were not rounded to even: the rounded value is the code that the
// step gave, and mask has the bits of the whole tensor, whose element from is the first of these. Sums are in float64, row by row.
func codedScaleGrad(dst []float64, dy, w, scale []float32, codes []int8, mask []uint8, from int, lo, hi int32) {
	clear(dst)
	c := len(scale)
	for i, g := range dy {
		t := w[i] / scale[i%c]
		slope := float32(codes[i]) - t
		if at := from + i; mask[at>>3]>>(at&7)&1 == 0 {
			slope = float32(hi)
			if t < 0 {
				slope = float32(lo)
			}
		}
		dst[i%c] += float64(float32(g * slope))
	}
}
