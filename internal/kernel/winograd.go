package kernel

// Gradients of 3x3 convolutions by Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray, "Fast Algorithms for
// Convolutional Neural Networks", arXiv:1509.09308): a tile of two by two results of a convolution of 3x3 cells is
//
//	A'[ (G w G') * (B' d B) ]A        A' = 1  1  1  0      B' = 1  0 -1  0      G = 1    0    0
//	                                       0  1 -1  1           0  1  1  0          1/2  1/2  1/2
//	                                                            0 -1  1  0          1/2 -1/2  1/2
//	                                                            0 -1  0  1          0    0    1
//
// where d is the four by four pixels that the tile reads and * multiplies cell by cell: 16 products for 36. Of many
// channels and tiles they are sixteen matrix products. dx is such a convolution of dy with the weights flipped; dw is
// its transpose, G'[ sum over tiles (B' d B) * (A dy A') ]G. The constants are signs and halves, and sums are
// shorter than in the definition, so the error is near that of float32 sums in order: at most 1.25 times it in
// TestWinogradError. Only gradients are computed so: forward products keep the order that verify knows.

// winogradTiles is the routines of a tier. taps, points and sums transform a row of tiles, filter and gradient n
// registers of weights; lanes of tilesF32 divide the channels. Distances are in bytes.
type winogradTiles struct {
	taps, points, sums tilesFunc
	filter, gradient   func(dst, src *float32, n, tap, plane int)
}

type tilesFunc func(dst, src *float32, tiles, pixel, row, plane int)

const (
	winogradPlanes  = 16
	winogradLanes   = 16   // channels come in multiples of it, for every tier
	winogradDX      = 2048 // tiles times channels at a time, so that their planes stay in cache: of dx
	winogradDW      = 4096 // and of dw, for which this is part of the arithmetic
	winogradFewest  = 28   // but at least so many tiles, two strips of a product
	winogradBetween = 16   // elements between planes, which would share the sets of a cache
)

// winograd reports that float32 gradients of this geometry are computed so.
func (t *isa) winograd(g ConvGeom) bool { return t.f32 != nil && g.winograd() }

// winograd reports a geometry whose gradients can be computed so.
func (g ConvGeom) winograd() bool {
	even := func(n int) bool { return n%2 == 0 }
	return g.Groups == 1 && g.KH == 3 && g.KW == 3 && g.StrideH == 1 && g.StrideW == 1 && g.dilH() == 1 && g.dilW() == 1 &&
		max(g.PadTop, g.PadLeft, g.PadBottom, g.PadRight) <= 2 && g.Cin%winogradLanes == 0 && g.Cout%winogradLanes == 0 &&
		even(g.H) && even(g.W) && even(g.OutH()) && even(g.OutW())
}

// winogradSize is the elements of transformed weights.
func (g ConvGeom) winogradSize() int { return winogradPlanes * g.Cin * g.Cout }

// winogradFlip writes the sixteen planes of the weights that make dx, Cout by Cin each.
func (t *isa) winogradFlip(dst, w []float32, g ConvGeom, s *Scratch) {
	n := g.Cin * g.Cout
	taps := grow(&s.cols, 9*n)
	for i := range 9 {
		t.transpose(taps[i*n:][:n], g.Cin, w[(8-i)*n:][:n], g.Cout, g.Cin, g.Cout)
	}
	t.f32.winograd.filter(&dst[0], &taps[0], n/t.f32.lanes, 4*n, 4*n)
}

// winogradInput computes one image of dx; weights are of winogradFlip.
func (t *isa) winogradInput(dx, dy, weights []float32, g ConvGeom, s *Scratch) {
	f, _ := t.inputGeom(g)
	dy = padImage(&s.cols, dy, g.Cout, 0, f)
	n, line := g.Cin*g.Cout, g.W*g.Cin
	cut := cutTiles(winogradDX, g.H, g.W, max(g.Cin, g.Cout))
	from, to := cut.rows*cut.cols*g.Cout+winogradBetween, cut.rows*cut.cols*g.Cin+winogradBetween
	planes, products := grow(&s.planes, winogradPlanes*from), grow(&s.products, winogradPlanes*to)
	for cut.next() {
		t.f32.winograd.taps.each(planes, from, dy, f.paddedRow(), g.Cout, &cut)
		t.f32.block(&product{
			a: planes, rs: g.Cout, cs: 1, b: weights, bs: g.Cin, k: g.Cout, k2: 1, c: products, ldc: g.Cin,
			lines: winogradPlanes, aline: from, bline: n, cline: to,
		}, cut.h*cut.w, g.Cin)
		for i := range cut.h {
			t.f32.winograd.sums(&dx[2*(cut.y+i)*line+2*cut.x*g.Cin], &products[i*cut.w*g.Cin], cut.w, 4*g.Cin, 4*line, 4*to)
		}
	}
}

// winogradWeight makes one padded image's share of the sixteen planes of dw, Cin by Cout each, and adds it if add is set.
func (t *isa) winogradWeight(dw, x, dy []float32, add bool, g ConvGeom, s *Scratch) {
	cut := cutTiles(winogradDW, g.OutH(), g.OutW(), max(g.Cin, g.Cout))
	left, right := cut.rows*cut.cols*g.Cin+winogradBetween, cut.rows*cut.cols*g.Cout+winogradBetween
	planes, points := grow(&s.planes, winogradPlanes*left), grow(&s.products, winogradPlanes*right)
	for cut.next() {
		t.f32.winograd.taps.each(planes, left, x, g.paddedRow(), g.Cin, &cut)
		t.f32.winograd.points.each(points, right, dy, g.OutW()*g.Cout, g.Cout, &cut)
		t.f32.block(&product{
			a: planes, rs: 1, cs: g.Cin, b: points, bs: g.Cout, k: cut.h * cut.w, k2: 1, c: dw, ldc: g.Cout, add: add,
			lines: winogradPlanes, aline: left, bline: right, cline: g.Cin * g.Cout,
		}, g.Cin, g.Cout)
		add = true
	}
}

// tileCut cuts an image of high by wide tiles into blocks of at most rows by cols; next sets the block at y, x, of h by w.
type tileCut struct{ high, wide, rows, cols, y, x, h, w int }

// cutTiles cuts an image into blocks of about limit tiles times channels: whole rows of tiles, or parts of one row.
func cutTiles(limit, height, width, channels int) tileCut {
	c := tileCut{high: height / 2, wide: width / 2, rows: 1}
	tiles := max(winogradFewest, limit/channels)
	c.cols = min(c.wide, tiles)
	if c.cols == c.wide {
		c.rows = min(c.high, tiles/c.wide)
	}
	return c
}

func (c *tileCut) next() bool {
	c.x += c.w
	if c.x >= c.wide {
		c.y, c.x = c.y+c.h, 0
	}
	c.h, c.w = min(c.rows, c.high-c.y), min(c.cols, c.wide-c.x)
	return c.h > 0
}

// each transforms a block's rows of tiles; line is the elements of an image's row.
func (f tilesFunc) each(dst []float32, plane int, image []float32, line, channels int, cut *tileCut) {
	for i := range cut.h {
		f(&dst[i*cut.w*channels], &image[2*(cut.y+i)*line+2*cut.x*channels], cut.w, 4*channels, 4*line, 4*plane)
	}
}

// winogradJoin makes n weights of every tap of dw, tap elements apart, from sums in sixteen planes of n.
func (t *isa) winogradJoin(dw []float32, tap int, sums []float32, n int) {
	done := n - n%t.f32.lanes
	if done > 0 {
		t.f32.winograd.gradient(&dw[0], &sums[0], n/t.f32.lanes, 4*tap, 4*n)
	}
	for e := done; e < n; e++ {
		var rows [3][4]float32 // G' m
		for j := range 4 {
			at := sums[j*n+e:]
			rows[0][j], rows[1][j], rows[2][j] = winogradHalves(at[0], at[4*n], at[8*n], at[12*n])
		}
		for i, r := range rows {
			at := dw[3*i*tap+e:]
			at[0], at[tap], at[2*tap] = winogradHalves(r[0], r[1], r[2], r[3])
		}
	}
}

// winogradHalves is a column of G' m.
func winogradHalves(a, b, c, d float32) (float32, float32, float32) {
	sum, difference := float32(0.5*(b+c)), float32(0.5*(b-c)) // not joined with what follows
	return a + sum, difference, sum + d
}
