//go:build !narrow_fault

package infer

import (
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/quant"
)

// rounding is how requantization rounds, for Describe.
const rounding = "half to even"

// fused says that the kernels may requantize while they multiply.
const fused = true

// requantRows turns accumulators into codes; bias may be nil.
func requantRows(dst []uint8, acc, bias []int32, r *quant.Requant) {
	kernel.RequantRows(dst, acc, bias, r.M, r.Zero, r.Lo, r.Hi, len(r.M))
}
