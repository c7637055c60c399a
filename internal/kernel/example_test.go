package kernel_test

import (
	"fmt"

	"github.com/narrow-ml/narrow/internal/kernel"
)

// A 2x3 matrix times a 3x2 matrix.
func ExampleGemm() {
	a := []float32{1, 2, 3, 4, 5, 6}
	b := []float32{1, 0, 0, 1, 1, 1}
	c := make([]float32, 4)
	var s kernel.Scratch
	kernel.Gemm(c, 2, a, 3, false, b, 2, false, 2, 2, 3, false, &s)
	fmt.Println(c)
	// Output: [4 5 10 11]
}

// Codes with zero point 3 against weights: the raw sum, then without the zero
// point.
func ExampleGemmU8S8() {
	w := kernel.PackS8([]int8{1, -1, 2, 0}, 2, 2)
	acc := make([]int32, 2)
	kernel.GemmU8S8(acc, 2, []uint8{5, 3}, 2, w, 1, new(kernel.Scratch))
	fmt.Println(acc, acc[0]-3*w.ColSums[0], acc[1]-3*w.ColSums[1])
	// Output: [11 -5] 2 -2
}

// Two shards' partial column sums, joined in shard order.
func ExampleCombine() {
	x := []float32{1, 10, 2, 20, 3, 30, 4, 40}
	parts := make([]float64, 4)
	kernel.SumColumns(parts[:2], x[:4], 2)
	kernel.SumColumns(parts[2:], x[4:], 2)
	sums := make([]float64, 2)
	kernel.Combine(sums, parts, 2)
	fmt.Println(sums)
	// Output: [10 100]
}
