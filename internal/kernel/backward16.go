package kernel

import (
	"fmt"
	"math"

	"github.com/narrow-ml/narrow/internal/par"
)

// Backward16 is the backward pass of a conv or dense layer on integers. The
// gradient of the output is rounded to s16 once, then dx and dw are exact
// integer products with the codes of w and x:
//
//	m  = max(2^-100, greatest |dy*s_w[c]|)      of an image; of a dense layer's batch
//	q  = rint(dy * f[c])                        f[c] = s_w[c]*(max/m), |q| <= max
//	dx = float32(sum q*q_w) * s                 s = m/max
//	dw = float32(sum (q_x-z)*q) * (s*(s_x/s_w[c]))
//
// Every product and quotient of scales is rounded to float32. max is the
// largest number for which no sum can leave 32 bits, at most 32767; see
// NewBackward16. So all tiers give the same bits.
//
// A convolution goes image by image (Image), a dense layer in two steps: Rows
// for the batch, Features for any cut of its inputs.
type Backward16 struct {
	g      ConvGeom
	input  ConvGeom // the convolution of dy that is dx, if whole
	whole  bool     // dx is one sum; otherwise a sum for each tap, added in float32
	needDX bool
	dense  bool
	max    int32
	lines  int // of the output in one sum over pixels
	half   int // pairs of output channels

	winograd bool // of two by two results at a time, where the tier can

	weights []int32 // w as dx reads it
	wide    []int32 // w in its own order
	scale   []float32
	ratio   []float32 // s_x/s_w[c]
	shards  [par.Shards]shard16

	// of a dense layer
	rows       int
	batch      shard16
	transposed []int32 // pairs of output channels of dy: half x rows
}

// shard16 is a shard's working memory. Padding is written once and stays.
type shard16 struct {
	top, f, m, s []float32
	dy           []int32 // dx's operand: lines of pixels of pairs of channels
	rows         []int32 // dw's operand: pairs of pixels
	image        []uint8 // x with its padding
	zero         int32   // what image is padded with
	pixels       [][]int32
	cols         []float32
	tail         pairTail
}

// leastMax is the smallest max that still is a gradient: 11 bits with the sign.
const leastMax = 1023

// goodMax is the max below which a sum over pixels is rather cut.
const goodMax = 8191

// NewBackward16 plans the backward pass of g, whose input codes less their zero
// point are at most topX in magnitude and whose weight codes at most topW.
// batch is the rows of a dense layer, 0 for a convolution. An error says why
// the layer must stay on float32:
//
//	max = min(32767, (2^31-1)/(topW*terms of a dx), (2^31-1)/(topX*terms of a dw))
//
// A dw's sum over pixels runs over as many lines of the output as keep max at
// 8191, if one line does, and such sums are added in float32. For a convolution
// of winograd.go max is at most 8191, both bounds are a quarter of these, and
// lines come in twos; if that leaves max 4095, which is enough.
func NewBackward16(g ConvGeom, batch int, topX, topW int32, needDX bool) (*Backward16, error) {
	if g.Groups != 1 {
		return nil, fmt.Errorf("grouped convolution")
	}
	if g.dilH() != 1 || g.dilW() != 1 {
		return nil, fmt.Errorf("dilated convolution")
	}
	const limit = math.MaxInt32
	p := &Backward16{g: g, needDX: needDX, dense: batch > 0, half: (g.Cout + 1) / 2, scale: make([]float32, g.Cout), ratio: make([]float32, g.Cout)}
	if pixels := g.H * g.W; g.pointwise() && limit/(int(topX)*pixels) >= goodMax {
		p.g.H, p.g.W = 1, pixels // lines of any length are the same to a pointwise convolution
	}
	g = p.g
	p.input = ConvGeom{
		H: g.OutH(), W: g.OutW(), Cin: 2 * p.half, KH: g.KH, KW: g.KW, Cout: g.Cin, StrideH: 1, StrideW: 1, Groups: 1,
		PadTop: g.KH - 1 - g.PadTop, PadBottom: g.KH - 1 - g.PadBottom, PadLeft: g.KW - 1 - g.PadLeft, PadRight: g.KW - 1 - g.PadRight,
	}
	f := p.input
	p.whole = g.StrideH == 1 && g.StrideW == 1 && min(f.PadTop, f.PadBottom, f.PadLeft, f.PadRight) >= 0
	if p.planWinograd(topX, topW, needDX) {
		return p, nil
	}
	top := math.MaxInt16
	if needDX {
		terms := g.Cout
		if p.whole {
			terms *= g.KH * g.KW
		}
		top = min(top, limit/(int(topW)*terms))
	}
	line, lines := g.OutW(), g.OutH()
	if p.dense {
		line, lines = 1, batch
	}
	p.lines = max(1, min(lines, limit/(int(topX)*line*min(top, goodMax))))
	if p.dense && p.lines < batch {
		p.lines &^= 1 // pairs stay together
	}
	top = min(top, limit/(int(topX)*line*p.lines))
	if top < leastMax {
		return nil, fmt.Errorf("sums of up to %d terms leave %d steps for a gradient, fewer than %d", max(line*p.lines, g.Depth()/g.Cin*g.Cout), top, leastMax)
	}
	p.max = int32(top)
	return p, nil
}

// Max is the greatest code of a gradient.
func (p *Backward16) Max() int32 { return p.max }

// Begin takes a step's weight codes, their scales, and the scale of x.
func (p *Backward16) Begin(w []int8, scale []float32, sx float32, s *Scratch) {
	active.begin16(p, w, scale, sx, s)
}

// Image does one image of a convolution: dw is written or, with accumulate,
// added to; dx is written unless nil. It reports whether dy is finite.
func (p *Backward16) Image(shard int, dw, dx []float32, x []uint8, zero int32, dy []float32, accumulate bool, s *Scratch) (finite bool) {
	return active.image16(p, shard, dw, dx, x, zero, dy, accumulate, s)
}

// Rows rounds the gradients of a dense layer's rows. It reports whether they
// are finite.
func (p *Backward16) Rows(dy []float32, rows int) (finite bool) { return active.rows16(p, dy, rows) }

// FeatureUnit is what cuts of a dense layer's inputs should be multiples of.
const FeatureUnit = 32

// Features writes the rows [lo, hi) of a dense layer's dw and, unless dx is
// nil, these columns of dx. w are the weight codes.
func (p *Backward16) Features(shard int, dw, dx []float32, x []uint8, zero int32, w []int8, lo, hi int) {
	active.features16(p, shard, dw, dx, x, zero, w, lo, hi)
}

func (t *isa) begin16(p *Backward16, w []int8, scale []float32, sx float32, s *Scratch) {
	g := p.g
	copy(p.scale, scale[:g.Cout])
	for c, v := range p.scale {
		p.ratio[c] = sx / v
	}
	if !p.needDX || p.dense {
		return
	}
	w = w[:g.weightSize()]
	if p.winograd && t.s16 != nil {
		t.winogradWeights16(p, w, s)
		return
	}
	wide, weights := grow(&p.wide, g.Depth()*p.half), grow(&p.weights, g.Depth()*p.half)
	t.widenS8(wide, w, g.Cout)
	if !p.whole {
		t.transposePairs(weights, g.Depth(), wide, p.half, g.Depth(), p.half)
		return
	}
	taps, size := g.KH*g.KW, g.Cin*p.half
	for i := range taps {
		t.transposePairs(weights[(taps-1-i)*size:][:size], g.Cin, wide[i*size:][:size], p.half, g.Cin, p.half)
	}
}

// factors makes f and s of the gradients dy, and m for dw.
func (t *isa) factors16(p *Backward16, s *shard16, dy []float32) (unit float32, finite bool) {
	const least = 0x1p-100
	c := p.g.Cout
	top, f, m := grow(&s.top, c), grow(&s.f, c), grow(&s.m, c)
	if t.absMaxChannels(top, dy, c) >= 0 {
		return 0, false
	}
	greatest := float32(least)
	for c, v := range top {
		greatest = max(greatest, v*p.scale[c])
	}
	if greatest > math.MaxFloat32 {
		return 0, false
	}
	steps := float32(p.max) / greatest
	unit = greatest / float32(p.max)
	for c, v := range p.scale {
		f[c], m[c] = v*steps, unit*p.ratio[c]
		if f[c] > math.MaxFloat32 {
			return 0, false
		}
	}
	return unit, true
}

func (t *isa) image16(p *Backward16, shard int, dw, dx []float32, x []uint8, zero int32, dy []float32, accumulate bool, scratch *Scratch) bool {
	g, s := p.g, &p.shards[shard]
	dw, x, dy = dw[:g.weightSize()], x[:g.inSize()], dy[:g.outSize()]
	unit, finite := t.factors16(p, s, dy)
	if !finite {
		return false
	}
	if p.winograd && t.s16 != nil {
		t.winograd16(p, s, dw, dx, x, zero, dy, unit, accumulate, scratch)
		return true
	}
	outH, outW := g.OutH(), g.OutW()
	pitch, at := outW*p.half, 0
	size := outH * pitch
	if p.whole {
		f := p.input
		pitch = f.paddedRow() / 2
		at = f.PadTop*pitch + f.PadLeft*p.half
		size = f.paddedSize() / 2
	}
	var codes, line []int32
	if dx != nil {
		codes = blank(&s.dy, size)
	}
	rows := grow(&s.rows, outH*((outW+1)/2)*g.Cout)
	for oy := range outH {
		if dx != nil {
			line = codes[at+oy*pitch:]
		}
		t.pairRows(line, rows[oy*((outW+1)/2)*g.Cout:], dy[oy*outW*g.Cout:][:outW*g.Cout], s.f, outW, &s.tail)
	}
	t.weightGrad16(p, s, dw, x, zero, accumulate)
	if dx == nil {
		return true
	}
	dx = dx[:g.inSize()]
	m := grow(&s.s, max(g.Cin, g.Depth()))
	fill(m, unit)
	if p.whole {
		t.productS16(&productS16{
			a: codes, rs: p.half, cs: 1, a2: pitch - g.KW*p.half, k: g.KW * p.half, k2: g.KH,
			b: p.weights, bs: g.Cin, c: dx, ldc: g.Cin, m: m,
			lines: g.H, aline: pitch, cline: g.W * g.Cin,
		}, g.W, g.Cin)
		return true
	}
	cols := grow(&s.cols, outH*outW*g.Depth())
	t.productS16(&productS16{
		a: codes, rs: p.half, cs: 1, k: p.half, k2: 1, b: p.weights, bs: g.Depth(), c: cols, ldc: g.Depth(), m: m, lines: 1,
	}, outH*outW, g.Depth())
	clear(dx)
	col2im(dx, g.Cin, cols, g.Depth(), g)
	return true
}

// blank is grow with zeros where memory is new.
func blank(buf *[]int32, n int) []int32 {
	if len(*buf) != n {
		*buf = make([]int32, n)
	}
	return *buf
}

// weightGrad16 makes dw of an image whose gradients are in s.rows. Pixel ox of
// an output line meets column kw + ox*StrideW of the padded image under tap kw,
// so the pairs of output pixels 0 and 1, 2 and 3 meet pairs of columns that
// begin at kw and every 2*StrideW further: for each remainder of kw there is an
// image of pairs, s.pixels.
func (t *isa) weightGrad16(p *Backward16, s *shard16, dw []float32, x []uint8, zero int32, accumulate bool) {
	g := p.g
	outH, outPairs := g.OutH(), (g.OutW()+1)/2
	period := 2 * g.StrideW
	line := (g.W + g.PadLeft + g.PadRight + period - 1) / period // pairs of a line
	t.pairImages(p, s, x, zero, line, period)
	q := productS16{
		cs: g.Cin, a2: (g.StrideH*line - outPairs) * g.Cin, k: outPairs,
		b: s.rows, bs: g.Cout, m: s.m, lines: 1,
	}
	rows, calls := g.Cin, 1 // rows of a tile are input channels
	q.rs, q.ldc = 1, g.Cout
	taps := g.KH
	if g.Cin < g.KH { // or lines of the window, for each channel
		rows, calls, taps = g.KH, g.Cin, 1
		q.rs, q.ldc = line*g.Cin, g.KW*g.Cin*g.Cout
	}
	for y := 0; y < outH; y += p.lines {
		q.add = accumulate || y > 0
		q.k2 = min(p.lines, outH-y)
		q.b = s.rows[y*outPairs*g.Cout:]
		for kh := range taps {
			for kw := range g.KW {
				for c := range calls {
					q.a = s.pixels[kw%period][((y*g.StrideH+kh)*line+kw/period)*g.Cin+c:]
					q.c = dw[((kh*g.KW+kw)*g.Cin+c)*g.Cout:]
					t.productS16(&q, rows, g.Cout)
				}
			}
		}
	}
}

// pairImages writes the padded image and its pairs.
func (t *isa) pairImages(p *Backward16, s *shard16, x []uint8, zero int32, line, period int) {
	g := p.g
	height := g.H + g.PadTop + g.PadBottom
	pitch := line * period * g.Cin
	count := height * line // pairs of pixels
	size := height*pitch + 2*period*g.Cin
	if len(s.image) != size || s.zero != zero {
		fill(grow(&s.image, size), uint8(zero))
		s.zero = zero
	}
	width := g.W * g.Cin
	for y := range g.H {
		copy(s.image[(y+g.PadTop)*pitch+g.PadLeft*g.Cin:][:width], x[y*width:])
	}
	if s.pixels == nil {
		s.pixels = make([][]int32, min(g.KW, period))
	}
	for i := range s.pixels {
		pairs, from := grow(&s.pixels[i], count*g.Cin), s.image[i*g.Cin:]
		if g.Cin == 1 && g.StrideW == 1 {
			t.widenU8(pairs, from, zero)
		} else {
			t.pairCodes(pairs, g.Cin, from, g.StrideW*g.Cin, period*g.Cin, g.Cin, count, zero)
		}
	}
}

func (t *isa) rows16(p *Backward16, dy []float32, rows int) bool {
	c, s := p.g.Cout, &p.batch
	p.rows = rows
	dy = dy[:rows*c]
	unit, finite := t.factors16(p, s, dy)
	if !finite {
		return false
	}
	codes := grow(&s.dy, rows*p.half)
	t.pairRows(codes, grow(&s.rows, (rows+1)/2*c), dy, s.f, rows, &s.tail)
	if p.needDX {
		t.transposePairs(grow(&p.transposed, p.half*rows), rows, codes, p.half, rows, p.half)
		fill(grow(&s.s, rows), unit)
	}
	return true
}

// pieceFeatures is how many features are done at a time: few enough that their
// operands stay in the first-level cache.
const pieceFeatures = 128

func (t *isa) features16(p *Backward16, shard int, dw, dx []float32, x []uint8, zero int32, w []int8, lo, hi int) {
	g, s, rows := p.g, &p.shards[shard], p.rows
	in, c := g.Cin, g.Cout
	if s.pixels == nil {
		s.pixels = make([][]int32, 2)
	}
	for ; lo < hi; lo += pieceFeatures {
		n := min(hi-lo, pieceFeatures)
		pairs := grow(&s.pixels[0], (rows+1)/2*n)
		t.pairCodes(pairs, n, x[lo:], in, 2*in, n, rows/2, zero)
		if rows%2 == 1 {
			for i, q := range x[(rows-1)*in+lo:][:n] {
				pairs[rows/2*n+i] = pair(int32(q)-zero, 0)
			}
		}
		for r := 0; r < rows; r += p.lines {
			k := min(p.lines, rows-r)
			t.productS16(&productS16{
				a: pairs[r/2*n:], rs: 1, cs: n, k: (k + 1) / 2, k2: 1, b: p.batch.rows[r/2*c:], bs: c,
				c: dw[lo*c:], ldc: c, m: p.batch.m, add: r > 0, lines: 1,
			}, n, c)
		}
		if dx == nil {
			continue
		}
		wide, out := grow(&s.pixels[1], n*p.half), grow(&s.cols, n*rows)
		t.widenS8(wide, w[lo*c:(lo+n)*c], c)
		t.productS16(&productS16{
			a: wide, rs: p.half, cs: 1, k: p.half, k2: 1, b: p.transposed, bs: rows, c: out, ldc: rows, m: p.batch.s, lines: 1,
		}, n, rows)
		t.transpose(dx[lo:], in, out, rows, n, rows)
	}
}
