package kernel

import "math"

// The integer backward pass of the convolutions of winograd.go, exactly. With 2G for G all transforms have whole numbers:
//
//	4 dx = A'[ (2G w (2G)') * (B' q B) ]A         4 dw = (2G)'[ sum over tiles (B' (x-z) B) * (A q A') ]2G
//
// What is multiplied fits s16: a transform of four cells has at most four times their greatest magnitude, so gradients
// have at most 8191 steps; that of the weights nine times. Sums are taken modulo 2^32, and so are the transforms
// behind them: the result is exact because four times it, and only that, stays within s32. So these are the
// bits of the definition in [Backward16], at any tier and in any order.

const (
	winogradMax   = math.MaxInt16 / 4
	winogradScale = 4       // what sums are too large by
	winogradLeast = 4095    // max below which the definition, which leaves 4 times as many steps, is rather used
	winograd16DX  = 1 << 12 // tiles times channels at a time, so that their planes stay in cache: of dx
	winograd16DW  = 1 << 13 // and of dw
)

// planWinograd chooses max and lines where the gradient of p's layer is computed so, for every tier alike.
func (p *Backward16) planWinograd(topX, topW int32, needDX bool) bool {
	const limit = math.MaxInt32 / winogradScale
	g := p.g
	if p.dense || !g.winograd() {
		return false
	}
	top := winogradMax
	if needDX {
		top = min(top, limit/(int(topW)*9*g.Cout))
	}
	if top < winogradLeast {
		return false
	}
	line := int(topX) * g.OutW()
	lines := min(g.OutH(), max(2, limit/(line*top)&^1)) // whole tiles
	if top = min(top, limit/(line*lines)); top < winogradLeast {
		return false
	}
	p.winograd, p.max, p.lines = true, int32(top), lines
	return true
}

// winograd16Tiles is the routines of a tier. Those of taps, words of pixels, come for whole registers and for half ones.
// points and codes transform pairs of tiles. Distances are in bytes.
type winograd16Tiles struct {
	taps   [2]func(dst, src *int32, tiles, pixel, row, plane int)
	codes  func(dst *int32, src *uint8, tiles, pixel, row, second, gap, plane int, zero4 int32)
	points func(dst, src *int32, tiles, pixel, row, second, gap, plane int)
	sums   func(dst *float32, src *int32, tiles, pixel, row, plane int, unit float32)
	dw     func(dst *float32, src *int32, n, tap, plane int, m *float32, row, acc int)
	round  func(dst *int32, x, f *float32, channels, n int)
}

// winogradWeights16 writes the sixteen planes of w's codes, pairs of filters by input channels. Floats hold them exactly:
// whole numbers, halves and quarters.
func (t *isa) winogradWeights16(p *Backward16, w []int8, s *Scratch) {
	g := p.g
	n := g.Cin * g.Cout
	ones, values := grow(&s.sum, max(g.Cin, g.Cout)), grow(&s.values, len(w))
	fill(ones, 1)
	t.dequantizeS8(values, w, ones[:g.Cout])
	planes := grow(&s.planes, g.winogradSize())
	t.winogradFlip(planes, values, g, s)
	fill(ones, winogradScale)
	weights := grow(&p.weights, g.winogradSize()/2)
	for i := range winogradPlanes {
		t.pairRows(nil, weights[i*n/2:][:n/2], planes[i*n:][:n], ones[:g.Cin], g.Cout, &p.batch.tail)
	}
}

// winograd16 does an image whose factors are in s.
func (t *isa) winograd16(p *Backward16, s *shard16, dw, dx []float32, x []uint8, zero int32, dy []float32, unit float32, accumulate bool, scratch *Scratch) {
	g, f := p.g, p.input
	pitch := f.paddedRow() / 2
	at := f.PadTop*pitch + f.PadLeft*p.half
	size := f.paddedSize() / 2
	codes := blank(&s.dy, size+pitch+2*p.half) // behind the image there is a tile of zeros
	width := g.OutW() * g.Cout
	for y := range g.OutH() {
		t.s16.winograd.round(&codes[at+y*pitch], &dy[y*width], &s.f[0], g.Cout, g.OutW())
	}
	t.winogradWeight16(p, dw, s.m, x, zero, codes, accumulate, scratch)
	if dx != nil {
		t.winogradInput16(p, dx[:g.inSize()], codes, unit, scratch)
	}
}

// winogradInput16 computes one image of dx.
func (t *isa) winogradInput16(p *Backward16, dx []float32, codes []int32, unit float32, s *Scratch) {
	g, half := p.g, p.half
	pitch, line := p.input.paddedRow()/2, g.W*g.Cin
	cut := cutTiles(winograd16DX, g.H, g.W, max(g.Cin, g.Cout))
	from, to := cut.rows*cut.cols*half+winogradBetween, cut.rows*cut.cols*g.Cin+winogradBetween
	planes, sums := grow(&s.left, winogradPlanes*from), grow(&s.sums, winogradPlanes*to)
	w := &t.s16.winograd
	taps := w.taps[g.Cout/winogradLanes&1]
	for cut.next() {
		for i := range cut.h {
			taps(&planes[i*cut.w*half], &codes[2*(cut.y+i)*pitch+2*cut.x*half], cut.w, 4*half, 4*pitch, 4*from)
		}
		t.productS16(&productS16{
			a: planes, rs: half, cs: 1, k: half, k2: 1, b: p.weights, bs: g.Cin, sums: sums, ldc: g.Cin,
			lines: winogradPlanes, aline: from, bline: half * g.Cin, cline: to,
		}, cut.h*cut.w, g.Cin)
		for i := range cut.h {
			w.sums(&dx[2*(cut.y+i)*line+2*cut.x*g.Cin], &sums[i*cut.w*g.Cin], cut.w, 4*g.Cin, 4*line, 4*to, unit)
		}
	}
}

// winogradWeight16 makes one image's share of dw, block by block of p.lines lines of the output.
func (t *isa) winogradWeight16(p *Backward16, dw, m []float32, x []uint8, zero int32, codes []int32, accumulate bool, s *Scratch) {
	g, f, w := p.g, p.input, &t.s16.winograd
	x = padImage(&s.bytes, x, g.Cin, uint8(zero), g)
	pitch := f.paddedRow() / 2
	at := f.PadTop*pitch + f.PadLeft*p.half
	nothing := f.paddedSize() / 2 // where the tile of zeros is
	n := g.Cin*g.Cout + winogradBetween
	sums := grow(&s.sums, winogradPlanes*n)
	for y := 0; y < g.OutH(); y += p.lines {
		cut := cutTiles(winograd16DW, min(p.lines, g.OutH()-y), g.OutW(), max(g.Cin, g.Cout))
		pairs := (cut.rows*cut.cols + 1) / 2
		left, right := pairs*g.Cin+winogradBetween, pairs*g.Cout+winogradBetween
		planes, points := grow(&s.left, winogradPlanes*left), grow(&s.right, winogradPlanes*right)
		for first := true; cut.next(); first = false {
			k := 0
			cut.eachPair(func(tile, count, row, col, step int) {
				top, across := y/2+cut.y+tile/cut.w, cut.x+tile%cut.w
				from := at + 2*top*pitch + 2*across*p.half
				second := 2*row*pitch + 2*col*p.half
				if row+col == 0 {
					second = nothing - from
				}
				w.codes(&planes[k*g.Cin], &x[2*top*g.paddedRow()+2*across*g.Cin], count,
					g.Cin, g.paddedRow(), 2*row*g.paddedRow()+2*col*g.Cin, (2*step-1)*g.Cin, 4*left, pair(4*zero, 4*zero))
				w.points(&points[k*g.Cout], &codes[from], count,
					4*p.half, 4*pitch, 4*second, 4*(2*step-1)*p.half, 4*right)
				k += count
			})
			t.productS16(&productS16{
				a: planes, rs: 1, cs: g.Cin, k: k, k2: 1, b: points, bs: g.Cout, sums: sums, ldc: g.Cout, add: !first,
				lines: winogradPlanes, aline: left, bline: right, cline: n,
			}, g.Cin, g.Cout)
		}
		add := 0
		if accumulate || y > 0 {
			add = 1
		}
		w.dw(&dw[0], &sums[0], g.Cin, 4*g.Cin*g.Cout, 4*n, &m[0], 4*g.Cout, add)
	}
}

// eachPair calls f for runs of count pairs that hold every tile of the block once: the first tile's number, and how many
// rows and columns of tiles further its partner is, and how many columns the next pair. A last tile without a partner
// has itself. The order of a sum does not matter here.
func (c *tileCut) eachPair(f func(tile, count, row, col, step int)) {
	for row := 0; row+1 < c.h; row += 2 {
		f(row*c.w, c.w, 1, 0, 1)
	}
	if c.h%2 == 0 {
		return
	}
	last := (c.h - 1) * c.w
	if c.w > 1 {
		f(last, c.w/2, 0, 1, 2)
	}
	if c.w%2 == 1 {
		f(last+c.w-1, 1, 0, 0, 1)
	}
}
