package kernel

// tilesS8 is the integer tiles of a tier: up to rows high, cols wide, with a
// narrow form of half the width where the tier has one. They read A in codes of
// size bytes, 1, or 2 where A is widened to s16 first, group codes at a time: 4
// or 8. B lies in panels of cols columns, 128 bytes for each group. pack writes
// four rows of one, packVec groups of four rows of a whole one.
type tilesS8 struct {
	rows, cols  int
	size, group int
	mask        func(n int) *int32
	pack        func(panel []int8, w []int8, n, cols int)
	packVec     func(panel, w *int8, groups, stride int)
	run         []tileFunc
	narrow      []tileFunc
	// the same requantizing
	codes, narrowCodes []requantTileFunc
	// the same storing values
	values, narrowValues []valueTileFunc
}

// requantTileFunc is a tileFunc whose results are codes.
type requantTileFunc = func(k, k2 int, a *byte, rs, cs, a2, astrip int, b *byte, bs, b2 int, c *byte, ldc, cstrip, strips, lines, aline, cline, flag int, mask, bias *int32, m *float32, lo, hi float32, zero int32)

// valueTileFunc is a tileFunc whose results are float32 values.
type valueTileFunc = func(k, k2 int, a *byte, rs, cs, a2, astrip int, b *byte, bs, b2 int, c *byte, ldc, cstrip, strips, lines, aline, cline, flag int, mask, bias *int32, m *float32)

// groupBytes is the size of one packed group.
const groupBytes = 128

// groups is how many groups k codes take.
func (t *tilesS8) groups(k int) int { return (k + t.group - 1) / t.group }

// slack is how many codes are missing to whole groups.
func (t *tilesS8) slack(k int) int { return t.groups(k)*t.group - k }

// productS8 is the operands of an integer product in a tile's terms: A and its
// distances in bytes, C in elements.
type productS8 struct {
	a          []uint8
	rs, cs, a2 int
	k, k2      int // in groups
	tail       int
	c          []int32
	ldc        int

	lines, aline, cline int // as those of product

	// With rq the results are codes, which go to q instead of c, or values,
	// which go to v.
	q  []uint8
	v  []float32
	rq *rowRequant
}

// to sets where the result begins: at element at of the sums, or with rq of
// the codes or values from rq.first on.
func (p *productS8) to(acc []int32, rq *rowRequant, at int) {
	switch p.rq = rq; {
	case rq == nil:
		p.c = acc[at:]
	case rq.values != nil:
		p.v = rq.values[rq.first+at:]
	default:
		p.q = rq.dst[rq.first+at:]
	}
}

// columnsOf computes m rows of each line by the columns [from, to) of b; from
// is a multiple of t.cols.
func (t *tilesS8) columnsOf(p *productS8, b *PackedS8, m, from, to int) {
	panel := groupBytes * t.groups(b.K)
	for j := from; j < to; j += t.cols {
		width, run, codes, values := min(t.cols, to-j), t.run, t.codes, t.values
		if width <= t.cols/2 && t.narrow != nil {
			run, codes, values = t.narrow, t.narrowCodes, t.narrowValues
		}
		for _, s := range cut(m, t.rows) {
			if s.count == 0 {
				continue
			}
			at, rows, rq := s.row*p.ldc+j, s.count*s.height, p.rq
			a, w, mask := &p.a[s.row*p.rs], bytesAt(b.panels, j/t.cols*panel), t.columns(width)
			astrip, aline, cline := p.rs*s.height, p.aline-p.rs*rows, p.cline-p.ldc*rows
			switch {
			case rq == nil:
				run[s.height](p.k, p.k2, a, p.rs, p.cs, p.a2, astrip, w, groupBytes, 0,
					bytesAt(p.c, at), 4*p.ldc, 4*p.ldc*s.height, s.count, p.lines, aline, 4*cline, p.tail, mask)
			case rq.values != nil:
				values[s.height](p.k, p.k2, a, p.rs, p.cs, p.a2, astrip, w, groupBytes, 0,
					bytesAt(p.v, at), 4*p.ldc, 4*p.ldc*s.height, s.count, p.lines, aline, 4*cline, p.tail, mask, &rq.bias[rq.first+j], &rq.m[rq.first+j])
			default:
				codes[s.height](p.k, p.k2, a, p.rs, p.cs, p.a2, astrip, w, groupBytes, 0,
					&p.q[at], p.ldc, p.ldc*s.height, s.count, p.lines, aline, cline, p.tail, mask, &rq.bias[rq.first+j], &rq.m[rq.first+j],
					float32(rq.lo-rq.zero), float32(rq.hi-rq.zero), rq.zero)
			}
		}
	}
}

// columns returns the mask of width columns; whole ymm tiles take none.
func (t *tilesS8) columns(width int) *int32 {
	if width == t.cols && t.narrow == nil {
		return nil
	}
	return t.mask(width)
}

// packPanels writes the panels of the columns [from, to) of the matrix as given.
func (t *isa) packPanels(p *PackedS8, from, to int) {
	tiles, w := p.tiles, p.raw
	size, four := groupBytes*tiles.groups(p.K), groupBytes*4/tiles.group
	for i := from / tiles.cols; i*tiles.cols < to; i++ {
		cols, k := min(tiles.cols, to-i*tiles.cols), 0
		panel := p.panels[i*size:][:size]
		if k = p.K &^ 3; cols == tiles.cols && k > 0 {
			tiles.packVec(&panel[0], &w[i*cols], k/4, p.N)
		} else {
			k = 0
		}
		clear(panel[k/4*four:])
		for ; k < p.K; k += 4 {
			rows := min(4, p.K-k)
			first := k*p.N + i*tiles.cols
			tiles.pack(panel[k/4*four:][:four], w[first:first+(rows-1)*p.N+cols], p.N, cols)
		}
	}
}

// codeOnes and wideOnes, four ones widened, are never written.
var (
	codeOnes = [8]uint8{1, 1, 1, 1, 1, 1, 1, 1}
	wideOnes = [8]uint8{1, 0, 1, 0, 1, 0, 1, 0}
)

// columnSums is the product of a row of ones with b, read from one group of
// ones again and again.
func (t *tilesS8) columnSums(b *PackedS8, from, to int) {
	ones := codeOnes[:]
	if t.size == 2 {
		ones = wideOnes[:]
	}
	t.columnsOf(&productS8{a: ones, k: t.groups(b.K), k2: 1, c: b.ColSums, ldc: b.N, lines: 1}, b, 1, from, to)
}

// packQuads packs up to four rows of w, n apart, as the four bytes of each
// column: the operand of VPDPBUSD.
func packQuads(panel []int8, w []int8, n, cols int) {
	for r := 0; r*n < len(w); r++ {
		for j, v := range w[r*n:][:cols] {
			panel[4*j+r] = v
		}
	}
}

// packPairs packs up to four rows of w as s16 pairs, rows 0 and 1 of all 16
// columns, then rows 2 and 3: the operand of VPMADDWD.
func packPairs(panel []int8, w []int8, n, cols int) {
	for r := 0; r*n < len(w); r++ {
		at := panel[r/2*64+r%2*2:]
		for j, v := range w[r*n:][:cols] {
			at[4*j], at[4*j+1] = v, v>>7
		}
	}
}

// blockBytes is how much of A a product keeps in the second-level cache.
const blockBytes = 256 << 10

// gemm is GemmU8S8 on tiles. The result goes to acc, or with rq to its codes or
// values.
func (t *tilesS8) gemm(acc []int32, rq *rowRequant, ldc int, a []uint8, lda int, b *PackedS8, m, from, to int, s *Scratch) {
	if t.size == 2 {
		t.gemmWide(acc, rq, ldc, a, lda, b, m, from, to, s)
		return
	}
	if t.group == 8 {
		t.gemmBytes(acc, rq, ldc, a, lda, b, m, from, to, s)
		return
	}
	// A's rows are read in groups of four bytes; a row shorter than that is copied
	// to a padded one first unless memory follows it.
	k, tail := b.K/4, b.K%4
	if k == 0 {
		if lda < 4 || cap(a) < (m-1)*lda+4 {
			t.gemmShort(acc, rq, ldc, a, lda, b, m, from, to, s)
			return
		}
		k, tail = 1, 0 // what follows a row meets weights of zero
	}
	step := max(t.rows, blockBytes/b.K/t.rows*t.rows)
	for i := 0; i < m; i += step {
		p := productS8{a: a[i*lda:], rs: lda, cs: 4, k: k, k2: 1, tail: tail, ldc: ldc, lines: 1}
		p.to(acc, rq, i*ldc)
		t.columnsOf(&p, b, min(step, m-i), from, to)
	}
}

func (t *tilesS8) gemmShort(acc []int32, rq *rowRequant, ldc int, a []uint8, lda int, b *PackedS8, m, from, to int, s *Scratch) {
	const step = 64
	rows := wordBytes(grow(&s.words, 2*step))
	for i := 0; i < m; i += step {
		r := min(step, m-i)
		for j := range r {
			copy(rows[4*j:4*j+b.K], a[(i+j)*lda:])
		}
		p := productS8{a: rows, rs: 4, cs: 4, k: 1, k2: 1, ldc: ldc, lines: 1}
		p.to(acc, rq, i*ldc)
		t.columnsOf(&p, b, r, from, to)
	}
}

// gemmBytes reads rows in whole groups of eight, and copies them where they are
// none.
func (t *tilesS8) gemmBytes(acc []int32, rq *rowRequant, ldc int, a []uint8, lda int, b *PackedS8, m, from, to int, s *Scratch) {
	ld := 8 * t.groups(b.K)
	step := max(t.rows, blockBytes/(2*ld)/t.rows*t.rows)
	var rows []uint8
	if ld != b.K {
		rows = wordBytes(grow(&s.words, min(step, m)*ld/2))
	}
	for i := 0; i < m; i += step {
		r, rs := min(step, m-i), lda
		p := productS8{a: a[i*lda:], cs: 8, k: ld / 8, k2: 1, ldc: ldc, lines: 1}
		if rows != nil {
			for j := range r {
				copy(rows[j*ld:][:b.K], a[(i+j)*lda:])
			}
			p.a, rs = rows, ld
		}
		p.rs = rs
		p.to(acc, rq, i*ldc)
		t.columnsOf(&p, b, r, from, to)
	}
}

// gemmWide widens a block of rows, each to whole groups of four codes, and
// multiplies it.
func (t *tilesS8) gemmWide(acc []int32, rq *rowRequant, ldc int, a []uint8, lda int, b *PackedS8, m, from, to int, s *Scratch) {
	ld := (b.K + 3) &^ 3
	step := t.wideRows(ld)
	words := grow(&s.words, min(step, m)*ld)
	for i := 0; i < m; i += step {
		r := min(step, m-i)
		widenRows(words, ld, a[i*lda:], lda, b.K, r)
		t.wide(acc, rq, ldc, words, b, i, r, from, to)
	}
}

// wideRows is how many rows of ld widened codes are multiplied at a time.
func (t *tilesS8) wideRows(ld int) int { return max(t.rows, blockBytes/(4*ld)/t.rows*t.rows) }

// wide computes m rows, the first of which is row i of the result.
func (t *tilesS8) wide(acc []int32, rq *rowRequant, ldc int, words []int16, b *PackedS8, i, m, from, to int) {
	ld := (b.K + 3) &^ 3
	p := productS8{a: wordBytes(words), rs: 2 * ld, cs: 8, k: ld / 4, k2: 1, ldc: ldc, lines: 1}
	p.to(acc, rq, i*ldc)
	t.columnsOf(&p, b, m, from, to)
}
