package model

import (
	"errors"
	"math"

	"github.com/narrow-ml/narrow/internal/elementary"
	"github.com/narrow-ml/narrow/quant"
)

// Squash writes what range method dorefa codes in place of the weights w, whose greatest magnitude in the tensor is top
// (D22; arXiv:1606.06160, section 2.3), in float64 and rounded once:
//
//	dst = tanh(w) / T      T = max(tanh(top), MinScale)
//
// All of it lies in [-1, 1].
func Squash(dst, w []float32, top float32) {
	t := squashed(top)
	for i, v := range w {
		dst[i] = float32(elementary.Tanh(float64(v)) / t)
	}
}

// SquashGrad writes the gradient of the weights from dy, that of what [Squash] made of them, y. T counts as a constant. dst
// may be dy.
//
//	dst = dy * (1 - (y*T)^2) / T
func SquashGrad(dst, dy, y []float32, top float32) {
	t := squashed(top)
	for i, v := range y {
		th := float64(float64(v) * t)
		dst[i] = float32(float64(dy[i]) * (1 - float64(th*th)) / t)
	}
}

// errDoReFaPer says why range method dorefa has one scale.
var errDoReFaPer = errors.New("range method dorefa divides by the largest |tanh w| of the whole tensor, and its levels are those of [-1, 1]: use per: tensor")

func squashed(top float32) float64 {
	return math.Max(elementary.Tanh(float64(top)), float64(quant.MinScale))
}
