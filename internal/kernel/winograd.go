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
// its transpose, G'[ sum over tiles (B' d B) * (A dy A') ]G. All the constants but G's are signs, so the error is that
// of a sum of a few terms more. Only gradients are computed so: forward products keep the order that verify knows.

// winogradTiles is the routines of a tier. taps, points and sums transform a row of tiles, filter and gradient n
// registers of weights; lanes of tilesF32 divide the channels. Distances are in bytes.
type winogradTiles struct {
	taps, points, sums func(dst, src *float32, tiles, pixel, row, plane int)
	filter, gradient   func(dst, src *float32, n, tap, plane int)
}

const (
	winogradPlanes  = 16
	winogradLanes   = 16   // channels come in multiples of it, for every tier
	winogradDX      = 2048 // tiles times channels at a time, so that their planes stay in cache: of dx
	winogradDW      = 4096 // and of dw, for which this is part of the arithmetic
	winogradBetween = 16   // elements between planes, which would share the sets of a cache
)

// winograd reports that gradients of this geometry are computed so. It looks at the geometry alone.
func (t *isa) winograd(g ConvGeom) bool {
	even := func(n int) bool { return n%2 == 0 }
	return t.f32 != nil && g.Groups == 1 && g.KH == 3 && g.KW == 3 && g.StrideH == 1 && g.StrideW == 1 && g.dilH() == 1 && g.dilW() == 1 &&
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
	wide, n := g.W/2, g.Cin*g.Cout
	rows := max(1, winogradDX/(wide*max(g.Cin, g.Cout)))
	from, to := rows*wide*g.Cout+winogradBetween, rows*wide*g.Cin+winogradBetween
	planes, products := grow(&s.planes, winogradPlanes*from), grow(&s.products, winogradPlanes*to)
	for y := 0; y < g.H/2; y += rows {
		r := min(rows, g.H/2-y)
		t.f32.winograd.each(t.f32.winograd.taps, planes, from, dy[2*y*f.paddedRow():], f.paddedRow(), r, wide, g.Cout)
		for i := range winogradPlanes {
			t.f32.block(&product{
				a: planes[i*from:], rs: g.Cout, cs: 1, b: weights[i*n:], bs: g.Cin, k: g.Cout, k2: 1,
				c: products[i*to:], ldc: g.Cin, lines: 1,
			}, r*wide, g.Cin)
		}
		for i := range r {
			t.f32.winograd.sums(&dx[2*(y+i)*g.W*g.Cin], &products[i*wide*g.Cin], wide, 4*g.Cin, 4*g.W*g.Cin, 4*to)
		}
	}
}

// winogradWeight makes one padded image's share of the sixteen planes of dw, Cin by Cout each, and adds it if add is set.
func (t *isa) winogradWeight(dw, x, dy []float32, add bool, g ConvGeom, s *Scratch) {
	high, wide := g.OutH()/2, g.OutW()/2
	rows := max(1, winogradDW/(wide*max(g.Cin, g.Cout)))
	left, right := rows*wide*g.Cin+winogradBetween, rows*wide*g.Cout+winogradBetween
	planes, products := grow(&s.planes, winogradPlanes*left), grow(&s.products, winogradPlanes*right)
	for y := 0; y < high; y += rows {
		r := min(rows, high-y)
		t.f32.winograd.each(t.f32.winograd.taps, planes, left, x[2*y*g.paddedRow():], g.paddedRow(), r, wide, g.Cin)
		t.f32.winograd.each(t.f32.winograd.points, products, right, dy[2*y*g.OutW()*g.Cout:], g.OutW()*g.Cout, r, wide, g.Cout)
		for i := range winogradPlanes {
			t.f32.block(&product{
				a: planes[i*left:], rs: 1, cs: g.Cin, b: products[i*right:], bs: g.Cout, k: r * wide, k2: 1,
				c: dw[i*g.Cin*g.Cout:], ldc: g.Cout, add: add || y > 0, lines: 1,
			}, g.Cin, g.Cout)
		}
	}
}

// each transforms rows of tiles; line is the elements of an image's row.
func (*winogradTiles) each(f func(dst, src *float32, tiles, pixel, row, plane int), dst []float32, plane int, image []float32, line, rows, wide, channels int) {
	for i := range rows {
		f(&dst[i*wide*channels], &image[2*i*line], wide, 4*channels, 4*line, 4*plane)
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
	sum, difference := 0.5*(b+c), 0.5*(b-c)
	return a + sum, difference, sum + d
}
