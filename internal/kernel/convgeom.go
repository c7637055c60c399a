package kernel

import "fmt"

// ConvGeom is the shape of a two-dimensional convolution. One-dimensional
// convolutions have H = KH = StrideH = 1; a dense layer is the 1x1 case.
//
// Weights are [KH,KW,Cin/Groups,Cout]; group g maps input channels
// [g*Cin/Groups, (g+1)*Cin/Groups) to the output channels of the same share.
// Groups = Cin is a depthwise convolution. Zero DilationH or DilationW means 1.
type ConvGeom struct {
	H, W, Cin                            int
	KH, KW, Cout                         int
	StrideH, StrideW                     int
	PadTop, PadLeft, PadBottom, PadRight int
	Groups                               int
	DilationH, DilationW                 int
}

// OutH returns the height of the output.
func (g ConvGeom) OutH() int {
	return (g.H+g.PadTop+g.PadBottom-g.dilH()*(g.KH-1)-1)/g.StrideH + 1
}

// OutW returns the width of the output.
func (g ConvGeom) OutW() int {
	return (g.W+g.PadLeft+g.PadRight-g.dilW()*(g.KW-1)-1)/g.StrideW + 1
}

// Depth returns the length of one output element's sum, KH*KW*Cin/Groups.
func (g ConvGeom) Depth() int { return g.KH * g.KW * (g.Cin / g.Groups) }

// group returns the geometry of one group alone.
func (g ConvGeom) group() ConvGeom {
	g.Cin, g.Cout, g.Groups = g.Cin/g.Groups, g.Cout/g.Groups, 1
	return g
}

func (g ConvGeom) dilH() int { return max(g.DilationH, 1) }
func (g ConvGeom) dilW() int { return max(g.DilationW, 1) }

// Check returns an error when the geometry is impossible. Kernels rely on it.
func (g ConvGeom) Check() error {
	switch {
	case g.H < 1 || g.W < 1 || g.Cin < 1:
		return fmt.Errorf("convolution input %dx%dx%d: every size must be at least 1", g.H, g.W, g.Cin)
	case g.KH < 1 || g.KW < 1 || g.Cout < 1:
		return fmt.Errorf("convolution kernel %dx%d with %d filters: every size must be at least 1", g.KH, g.KW, g.Cout)
	case g.StrideH < 1 || g.StrideW < 1:
		return fmt.Errorf("convolution stride %dx%d: must be at least 1", g.StrideH, g.StrideW)
	case g.PadTop < 0 || g.PadLeft < 0 || g.PadBottom < 0 || g.PadRight < 0:
		return fmt.Errorf("convolution padding %d,%d,%d,%d: must not be negative", g.PadTop, g.PadLeft, g.PadBottom, g.PadRight)
	case g.DilationH < 0 || g.DilationW < 0:
		return fmt.Errorf("convolution dilation %dx%d: must not be negative", g.DilationH, g.DilationW)
	case g.Groups < 1:
		return fmt.Errorf("convolution groups %d: must be at least 1", g.Groups)
	case g.Cin%g.Groups != 0 || g.Cout%g.Groups != 0:
		return fmt.Errorf("convolution groups %d: must divide %d input and %d output channels", g.Groups, g.Cin, g.Cout)
	case g.dilH()*(g.KH-1)+1 > g.H+g.PadTop+g.PadBottom || g.dilW()*(g.KW-1)+1 > g.W+g.PadLeft+g.PadRight:
		return fmt.Errorf("convolution kernel %dx%d does not fit the padded input %dx%d",
			g.dilH()*(g.KH-1)+1, g.dilW()*(g.KW-1)+1, g.H+g.PadTop+g.PadBottom, g.W+g.PadLeft+g.PadRight)
	}
	return nil
}

// sizes of one image and of the weights, in elements.
func (g ConvGeom) inSize() int     { return g.H * g.W * g.Cin }
func (g ConvGeom) outSize() int    { return g.OutH() * g.OutW() * g.Cout }
func (g ConvGeom) weightSize() int { return g.Depth() * g.Cout }

// pointwise reports a convolution that is a plain matrix product over pixels.
func (g ConvGeom) pointwise() bool {
	return g.KH == 1 && g.KW == 1 && g.StrideH == 1 && g.StrideW == 1 &&
		g.PadTop|g.PadLeft|g.PadBottom|g.PadRight == 0
}

// taps returns the range of kernel taps [lo, hi) that fall inside [0, size)
// when tap i reads position start + i*dil.
func taps(start, dil, k, size int) (lo, hi int) {
	if start < 0 {
		lo = (-start + dil - 1) / dil
	}
	hi = k
	if start+dil*(k-1) >= size {
		hi = (size - start + dil - 1) / dil
	}
	return min(lo, k), max(hi, min(lo, k))
}
