package kernel

import "github.com/narrow-ml/narrow/internal/cpu"

// PackedS8 is a K x N matrix of s8 weight codes in the order the integer
// kernels of one tier read them. K is padded with zero codes.
type PackedS8 struct {
	K, N int
	// ColSums holds sum_k w[k,j]. The sum over (q-z)*w is the raw sum over q*w
	// minus z*ColSums[j], exactly.
	ColSums []int32

	raw    []int8 // the matrix as given, row-major
	panels []int8 // the same as tiles read it
	layout cpu.Tier
	tiles  *tilesS8

	// Of a convolution's weights whose kernel rows are no whole groups of codes
	// long: rowsLen is that length and rows the same with zeros after each row.
	rowsLen int
	rows    *PackedS8

	// Of a grouped convolution's weights: the matrix of each group, whose raw
	// ones follow each other in split.
	groups []PackedS8
	split  []int8
}

// PackS8 packs w, row-major [k,n], and keeps w: its elements must not change
// until the next Repack. Convolution weights [KH,KW,Cin/Groups,Cout]
// are the matrix with k = KH*KW*Cin/Groups and n = Cout.
func PackS8(w []int8, k, n int) *PackedS8 {
	p := new(PackedS8)
	p.Repack(w, k, n)
	return p
}

// PackConvS8 is PackS8 of a convolution's weights, with all that ConvU8S8 would
// otherwise prepare on each call.
func PackConvS8(w []int8, g ConvGeom) *PackedS8 {
	p := new(PackedS8)
	p.RepackConv(w, g, new(Scratch))
	return p
}

// RepackConv is PackConvS8 into the memory of p.
func (p *PackedS8) RepackConv(w []int8, g ConvGeom, s *Scratch) {
	active.packConv(p, w, g, s)
}

func (t *isa) packConv(p *PackedS8, w []int8, g ConvGeom, s *Scratch) {
	run := g.KW * g.Cin
	direct := t.s8 != nil && g.direct() && !g.pointwise()
	if direct {
		t.packAs(p, w, g.Depth(), g.Cout, t.tilesFor(w, run))
	} else {
		t.packS8(p, w, g.Depth(), g.Cout)
	}
	switch {
	case g.depthwise():
	case g.Groups > 1:
		t.packGroups(p, w, g, s)
	case direct && p.tiles.slack(run) != 0:
		if p.rows == nil {
			p.rows = new(PackedS8)
		}
		p.rowsLen = run
		t.packRows(p.rows, w, s, g, p.tiles)
		p.rows.raw = nil // was the scratch memory's
	}
}

// packGroups packs the columns of every group as a convolution's weights.
func (t *isa) packGroups(p *PackedS8, w []int8, g ConvGeom, s *Scratch) {
	each := g.group()
	size := each.weightSize()
	p.K, p.N = g.Depth(), g.Cout
	split, groups := grow(&p.split, g.weightSize()), grow(&p.groups, g.Groups)
	for i := range groups {
		raw := split[i*size:][:size]
		copyPixels(raw, w[i*each.Cout:], g.Cout, each.Cout, p.K)
		t.packConv(&groups[i], raw, each, s)
	}
}

// groupsOf returns w with its groups packed, in memory of s where PackConvS8
// did not.
func (t *isa) groupsOf(w *PackedS8, g ConvGeom, s *Scratch) *PackedS8 {
	if g.Groups == 1 || g.depthwise() || len(w.groups) == g.Groups && w.groups[0].layout == t.tier {
		return w
	}
	t.packGroups(&s.groups, w.raw, g, s)
	return &s.groups
}

// group returns the weights of one group, those of a dense convolution being p.
func (p *PackedS8) group(i int, g ConvGeom) *PackedS8 {
	if g.Groups == 1 {
		return p
	}
	return &p.groups[i]
}

// packRows packs w with zeros after each kernel row, up to whole groups.
func (t *isa) packRows(p *PackedS8, w []int8, s *Scratch, g ConvGeom, tiles *tilesS8) {
	run := g.KW * g.Cin
	long := run + tiles.slack(run)
	wide := grow(&s.codes, g.KH*long*g.Cout)
	clear(wide)
	for kh := range g.KH {
		copy(wide[kh*long*g.Cout:], w[kh*run*g.Cout:(kh+1)*run*g.Cout])
	}
	t.packAs(p, wide, g.KH*long, g.Cout, tiles)
}

// Repack is PackS8 into the memory of p.
func (p *PackedS8) Repack(w []int8, k, n int) { active.packS8(p, w, k, n) }

// Begin is Repack cut by columns: it takes the matrix, and RepackColumns, which
// may run in several goroutines at once, packs it.
func (p *PackedS8) Begin(w []int8, k, n int) { active.beginPack(p, w, k, n) }

// RepackColumns packs the columns [from, to); from is a multiple of ColumnUnit,
// and so is to unless it is N.
func (p *PackedS8) RepackColumns(from, to int) { active.packColumns(p, from, to) }

func (t *isa) packS8(p *PackedS8, w []int8, k, n int) { t.packAs(p, w, k, n, t.tilesFor(w[:k*n], k)) }

func (t *isa) packAs(p *PackedS8, w []int8, k, n int, tiles *tilesS8) {
	t.beginPackAs(p, w, k, n, tiles)
	t.packColumns(p, 0, n)
}

func (t *isa) beginPack(p *PackedS8, w []int8, k, n int) {
	t.beginPackAs(p, w, k, n, t.tilesFor(w[:k*n], k))
}

func (t *isa) beginPackAs(p *PackedS8, w []int8, k, n int, tiles *tilesS8) {
	p.K, p.N, p.layout, p.tiles, p.rowsLen, p.groups = k, n, t.tier, tiles, 0, p.groups[:0]
	p.raw = w[:k*n]
	grow(&p.ColSums, n)
	if tiles != nil {
		grow(&p.panels, groupBytes*tiles.groups(k)*((n+tiles.cols-1)/tiles.cols))
	}
}

// limitS6 is the greatest magnitude of weights that the tiles for few bits take.
const limitS6 = 32

// tilesFor returns the tiles for weights w of which run follow each other along
// the sum: nil where the tier has none.
func (t *isa) tilesFor(w []int8, run int) *tilesS8 {
	if t.s6 != nil && (run%t.s6.group == 0 || run >= 2*t.s6.group) && absMaxS8(w) <= limitS6 {
		return t.s6
	}
	return t.s8
}

// absMaxS8 is the greatest magnitude of codes.
func absMaxS8(w []int8) int {
	top, done := absMaxS8Vec(w)
	for _, v := range w[done:] {
		top = max(top, int(v), -int(v))
	}
	return top
}

func (t *isa) packColumns(p *PackedS8, from, to int) {
	if from%ColumnUnit != 0 || to > p.N || (to%ColumnUnit != 0 && to != p.N) {
		panic("kernel: a cut of columns is not a multiple of the widest tile")
	}
	clear(p.ColSums[from:to])
	if t.s8 != nil && p.K > 0 && from < to {
		t.packPanels(p, from, to)
		p.tiles.columnSums(p, from, to)
		return
	}
	for i := range p.K {
		for j, v := range p.raw[i*p.N+from : i*p.N+to] {
			p.ColSums[from+j] += int32(v)
		}
	}
}
