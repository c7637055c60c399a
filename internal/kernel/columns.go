package kernel

// Sums over rows, the reductions of bias gradients and batch norm. Each adds
// float32 lanes over blocks of columnBlock rows and joins the blocks in
// float64, in order: a block is short enough that float32 loses nothing that
// matters, and the order is the same in every tier.

// columnBlock is the number of rows added in float32 before they join the
// float64 sum. It is part of the arithmetic.
const columnBlock = 32

// laneBlock is the number of elements that a sum over a whole slice adds in 16
// float32 lanes before they join the float64 sum. It is part of the arithmetic.
const laneBlock = 4096

// columnChunk is how many channels the Go loops keep in local lanes.
const columnChunk = 64

// SumColumns writes dst[c] = sum of x[r,c] over the rows of x. It is one
// shard's part: Combine joins the parts.
func SumColumns(dst []float64, x []float32, channels int) {
	active.columnSums(dst, termSum, &columnArgs{x: x}, channels)
}

// AddColumns is SumColumns added to dst: a shard's part, example by example.
func AddColumns(dst []float64, x []float32, channels int) {
	active.addColumnSums(dst[:channels], termSum, &columnArgs{x: x}, channels)
}

// columnTerm is what a sum over rows adds.
type columnTerm uint8

const (
	termSum       columnTerm = iota // x
	termSquare                      // (x-mean)^2
	termScaleGrad                   // dy*scaleSlope(x/scale, lo, hi)
)

// columnArgs are the operands of a sum over rows.
type columnArgs struct {
	x, mean, dy, scale []float32
	lo, hi             float32
}

func (t *isa) columnSums(dst []float64, term columnTerm, a *columnArgs, channels int) {
	dst = dst[:channels]
	clear(dst)
	t.addColumnSums(dst, term, a, channels)
}

func (t *isa) addColumnSums(dst []float64, term columnTerm, a *columnArgs, channels int) {
	r := rows(len(a.x), channels)
	done := t.columnVec(dst, term, a, r, channels)
	var lanes [columnChunk]float32
	for r0 := 0; r0 < r && done < channels; r0 += columnBlock {
		r1 := min(r0+columnBlock, r)
		for c0 := done; c0 < channels; c0 += columnChunk {
			lane := lanes[:min(columnChunk, channels-c0)]
			clear(lane)
			addRows(lane, term, a, r0, r1, c0, channels)
			for c, v := range lane {
				dst[c0+c] += float64(v)
			}
		}
	}
}

// addRows is the definition of a block's sum: rows in order, columns from c0.
func addRows(lane []float32, term columnTerm, a *columnArgs, r0, r1, c0, channels int) {
	for i := r0; i < r1; i++ {
		at := i*channels + c0
		x := a.x[at:][:len(lane)]
		switch term {
		case termSum:
			for c, v := range x {
				lane[c] += v
			}
		case termSquare:
			mu := a.mean[c0:][:len(lane)]
			for c, v := range x {
				d := v - mu[c]
				lane[c] += float32(d * d)
			}
		case termScaleGrad:
			s, g := a.scale[c0:][:len(lane)], a.dy[at:][:len(lane)]
			for c, v := range x {
				lane[c] += float32(g[c] * scaleSlope(v/s[c], a.lo, a.hi))
			}
		}
	}
}

// Combine adds the partial results of shards, parts[s*n+c], into dst[c] in the
// order of s. dst has n elements.
func Combine(dst []float64, parts []float64, n int) {
	dst = dst[:n]
	clear(dst)
	for s := range rows(len(parts), n) {
		for c, v := range parts[s*n:][:n] {
			dst[c] += v
		}
	}
}

// Round32 rounds float64 results to float32.
func Round32(dst []float32, src []float64) {
	dst = dst[:len(src)]
	for i, v := range src {
		dst[i] = float32(v)
	}
}

// SumSquares returns the sum of squares of x: 16 float32 lanes over blocks of
// 4096 elements, joined by a fixed tree, blocks added in float64.
func SumSquares(x []float32) float64 { return active.sumSquares(x) }

func (t *isa) sumSquares(x []float32) float64 {
	var total float64
	for len(x) > 0 {
		part := x[:min(laneBlock, len(x))]
		x = x[len(part):]
		var lane [16]float32
		for i := t.sumSquaresVec(&lane, part); i < len(part); i++ {
			lane[i%16] += float32(part[i] * part[i])
		}
		total += float64(tree16(&lane))
	}
	return total
}

// tree16 joins sixteen lanes: halves onto halves, in this order always.
func tree16[T float32 | float64](lane *[16]T) T {
	for width := 8; width > 0; width /= 2 {
		for i := range width {
			lane[i] += lane[i+width]
		}
	}
	return lane[0]
}
