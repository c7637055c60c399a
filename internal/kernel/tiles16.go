package kernel

// tileS16Func is a tileFunc with a float32 factor for each column, or none, and
// a B that moves by bline bytes from line to line.
type tileS16Func = func(k, k2 int, a *byte, rs, cs, a2, astrip int, b *byte, bs, b2 int, c *byte, ldc, cstrip, strips, lines, aline, cline, flag int, mask *int32, m *float32, bline int)

// tilesS16 is the tiles of a tier that multiply pairs: up to rows high, one or
// two vectors of lanes columns wide.
type tilesS16 struct {
	rows, lanes int
	mask        func(n int) *int32
	run         [3][]tileS16Func // by vectors, then rows
	winograd    winograd16Tiles
}

// productS16 is a product of pairs, in pairs where A and B are meant:
//
//	C(i,j) (+)= float32(sum of both products of A(i,step), B(step,j)) * m[j]
//
// The sum is exact: the caller keeps it within 32 bits. Where sums is not nil
// it is C instead, of plain sums modulo 2^32. It has two levels, k2
// times k steps, as those of tiles have. lines is how often the rows repeat,
// aline, bline and cline how far on.
type productS16 struct {
	a          []int32
	rs, cs, a2 int
	b          []int32
	bs         int
	k, k2      int
	c          []float32
	sums       []int32
	ldc        int
	m          []float32
	add        bool

	lines, aline, bline, cline int
}

// productS16 computes rows by cols of each line of p.
func (t *isa) productS16(p *productS16, rows, cols int) {
	if t.s16 == nil {
		p.generic(rows, cols)
		return
	}
	strips := cut(rows, t.s16.rows)
	for j := 0; j < cols; {
		width, vectors := 2*t.s16.lanes, 2
		var mask *int32
		if cols-j < width {
			width, vectors = min(cols-j, t.s16.lanes), 1
			mask = t.s16.mask(width)
		}
		t.s16.column(p, j, &strips, vectors, mask)
		j += width
	}
}

// column computes all rows of a tile column beginning at column j.
func (t *tilesS16) column(p *productS16, j int, of *[2]strips, vectors int, mask *int32) {
	flag := 0
	if p.add {
		flag = 1
	}
	for _, s := range of {
		if s.count == 0 {
			continue
		}
		at := s.row*p.ldc + j
		var c *byte
		var factor *float32
		if p.sums != nil {
			c = bytesAt(p.sums, at)
		} else {
			c, factor = bytesAt(p.c, at), &p.m[j]
		}
		t.run[vectors][s.height](p.k, p.k2,
			bytesAt(p.a, s.row*p.rs), 4*p.rs, 4*p.cs, 4*p.a2, 4*p.rs*s.height,
			bytesAt(p.b, j), 4*p.bs, 0,
			c, 4*p.ldc, 4*p.ldc*s.height, s.count,
			p.lines, 4*(p.aline-p.rs*s.height*s.count), 4*(p.cline-p.ldc*s.height*s.count), flag, mask, factor, 4*p.bline)
	}
}

// generic is the definition.
func (p *productS16) generic(rows, cols int) {
	const width = 64
	for line := range p.lines {
		for i := range rows {
			for j := 0; j < cols; j += width {
				var sums [width]int32
				n := min(width, cols-j)
				a, b := line*p.aline+i*p.rs, line*p.bline+j
				for range p.k2 {
					for range p.k {
						first, second := int32(int16(p.a[a])), p.a[a]>>16
						for c, v := range p.b[b:][:n] {
							sums[c] += first*int32(int16(v)) + second*(v>>16)
						}
						a, b = a+p.cs, b+p.bs
					}
					a += p.a2
				}
				at := line*p.cline + i*p.ldc + j
				if p.sums != nil {
					out := p.sums[at:][:n]
					for c := range out {
						if p.add {
							sums[c] += out[c]
						}
						out[c] = sums[c]
					}
					continue
				}
				out := p.c[at:][:n]
				for c := range out {
					v := float32(float32(sums[c]) * p.m[j+c])
					if p.add {
						v = out[c] + v
					}
					out[c] = v
				}
			}
		}
	}
}
