package ptq

import (
	"github.com/narrow-ml/narrow/model"
)

// window is the geometry of a conv or dense layer as one matrix product per group: a row for each output position, a
// column for each output channel. A dense layer is the case of one position.
type window struct {
	h, w, c  int // input
	outW     int
	kh, kw   int
	stride   [2]int
	pad      [4]int
	groups   int
	depth    int // K: products of one output element
	units    int // Cout
	outputs  int // positions of one example
	perGroup int // input channels of a group
}

func newWindow(n *model.Node, in model.Shape) window {
	a := n.Attr
	if n.Op == model.Dense {
		size := in.Size()
		return window{h: 1, w: 1, c: size, outW: 1, kh: 1, kw: 1, stride: [2]int{1, 1}, groups: 1, depth: size, units: a.Units, outputs: 1, perGroup: size}
	}
	per := in[2] / a.Groups
	return window{
		h: in[0], w: in[1], c: in[2], outW: n.Shape[1], kh: a.Kernel[0], kw: a.Kernel[1], stride: a.Stride, pad: a.Pad,
		groups: a.Groups, depth: a.Kernel[0] * a.Kernel[1] * per, units: a.Units, outputs: n.Shape[0] * n.Shape[1], perGroup: per,
	}
}

// width is the length of the patch of one position: groups*depth, group after group, each in the order of the weights.
func (g *window) width() int { return g.groups * g.depth }

// patch writes the inputs x of one example that output position pos multiplies. Cells outside the image are 0.
func (g *window) patch(dst, x []float32, pos int) {
	top, left := pos/g.outW*g.stride[0]-g.pad[0], pos%g.outW*g.stride[1]-g.pad[1]
	for ky := range g.kh {
		for kx := range g.kw {
			iy, ix, at := top+ky, left+kx, (ky*g.kw+kx)*g.perGroup
			inside := iy >= 0 && iy < g.h && ix >= 0 && ix < g.w
			for group := range g.groups {
				cell := dst[group*g.depth+at:][:g.perGroup]
				if inside {
					copy(cell, x[(iy*g.w+ix)*g.c+group*g.perGroup:])
				} else {
					clear(cell)
				}
			}
		}
	}
}
