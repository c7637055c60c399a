package kernel

// What a layer does with one image around its pooling, in one pass while the
// image is in cache. Poolings here tile the image: see PoolGeom.Tiles.

// Tiles reports windows that cover every cell of the image once.
func (g PoolGeom) Tiles() bool {
	return g.StrideH == g.KH && g.StrideW == g.KW && g.H%g.KH == 0 && g.W%g.KW == 0 &&
		g.PadTop|g.PadLeft|g.PadBottom|g.PadRight == 0
}

// NormParams are the per-channel numbers of a normalization, laid out for the
// vector kernels. The zero value is empty; memory is kept between Sets.
type NormParams struct {
	channels int
	period   int       // the channels, repeated until they fill whole vectors; 0 where that is too long
	rows     []float32 // for each sixteen channels sixteen of each number
	own      [3][]float32
}

// quad is how many numbers a channel has.
const quad = 4

// Forward sets the map y = (v-mean)*a + beta.
func (p *NormParams) Forward(mean, a, beta []float32) { p.set(mean, a, beta, nil) }

// Set makes the map that NormPool computes for batch norm: a is gamma*invStd,
// as in Normalize.
func (p *NormParams) Set(mean, invStd, gamma, beta []float32) {
	a := grow(&p.own[0], len(mean))
	for c := range mean {
		a[c] = gamma[c] * invStd[c]
	}
	p.set(mean, a, beta, nil)
}

// SetGrad makes the map of NormalizeGrad from the combined sums of all shards,
// which have n rows together.
func (p *NormParams) SetGrad(mean, invStd, gamma []float32, dgamma, dbeta []float64, n int) {
	a, b, k := grow(&p.own[0], len(mean)), grow(&p.own[1], len(mean)), grow(&p.own[2], len(mean))
	for c := range mean {
		a[c] = gamma[c] * invStd[c]
		b[c] = float32(dbeta[c] / float64(n))
		k[c] = float32(float64(invStd[c]) * dgamma[c] / float64(n))
	}
	p.set(mean, a, b, k)
}

func (p *NormParams) at(c, i int) int { return c/vecLanes*quad*vecLanes + i*vecLanes + c%vecLanes }

func (p *NormParams) set(v ...[]float32) {
	p.channels = len(v[0])
	n := p.channels
	for n%vecLanes != 0 && n <= stretchLen {
		n *= 2
	}
	if p.period = n; n > stretchLen && n != p.channels {
		p.period, n = 0, p.channels
	}
	clear(grow(&p.rows, (n+vecLanes-1)/vecLanes*quad*vecLanes))
	for i, x := range v {
		for c := 0; c < n; c += len(v[0]) {
			for j, f := range x {
				p.rows[p.at(c+j, i)] = f
			}
		}
	}
}

// NormPool normalizes and pools the image v:
//
//	y = max of (v-mean)*a + beta over the window, arg its place, win the v there
//
// with the rules of MaxPool. Its maps are those of Set and Forward.
func NormPool(y []float32, arg []uint8, win, v []float32, p *NormParams, g PoolGeom) {
	active.normPool(y, arg, win, v, p, g)
}

// NormPoolGrad is MaxPoolGrad followed by NormalizeGrad, for one image: dv has
// rows row elements apart, so that it can be the inside of a padded image.
func NormPoolGrad(dv []float32, row int, v, dy []float32, arg []uint8, p *NormParams, g PoolGeom) {
	active.normPoolGrad(dv, row, v, dy, arg, p, g)
}

// PoolScatter is MaxPoolGrad for one image whose rows are row elements apart.
func PoolScatter(dst []float32, row int, dy []float32, arg []uint8, g PoolGeom) {
	active.poolScatter(dst, row, dy, arg, g)
}

// Signs are per-channel factors 1, -1 and 0 of accumulators.
type Signs struct {
	channels int
	rows     []int32 // for each sixteen channels sixteen signs in a row of 64
}

// Set takes the signs; nil means 1 for all channels.
func (s *Signs) Set(sign []int8, channels int) {
	s.channels = channels
	grow(&s.rows, (channels+vecLanes-1)/vecLanes*quad*vecLanes)
	for c := range channels {
		v := int32(1)
		if sign != nil {
			v = int32(sign[c])
		}
		s.rows[s.at(c)] = v
	}
}

func (s *Signs) at(c int) int { return c/vecLanes*quad*vecLanes + c%vecLanes }

// MaxPoolAcc finds in each window of an image of accumulators the first
// greatest sign*acc: win is acc there and arg its place.
func MaxPoolAcc(win []int32, arg []uint8, acc []int32, sign *Signs, g PoolGeom) {
	active.maxPoolAcc(win, arg, acc, sign, g)
}

func (t *isa) normPool(y []float32, arg []uint8, win, v []float32, p *NormParams, g PoolGeom) {
	n := g.outSize()
	y, arg, win, v = y[:n], arg[:n], win[:n], v[:g.inSize()]
	checkTiling(g, p.channels)
	if t.normPoolVec(y, arg, win, v, p, g) {
		return
	}
	eachCell(g, g.W*g.C, func(out, cell, c int, place uint8) {
		x := v[cell]
		f := float32((x-p.rows[p.at(c, 0)])*p.rows[p.at(c, 1)]) + p.rows[p.at(c, 2)]
		if best := y[out]; place == 0 || f > best || f != f && best == best {
			y[out], arg[out], win[out] = f, place, x
		}
	})
}

func (t *isa) normPoolGrad(dv []float32, row int, v, dy []float32, arg []uint8, p *NormParams, g PoolGeom) {
	dv, v, dy, arg = dv[:(g.H-1)*row+g.W*g.C], v[:g.inSize()], dy[:g.outSize()], arg[:g.outSize()]
	checkTiling(g, p.channels)
	if t.normPoolGradVec(dv, row, v, dy, arg, p, g) {
		return
	}
	line := g.W * g.C
	eachCell(g, line, func(out, cell, c int, place uint8) {
		d := dy[out]
		if arg[out] != place {
			d = 0
		}
		d = d - p.rows[p.at(c, 2)] - float32((v[cell]-p.rows[p.at(c, 0)])*p.rows[p.at(c, 3)])
		dv[cell/line*row+cell%line] = d * p.rows[p.at(c, 1)]
	})
}

func (t *isa) poolScatter(dst []float32, row int, dy []float32, arg []uint8, g PoolGeom) {
	dst, dy, arg = dst[:(g.H-1)*row+g.W*g.C], dy[:g.outSize()], arg[:g.outSize()]
	checkTiling(g, g.C)
	if t.poolScatterVec(dst, row, dy, arg, g) {
		return
	}
	eachCell(g, row, func(out, cell, _ int, place uint8) {
		dst[cell] = 0
		if arg[out] == place {
			dst[cell] = dy[out]
		}
	})
}

func (t *isa) maxPoolAcc(win []int32, arg []uint8, acc []int32, sign *Signs, g PoolGeom) {
	win, arg, acc = win[:g.outSize()], arg[:g.outSize()], acc[:g.inSize()]
	checkTiling(g, sign.channels)
	if t.maxAccsVec(win, arg, acc, sign, g) {
		return
	}
	eachCell(g, g.W*g.C, func(out, cell, c int, place uint8) {
		if f := sign.rows[sign.at(c)]; place == 0 || f*acc[cell] > f*win[out] {
			win[out], arg[out] = acc[cell], place
		}
	})
}

func checkTiling(g PoolGeom, channels int) {
	if !g.Tiles() || channels != g.C {
		panic("kernel: a pooling that does not tile its image, or parameters of another number of channels")
	}
}

// eachCell calls f for every element of every window, window by window, with
// its index in the output, its index in an image whose rows are row elements
// apart, its channel and its place in the window.
func eachCell(g PoolGeom, row int, f func(out, cell, c int, place uint8)) {
	outW := g.OutW()
	for oy := range g.OutH() {
		for ox := range outW {
			for i := range g.KH * g.KW {
				cell := (oy*g.KH+i/g.KW)*row + (ox*g.KW+i%g.KW)*g.C
				out := (oy*outW + ox) * g.C
				for c := range g.C {
					f(out+c, cell+c, c, uint8(i))
				}
			}
		}
	}
}
