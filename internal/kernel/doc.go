// Package kernel is the arithmetic of Narrow as loops over slices: matrix
// products and convolutions in float32 and in u8 x s8 integers, requantization,
// fake-quantization, pooling, batch norm, losses and optimizer updates.
//
// # Letters
//
//	M, N, K   rows and columns of the result, length of the sum
//	lda       distance between rows of A in elements (ldb, ldc likewise)
//	n         images in a batch; activations are [n,H,W,C], weights [KH,KW,Cin/Groups,Cout]
//	s, z      scale and zero point, x = s*(q-z)
//	lo, hi    lowest and highest code of a grid
//	channels  length of the last axis; per-channel arguments have that many elements
//	mask      one bit per element, bit i&7 of byte i>>3: 1 where the straight-through gradient passes
//
// # Tiers
//
// Every kernel has a plain Go form, which is its definition. On amd64 some
// also have assembly, written by internal/asmgen and chosen once, from
// cpu.Active. Integer kernels, element-wise kernels and reductions give the
// same bits in all tiers: no product is fused with a sum, divisions and square
// roots are exact, and sums run over 16 lanes joined by one fixed tree. The
// float32 matrix product and what is built on it (Gemm, Conv*) agree within
// one tier only.
//
// # Sharding
//
// Kernels are single-threaded; callers cut batches with internal/par. Within
// one tier an output element of Gemm or Conv* depends on K and on the
// geometry only, so any cut of rows, columns or images gives the same bits.
// Kernels that sum over rows write partial results in float64, one per shard,
// which Combine adds in shard order.
//
// # Preconditions
//
// Destinations come first and do not overlap sources unless the comment says
// so. Lengths are checked once, in the exported function: slices too short for
// the shape end in Go's bounds panic before anything is written, never in a
// stray store, and par.Pool turns that panic into an error. Geometries are
// checked by ConvGeom.Check and PoolGeom.Check, which callers run when they
// build a model.
package kernel

//go:generate go -C ../asmgen run . -out ../kernel
