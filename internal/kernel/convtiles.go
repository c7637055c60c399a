package kernel

// Convolutions on tiles without a patch matrix. In an image with its padding
// written out, the inputs of one output row under one kernel row are a matrix
// in place: pixel ox begins StrideW*Cin further, and KW*Cin elements lie side
// by side. The two-level sum of a tile then walks all kernel rows in one call.

// direct reports that the tiles can walk this geometry in place. It looks at
// the geometry alone, so the choice never changes bits between batches.
func (g ConvGeom) direct() bool {
	return g.Groups == 1 && (g.KW == 1 || g.dilW() == 1) && g.OutW() >= 4
}

// paddedSize returns the size of one image with its padding.
func (g ConvGeom) paddedSize() int {
	return (g.H + g.PadTop + g.PadBottom) * g.paddedRow()
}

func (g ConvGeom) padded() bool { return g.PadTop|g.PadLeft|g.PadBottom|g.PadRight != 0 }

func (g ConvGeom) paddedRow() int { return (g.W + g.PadLeft + g.PadRight) * g.Cin }

// padImage returns the image x, whose pixels are pitch apart, side by side and
// with its padding written out as pad: x itself when it is that already, else a
// copy in buf.
func padImage[T any](buf *[]T, x []T, pitch int, pad T, g ConvGeom) []T {
	if pitch == g.Cin && !g.padded() {
		return x
	}
	return padInto(grow(buf, g.paddedSize()), x, pitch, pad, g)
}

// padInto writes the padded image of x, and pad on the rest of out. What lies
// between two lines is the end of one row and the start of the next.
func padInto[T any](out, x []T, pitch int, pad T, g ConvGeom) []T {
	line, between := g.W*g.Cin, (g.PadLeft+g.PadRight)*g.Cin
	at := g.PadTop*g.paddedRow() + g.PadLeft*g.Cin
	fill(out[:at], pad)
	blank := out[:0] // a stretch of padding to copy from
	if at >= between {
		blank = out[:between]
	}
	for y := range g.H {
		if pitch == g.Cin {
			copy(out[at:][:line], x[y*line:])
		} else {
			copyPixels(out[at:], x[y*g.W*pitch:], pitch, g.Cin, g.W)
		}
		at += line
		switch {
		case y == g.H-1:
			fill(out[at:], pad)
		case len(blank) < between:
			blank = out[at:][:between]
			fill(blank, pad)
		default:
			copy(out[at:], blank)
		}
		at += between
	}
	return out
}

// forward computes one image of a direct convolution; img is padded. Pixels of
// y and rows of w are ld apart.
func (t *tilesF32) forward(y, img, w []float32, ld int, g ConvGeom) {
	run, row := g.KW*g.Cin, g.paddedRow()
	p := product{
		a: img, rs: g.StrideW * g.Cin, cs: 1, a2: g.dilH()*row - run,
		b: w, bs: ld, k: run, k2: g.KH, c: y, ldc: ld,
		lines: g.OutH(), aline: g.StrideH * row, cline: g.OutW() * ld,
	}
	t.block(&p, g.OutW(), g.Cout)
}

// backwardWeight adds one image's share of the weight gradient: for each
// kernel row, KW*Cin rows by Cout columns, summed over all output pixels. Rows
// of dw and pixels of dy are ld apart.
func (t *tilesF32) backwardWeight(dw, img, dy []float32, ld int, g ConvGeom) {
	outW, run, row := g.OutW(), g.KW*g.Cin, g.paddedRow()
	step := g.StrideW * g.Cin
	t.block(&product{
		a: img, rs: 1, cs: step, a2: g.StrideH*row - outW*step,
		b: dy, bs: ld, k: outW, k2: g.OutH(),
		c: dw, ldc: ld, add: true,
		lines: g.KH, aline: g.dilH() * row, cline: run * ld,
	}, run, g.Cout)
}

// inputGeom returns dy as an image with all the padding that its convolutions
// to dx need, one for each of the geometry's phases. They exist without
// dilation, where the tier has tiles; a pointwise convolution is a product
// already.
func (t *isa) inputGeom(g ConvGeom) (padded ConvGeom, ok bool) {
	padded = ConvGeom{H: g.OutH(), W: g.OutW(), Cin: g.Cout}
	ok = t.f32 != nil && g.Groups == 1 && !g.pointwise() && g.dilH() == 1 && g.dilW() == 1
	for i := range g.phases() {
		y, x := g.phase(i)
		padded.PadTop, padded.PadBottom = max(padded.PadTop, y.before), max(padded.PadBottom, y.after)
		padded.PadLeft, padded.PadRight = max(padded.PadLeft, x.before), max(padded.PadRight, x.after)
		ok = ok && x.count >= 4
	}
	return padded, ok
}

// backwardInput computes one image of dx, whose pixels are ld apart, from dy as
// inputGeom pads it. The weights of phases follow each other, those of every
// tap transposed. Inputs of phases without taps stay as they are.
func (t *tilesF32) backwardInput(dx []float32, ld int, dy, w []float32, g, padded ConvGeom) {
	row, c := padded.paddedRow(), g.Cin
	for i := range g.phases() {
		y, x := g.phase(i)
		if y.count <= 0 || x.count <= 0 || y.taps*x.taps == 0 {
			continue
		}
		run := x.taps * g.Cout
		p := product{
			a: dy[(padded.PadTop-y.before)*row+(padded.PadLeft-x.before)*g.Cout:], rs: g.Cout, cs: 1, a2: row - run,
			b: w, bs: c, k: run, k2: y.taps,
			c: dx[(y.first*g.W+x.first)*ld:], ldc: g.StrideW * ld,
			lines: y.count, aline: row, cline: g.StrideH * g.W * ld,
		}
		t.block(&p, x.count, c)
		w = w[y.taps*run*c:]
	}
}

// forward computes one image of a direct convolution of codes; img is padded.
// A kernel row of codes takes whole groups: the weights of the codes beyond it
// are zero, and img, of codes of t.size bytes, may be read so far past its end.
// The result begins at element at of acc, or with rq of its codes or values; its
// pixels are ld apart.
func (t *tilesS8) forward(acc []int32, rq *rowRequant, at, ld int, img []uint8, b *PackedS8, g ConvGeom) {
	outW, outH, groups := g.OutW(), g.OutH(), t.groups(g.KW*g.Cin)
	row := t.size * g.paddedRow()
	p := productS8{
		a: img, rs: t.size * g.StrideW * g.Cin, cs: t.size * t.group, a2: g.dilH()*row - t.size*t.group*groups,
		k: groups, k2: g.KH, ldc: ld,
		lines: outH, aline: g.StrideH * row, cline: outW * ld,
	}
	p.to(acc, rq, at)
	t.columnsOf(&p, b, outW, 0, b.N)
}

// convDirect is a convolution of codes without a patch matrix. When a kernel
// row is no whole groups of codes, the weights are packed anew with zeros
// after each kernel row, unless PackConvS8 did; such rows are those of first
// layers, and short. The result is acc's or, with rq, codes.
func (t *isa) convDirect(acc []int32, rq *rowRequant, x []uint8, zero uint8, w *PackedS8, n int, g ConvGeom, s *Scratch) {
	each := g.group()
	in, out, run := g.inSize(), g.outSize(), g.KW*each.Cin
	for i := range g.Groups {
		wi, first := w.group(i, g), i*each.Cout
		slack := wi.tiles.slack(run)
		switch {
		case slack == 0:
		case wi.rowsLen == run && wi.rows.layout == t.tier:
			wi = wi.rows
		default:
			t.packRows(&s.packed, wi.raw, s, each, wi.tiles)
			wi = &s.packed
		}
		sums := acc
		if rq != nil {
			rq.first = first
		} else {
			sums = acc[first:]
		}
		for image := range n {
			img := x[image*in:][:in][i*each.Cin:]
			if slack != 0 || g.padded() || g.Groups > 1 {
				img = padInto(grow(&s.bytes, each.paddedSize()+slack), img, g.Cin, zero, each)
			}
			if wi.tiles.size == 2 {
				words := grow(&s.words, len(img))
				widenRows(words, len(img), img, len(img), len(img), 1)
				img = wordBytes(words)
			}
			wi.tiles.forward(sums, rq, image*out, g.Cout, img, wi, each)
		}
	}
}
