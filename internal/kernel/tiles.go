package kernel

import "unsafe"

// tileFunc is an assembly tile: lines of strips of rows x vectors of C = A*B,
// whose sum runs over k2 groups of k steps. All distances are in bytes.
//
//	A(i, step) is at a + i*rs + step*cs; after k steps, a2 more
//	B's row of a step is at b + step*bs; after k steps, b2 more
//	C(i) is at c + i*ldc
//	the next strip is at a + astrip, c + cstrip
//	the next line is aline and cline behind the end of the last strip
//
// flag makes a float tile add to C; for an integer tile it is K%4, whose bytes
// follow A's whole groups of four.
type tileFunc = func(k, k2 int, a *byte, rs, cs, a2, astrip int, b *byte, bs, b2 int, c *byte, ldc, cstrip, strips, lines, aline, cline, flag int, mask *int32)

// tileF32Func is a tileFunc of float32. While it computes a strip it fetches the
// next one into the first-level cache, one line each step, ahead bytes apart. B
// moves by bline bytes from line to line.
type tileF32Func = func(k, k2 int, a *byte, rs, cs, a2, astrip int, b *byte, bs, b2 int, c *byte, ldc, cstrip, strips, lines, aline, cline, flag int, mask *int32, ahead, bline int)

// tilesF32 is the float32 tiles of a tier, one or two vectors of lanes columns
// wide. A one-vector tile computes the columns mask(n) names.
// pack, where there is one, copies the rows of B that one tile column reads, so
// that they lie together.
type tilesF32 struct {
	lanes    int
	pack     func(dst, src *float32, rows, stride int)
	mask     func(n int) *int32
	run      [3][]tileF32Func // by vectors, then rows
	winograd winogradTiles
}

// product is the operands of a matrix product in a tile's terms, in elements.
// Its rows repeat for each of several lines, a convolution's rows of pixels, as
// far on as aline says in A, bline in B and cline in C.
type product struct {
	a          []float32
	rs, cs, a2 int
	b          []float32
	bs, b2     int
	k, k2      int
	c          []float32
	ldc        int
	add        bool

	lines, aline, bline, cline int
}

// block computes m rows by n columns of each line of p. The caller has checked
// that the strides stay inside the slices.
func (t *tilesF32) block(p *product, m, n int) {
	flag := 0
	if p.add {
		flag = 1
	}
	for j := 0; j < n; {
		width, vectors := 2*t.lanes, 2
		var mask *int32
		if n-j < width {
			width, vectors = min(n-j, t.lanes), 1
			mask = t.mask(width)
		}
		t.column(p, j, m, vectors, flag, mask)
		j += width
	}
}

// column computes all rows of a tile column beginning at column j.
func (t *tilesF32) column(p *product, j, m, vectors, flag int, mask *int32) {
	for _, s := range cut(m, len(t.run[vectors])-1) {
		if s.count == 0 {
			continue
		}
		ahead := 0 // rows that lie elsewhere than behind each other are in cache, or nothing helps
		if p.cs == 1 && p.k2 == 1 && p.rs <= 2*p.k {
			ahead = 4 * p.rs * s.height / p.k
		}
		t.run[vectors][s.height](p.k, p.k2,
			bytesAt(p.a, s.row*p.rs), 4*p.rs, 4*p.cs, 4*p.a2, 4*p.rs*s.height,
			bytesAt(p.b, j), 4*p.bs, 4*p.b2,
			bytesAt(p.c, s.row*p.ldc+j), 4*p.ldc, 4*p.ldc*s.height, s.count,
			p.lines, 4*(p.aline-p.rs*s.height*s.count), 4*(p.cline-p.ldc*s.height*s.count), flag, mask, ahead, 4*p.bline)
	}
}

// strips are count times height rows from row on.
type strips struct{ row, count, height int }

// cut cuts m rows into strips of at most tall rows and nearly equal height: the
// first set's have one row more.
func cut(m, tall int) [2]strips {
	count := (m + tall - 1) / tall
	height, taller := m/count, m%count
	return [2]strips{{0, taller, height + 1}, {taller * (height + 1), count - taller, height}}
}

// bytesAt returns the address of x[i] as the assembly wants it.
func bytesAt[T any](x []T, i int) *byte { return (*byte)(unsafe.Pointer(&x[i])) }

// Blocking of float products. kBlock is part of the arithmetic: it says where
// a sum is cut. The others only keep panels in cache.
const (
	kBlock = 512
	mBlock = 448
)

// packRows is how many rows of A make copying B worth its time.
const packRows = 32

// collide reports that k rows of B, ldb apart, do not stay together in a
// first-level cache of eight ways of 4 kB: large powers of two share its sets.
func collide(ldb, k int) bool {
	const way, ways = 4096, 8
	step := 4 * ldb & -(4 * ldb) // the power of two in it
	return k > ways*way/min(max(step, 64), way)
}

// gemm is Gemm on tiles with B not transposed.
func (t *tilesF32) gemm(dst []float32, ldc int, a []float32, rs, cs int, b []float32, ldb, m, n, k int, accumulate bool, s *Scratch) {
	for k0 := 0; k0 < k; k0 += kBlock {
		for m0 := 0; m0 < m; m0 += mBlock {
			p := product{
				a: a[m0*rs+k0*cs:], rs: rs, cs: cs,
				b: b[k0*ldb:], bs: ldb,
				k: min(kBlock, k-k0), k2: 1,
				c: dst[m0*ldc:], ldc: ldc, add: accumulate || k0 > 0, lines: 1,
			}
			if r := min(mBlock, m-m0); t.pack != nil && r >= packRows && collide(ldb, p.k) {
				t.packed(&p, r, n, s)
			} else {
				t.block(&p, r, n)
			}
		}
	}
}

// packed is block on copies of B's tile columns; the last one, where it is
// narrower, stays where it is.
func (t *tilesF32) packed(p *product, m, n int, s *Scratch) {
	width, flag := 2*t.lanes, 0
	if p.add {
		flag = 1
	}
	panel := grow(&s.panel, p.k*width)
	j := 0
	for ; j+width <= n; j += width {
		t.pack(&panel[0], &p.b[j], p.k, 4*p.bs)
		q := *p
		q.b, q.bs, q.c = panel, width, p.c[j:]
		t.column(&q, 0, m, 2, flag, nil)
	}
	if j < n {
		q := *p
		q.b, q.c = p.b[j:], p.c[j:]
		t.block(&q, m, n-j)
	}
}
