package kernel

import "math"

// Pairs are two s16 numbers in an int32, the first in its low half: neighbours
// along the sum of a product, as the tiles of the integer backward pass read
// them.

func pair(first, second int32) int32 { return first&0xffff | second<<16 }

// pairRows rounds q = rint(x*f[c]) for n rows of channels. codes, unless nil,
// even/2 pairs for each row, holds the q of neighbouring channels, an odd last one beside
// zero; rows holds the q of neighbouring rows, an odd last one likewise. The
// caller keeps every q within 16 bits.
func (t *isa) pairRows(codes, rows []int32, x, f []float32, n int, tail *pairTail) {
	channels := len(f)
	half := (channels + 1) / 2
	x, rows = x[:n*channels], rows[:(n+1)/2*channels]
	if codes != nil {
		codes = codes[:n*half]
	}
	if t.pairRowsVec(codes, rows, x, f, n, tail) {
		return
	}
	code := func(i, c int) int32 {
		if i == n || c == channels {
			return 0
		}
		return int32(math.RoundToEven(float64(x[i*channels+c] * f[c])))
	}
	for i := range n {
		for c := 0; c < channels && codes != nil; c += 2 {
			codes[i*half+c/2] = pair(code(i, c), code(i, c+1))
		}
	}
	for i := 0; i < n; i += 2 {
		for c := range channels {
			rows[i/2*channels+c] = pair(code(i, c), code(i+1, c))
		}
	}
}

// pairTail is a row without a partner and what becomes of it.
type pairTail struct {
	x     []float32
	codes []int32
}

// pairCodes writes n pairs of pixels: x-zero of a pixel and of the one next
// codes further, for each channel. Pixels are step codes apart, pairs pitch.
func (t *isa) pairCodes(pairs []int32, pitch int, x []uint8, next, step, channels, n int, zero int32) {
	if n == 0 || channels == 0 {
		return
	}
	x, pairs = x[:(n-1)*step+next+channels], pairs[:(n-1)*pitch+channels]
	done := t.pairCodesVec(pairs, pitch, x, next, step, channels, n, zero)
	if done == channels {
		return
	}
	for i := range n {
		a, b := x[i*step:][:channels], x[i*step+next:][:channels]
		out := pairs[i*pitch:][:channels]
		for c := done; c < channels; c++ {
			out[c] = pair(int32(a[c])-zero, int32(b[c])-zero)
		}
	}
}

// widenS8 writes rows of codes as pairs of neighbours, an odd last one of a
// row beside zero.
func (t *isa) widenS8(dst []int32, x []int8, cols int) {
	half := (cols + 1) / 2
	n := rows(len(x), cols)
	dst = dst[:n*half]
	done := 0
	if cols%2 == 0 {
		done = t.widenS8Vec(dst, x)
	}
	for i := done / cols; i < n; i++ {
		row, out := x[i*cols:(i+1)*cols], dst[i*half:(i+1)*half]
		for j := range out {
			second := int32(0)
			if 2*j+1 < cols {
				second = int32(row[2*j+1])
			}
			out[j] = pair(int32(row[2*j]), second)
		}
	}
}

// widenU8 writes pairs of neighbours of x-zero.
func (t *isa) widenU8(dst []int32, x []uint8, zero int32) {
	x = x[:2*len(dst)]
	for i := t.widenU8Vec(dst, x, zero); i < len(dst); i++ {
		dst[i] = pair(int32(x[2*i])-zero, int32(x[2*i+1])-zero)
	}
}

// transposePairs writes dst[j*ldd+i] = src[i*lds+j] for i < rows, j < cols.
func (t *isa) transposePairs(dst []int32, ldd int, src []int32, lds, rows, cols int) {
	if rows == 0 || cols == 0 {
		return
	}
	src, dst = src[:(rows-1)*lds+cols], dst[:(cols-1)*ldd+rows]
	r, c := t.transposePairsVec(dst, ldd, src, lds, rows, cols)
	if c < cols {
		transposeGeneric(dst[c*ldd:], ldd, src[c:], lds, rows, cols-c)
	}
	if r < rows {
		transposeGeneric(dst[r:], ldd, src[r*lds:], lds, rows-r, c)
	}
}
