package kernel

import "fmt"

// PoolGeom is the shape of a pooling over windows of KH x KW cells of [H,W,C]
// images. Cells outside the image take no part. A framework's ceil mode is
// extra PadBottom and PadRight.
type PoolGeom struct {
	H, W, C                              int
	KH, KW                               int
	StrideH, StrideW                     int
	PadTop, PadLeft, PadBottom, PadRight int
}

// NoGrad is the arg-max byte of an output element whose gradient does not
// flow back. Training ops write it over elements that the quantizer clipped.
const NoGrad uint8 = 255

// OutH returns the height of the output.
func (g PoolGeom) OutH() int { return (g.H+g.PadTop+g.PadBottom-g.KH)/g.StrideH + 1 }

// OutW returns the width of the output.
func (g PoolGeom) OutW() int { return (g.W+g.PadLeft+g.PadRight-g.KW)/g.StrideW + 1 }

// Check returns an error when the geometry is impossible, a window could lie
// wholly outside the image, or a window has too many cells for an arg-max byte.
func (g PoolGeom) Check() error {
	switch {
	case g.H < 1 || g.W < 1 || g.C < 1:
		return fmt.Errorf("pooling input %dx%dx%d: every size must be at least 1", g.H, g.W, g.C)
	case g.KH < 1 || g.KW < 1 || g.StrideH < 1 || g.StrideW < 1:
		return fmt.Errorf("pooling window %dx%d, stride %dx%d: must be at least 1", g.KH, g.KW, g.StrideH, g.StrideW)
	case g.KH*g.KW >= int(NoGrad):
		return fmt.Errorf("pooling window %dx%d: at most %d cells", g.KH, g.KW, NoGrad-1)
	case g.PadTop < 0 || g.PadLeft < 0 || g.PadBottom < 0 || g.PadRight < 0:
		return fmt.Errorf("pooling padding %d,%d,%d,%d: must not be negative", g.PadTop, g.PadLeft, g.PadBottom, g.PadRight)
	case g.KH > g.H+g.PadTop+g.PadBottom || g.KW > g.W+g.PadLeft+g.PadRight:
		return fmt.Errorf("pooling window %dx%d does not fit the padded input %dx%d",
			g.KH, g.KW, g.H+g.PadTop+g.PadBottom, g.W+g.PadLeft+g.PadRight)
	case g.PadTop >= g.KH || g.PadLeft >= g.KW ||
		(g.OutH()-1)*g.StrideH-g.PadTop >= g.H || (g.OutW()-1)*g.StrideW-g.PadLeft >= g.W:
		return fmt.Errorf("pooling padding %d,%d,%d,%d: a %dx%d window would lie wholly outside the image",
			g.PadTop, g.PadLeft, g.PadBottom, g.PadRight, g.KH, g.KW)
	}
	return nil
}

func (g PoolGeom) inSize() int  { return g.H * g.W * g.C }
func (g PoolGeom) outSize() int { return g.OutH() * g.OutW() * g.C }

// MaxPool computes the maxima of n images. arg, which may be nil, receives the
// place of each maximum in its window, kh*KW+kw; among equal values the first
// in row-major order. A NaN in a window is its maximum.
func MaxPool(y []float32, arg []uint8, x []float32, n int, g PoolGeom) {
	active.maxPoolF32(y, arg, x, n, g)
}

// MaxPoolU8 is MaxPool of codes. Padding counts as the lowest code, which is
// the same as no cell at all.
func MaxPoolU8(y []uint8, arg []uint8, x []uint8, n int, g PoolGeom) {
	active.maxPoolU8(y, arg, x, n, g)
}

// MaxPoolGrad adds each element of dy to the input cell that arg names, after
// clearing dx. Elements whose arg is NoGrad are dropped.
func MaxPoolGrad(dx, dy []float32, arg []uint8, n int, g PoolGeom) {
	in, out, outH, outW := g.inSize(), g.outSize(), g.OutH(), g.OutW()
	dx, dy, arg = dx[:n*in], dy[:n*out], arg[:n*out]
	clear(dx)
	var offset [256]int // of a window's cell from its first, in elements
	for i := range g.KH * g.KW {
		offset[i] = (i/g.KW*g.W + i%g.KW) * g.C
	}
	for i := range n {
		img := dx[i*in:][:in]
		for oy := range outH {
			for ox := range outW {
				first := ((oy*g.StrideH-g.PadTop)*g.W + ox*g.StrideW - g.PadLeft) * g.C
				at := i*out + (oy*outW+ox)*g.C
				args := arg[at:][:g.C]
				for c, v := range dy[at:][:g.C] {
					if a := args[c]; a != NoGrad {
						img[first+offset[a]+c] += v
					}
				}
			}
		}
	}
}

func (t *isa) maxPoolF32(y []float32, arg []uint8, x []float32, n int, g PoolGeom) {
	y, x = y[:n*g.outSize()], x[:n*g.inSize()]
	if arg == nil && t.maxRowsF32(y, x, n, g) {
		return
	}
	if arg != nil {
		arg = arg[:len(y)]
	}
	eachWindow(n, g, func(at, first, last int, w window) {
		out, a := y[at:][:g.C], arg
		if a != nil {
			a = a[at:][:g.C]
		}
		done := t.poolVecF32(out, a, x[first:last], w)
		maxCells(out, a, x[first:last], w, done)
	})
}

func (t *isa) maxPoolU8(y []uint8, arg []uint8, x []uint8, n int, g PoolGeom) {
	y, x = y[:n*g.outSize()], x[:n*g.inSize()]
	if arg == nil && t.maxRowsU8(y, x, n, g) {
		return
	}
	if arg != nil {
		arg = arg[:len(y)]
	}
	eachWindow(n, g, func(at, first, last int, w window) {
		out, a := y[at:][:g.C], arg
		if a != nil {
			a = a[at:][:g.C]
		}
		done := t.poolVecU8(out, a, x[first:last], w)
		maxCells(out, a, x[first:last], w, done)
	})
}

// window is the part of a pooling window inside its image: rows x cols cells,
// rowStep elements from one row of cells to the next, the first being cell
// first of the window, whose rows are width cells.
type window struct{ rows, cols, rowStep, first, width int }

// eachWindow calls f for every window of n images: where its channels begin in
// the output, where its cells begin and end in the input, and its cells.
func eachWindow(n int, g PoolGeom, f func(at, first, last int, w window)) {
	in, outH, outW := g.inSize(), g.OutH(), g.OutW()
	at := 0
	w := window{rowStep: g.W * g.C, width: g.KW}
	for i := range n {
		for oy := range outH {
			y0 := oy*g.StrideH - g.PadTop
			yLo, yHi := taps(y0, 1, g.KH, g.H)
			for ox := range outW {
				x0 := ox*g.StrideW - g.PadLeft
				xLo, xHi := taps(x0, 1, g.KW, g.W)
				w.rows, w.cols, w.first = yHi-yLo, xHi-xLo, yLo*g.KW+xLo
				first := i*in + ((y0+yLo)*g.W+x0+xLo)*g.C
				f(at, first, first+(w.rows-1)*w.rowStep+w.cols*g.C, w)
				at += g.C
			}
		}
	}
}

// maxCells is the definition of a window's maximum, for channels from from on.
// A NaN is not equal to itself, which no code is.
func maxCells[T float32 | uint8](y []T, arg []uint8, x []T, w window, from int) {
	if from == len(y) {
		return
	}
	copy(y[from:], x[from:])
	if arg != nil {
		fill(arg[from:], uint8(w.first))
	}
	for r := range w.rows {
		for k := range w.cols {
			place := uint8(w.first + r*w.width + k)
			cell := x[r*w.rowStep+k*len(y):][:len(y)]
			for c := from; c < len(y); c++ {
				if v := cell[c]; v > y[c] || v != v && y[c] == y[c] {
					y[c] = v
					if arg != nil {
						arg[c] = place
					}
				}
			}
		}
	}
}
