package kernel

// Scratch is the working memory of kernels that need some. The zero value is
// ready; buffers grow on demand and are kept, so that a loop allocates nothing
// after its first turn. One Scratch serves one goroutine.
type Scratch struct {
	pack   []float32 // transposed B of Gemm
	panel  []float32 // a tile column of B
	cols   []float32 // patch matrix or padded image
	values []float32 // of codes
	flip   []float32 // weights rearranged for the input gradient
	sum    []float32 // of the parts of a weight gradient
	tile   []float32 // edge tile of a matrix product
	bytes  []uint8   // patch matrix or padded image of codes
	acc    []int32   // accumulators of a fused requantization
	codes  []int8    // weights with zeros after each kernel row
	words  []int16   // codes widened

	planes, products  []float32 // of a Winograd convolution
	left, right, sums []int32   // of one on integers

	packed PackedS8 // those weights, packed
	groups PackedS8 // weights of a grouped convolution, packed by group
	rq     rowRequant
}

// grow returns *buf with length n, reallocated when too small. Its contents
// are unspecified.
func grow[T any](buf *[]T, n int) []T {
	if cap(*buf) < n {
		*buf = make([]T, n)
	}
	*buf = (*buf)[:n]
	return *buf
}

// requant keeps a requantization's arguments where a pointer to them costs
// nothing.
func (s *Scratch) requant(r rowRequant) *rowRequant {
	s.rq = r
	return &s.rq
}
