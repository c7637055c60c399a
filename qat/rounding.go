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
