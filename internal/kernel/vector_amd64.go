package kernel

import (
	"math"

	"github.com/narrow-ml/narrow/internal/cpu"
)

// noBias is the bias stream of kernels that have none.
var noBias [vecLanes]int32

// Buffers for stretched streams are cleared when they come to life, which costs
// more than a short row's work: functions look first whether whole registers
// fit the period and do not reach them then.

// wholeBias is biasStream of a bias that needs no stretching.
func wholeBias(bias []int32) (b *int32, mask int) {
	if bias == nil {
		return &noBias[0], 0
	}
	return &bias[0], -1
}

// biasStream returns the bias stream, which must be as long as m's, and the
// mask its offset is taken with.
func biasStream(buf *[stretchLen]int32, bias []int32) (b *int32, mask int) {
	if bias == nil {
		return &noBias[0], 0
	}
	return &stretch(buf, bias)[0], -1
}

func (t *isa) requantVec(dst []uint8, acc, bias []int32, m []float32, zero, lo, hi int32) int {
	n := len(acc) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if len(m)%vecLanes == 0 {
		b, mask := wholeBias(bias)
		t.requantRun(dst, acc, b, m, n, mask, zero, lo, hi)
		return n
	}
	var mBuf [stretchLen]float32
	var bBuf [stretchLen]int32
	ms := stretch(&mBuf, m)
	if ms == nil {
		return 0
	}
	b, mask := biasStream(&bBuf, bias)
	t.requantRun(dst, acc, b, ms, n, mask, zero, lo, hi)
	return n
}

func (t *isa) requantRun(dst []uint8, acc []int32, b *int32, ms []float32, n, mask int, zero, lo, hi int32) {
	if t.tier == cpu.AVX512VNNI {
		requantZ(&dst[0], &acc[0], b, &ms[0], n, len(ms), mask, float32(lo-zero), float32(hi-zero), zero)
	} else {
		requantY(&dst[0], &acc[0], b, &ms[0], n, len(ms), mask, float32(lo-zero), float32(hi-zero), zero)
	}
}

func (t *isa) requantTrainVec(dst, mask []uint8, acc, bias []int32, m []float32, zero, lo, hi int32, relu bool, st *RequantStats) int {
	n := len(acc) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if len(m)%vecLanes == 0 {
		b, biasMask := wholeBias(bias)
		t.requantTrainRun(dst, mask, acc, b, m, n, biasMask, zero, lo, hi, relu, st)
		return n
	}
	var mBuf [stretchLen]float32
	var bBuf [stretchLen]int32
	ms := stretch(&mBuf, m)
	if ms == nil {
		return 0
	}
	b, biasMask := biasStream(&bBuf, bias)
	t.requantTrainRun(dst, mask, acc, b, ms, n, biasMask, zero, lo, hi, relu, st)
	return n
}

func (t *isa) requantTrainRun(dst, mask []uint8, acc []int32, b *int32, ms []float32, n, biasMask int, zero, lo, hi int32, relu bool, st *RequantStats) {
	above := passAbove(relu)
	var stats statLanes
	stats.spread(st)
	if t.tier == cpu.AVX512VNNI {
		requantTrainZ(&dst[0], &mask[0], &acc[0], b, &ms[0], &stats[0], n, len(ms), biasMask, float32(lo-zero), float32(hi-zero), above, zero)
	} else {
		requantTrainY(&dst[0], &mask[0], &acc[0], b, &ms[0], &stats[0], n, len(ms), biasMask, float32(lo-zero), float32(hi-zero), above, zero)
	}
	stats.join(st)
}

// passAbove is the limit that a value's gradient passes above.
func passAbove(relu bool) float32 {
	if relu {
		return 0
	}
	return float32(math.Inf(-1))
}

// statLanes are sixteen running minima, then sixteen maxima.
type statLanes [2 * vecLanes]float32

func (l *statLanes) spread(st *RequantStats) {
	fill(l[:vecLanes], st.Min)
	fill(l[vecLanes:], st.Max)
}

func (l *statLanes) join(st *RequantStats) {
	for i := range vecLanes {
		st.Min, st.Max = min(st.Min, l[i]), max(st.Max, l[vecLanes+i])
	}
}

func (t *isa) addRequantTrainVec(dst, mask []uint8, a, b Term, zero int32, lo, hi float32, relu bool, st *RequantStats) int {
	n := len(dst) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	var stats statLanes
	stats.spread(st)
	if t.tier == cpu.AVX512VNNI {
		addRequantTrainZ(&dst[0], &mask[0], &a.Q[0], &b.Q[0], &stats[0], n, a.M, b.M, lo, hi, passAbove(relu), a.Zero, b.Zero, zero)
	} else {
		addRequantTrainY(&dst[0], &mask[0], &a.Q[0], &b.Q[0], &stats[0], n, a.M, b.M, lo, hi, passAbove(relu), a.Zero, b.Zero, zero)
	}
	stats.join(st)
	return n
}

func (t *isa) addScaledVec(dst []float32, a, b Term) int {
	n := len(dst) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if t.tier == cpu.AVX512VNNI {
		addScaledZ(&dst[0], &a.Q[0], &b.Q[0], n, a.M, b.M, a.Zero, b.Zero)
	} else {
		addScaledY(&dst[0], &a.Q[0], &b.Q[0], n, a.M, b.M, a.Zero, b.Zero)
	}
	return n
}

func (t *isa) scaleRowsVec(dst []float32, acc, bias []int32, m []float32) int {
	n := len(acc) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if len(m)%vecLanes == 0 {
		b, mask := wholeBias(bias)
		t.scaleRowsRun(dst, acc, b, m, n, mask)
		return n
	}
	var mBuf [stretchLen]float32
	var bBuf [stretchLen]int32
	ms := stretch(&mBuf, m)
	if ms == nil {
		return 0
	}
	b, mask := biasStream(&bBuf, bias)
	t.scaleRowsRun(dst, acc, b, ms, n, mask)
	return n
}

func (t *isa) scaleRowsRun(dst []float32, acc []int32, b *int32, ms []float32, n, mask int) {
	if t.tier == cpu.AVX512VNNI {
		scaleRowsZ(&dst[0], &acc[0], b, &ms[0], n, len(ms), mask)
	} else {
		scaleRowsY(&dst[0], &acc[0], b, &ms[0], n, len(ms), mask)
	}
}

func (t *isa) addBiasVec(y, x, bias []float32) int {
	n := len(x) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if len(bias)%vecLanes == 0 {
		t.addBiasRun(y, x, bias, n)
		return n
	}
	var buf [stretchLen]float32
	b := stretch(&buf, bias)
	if b == nil {
		return 0
	}
	t.addBiasRun(y, x, b, n)
	return n
}

func (t *isa) addBiasRun(y, x, b []float32, n int) {
	if t.tier == cpu.AVX512VNNI {
		addBiasZ(&y[0], &x[0], &b[0], n, len(b))
	} else {
		addBiasY(&y[0], &x[0], &b[0], n, len(b))
	}
}

func (t *isa) reluVec(y, x []float32) int {
	n := len(x) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if t.tier == cpu.AVX512VNNI {
		reluZ(&y[0], &x[0], n)
	} else {
		reluY(&y[0], &x[0], n)
	}
	return n
}

func (t *isa) reluGradVec(dx, dy, y []float32) int {
	n := len(y) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if t.tier == cpu.AVX512VNNI {
		reluGradZ(&dx[0], &dy[0], &y[0], n)
	} else {
		reluGradY(&dx[0], &dy[0], &y[0], n)
	}
	return n
}

func (t *isa) reluCapGradVec(dx, dy, y []float32, limit float32) int {
	n := len(y) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if t.tier == cpu.AVX512VNNI {
		reluCapGradZ(&dx[0], &dy[0], &y[0], n, limit)
	} else {
		reluCapGradY(&dx[0], &dy[0], &y[0], n, limit)
	}
	return n
}

func (t *isa) maskGradVec(dx, dy []float32, mask []uint8) int {
	n := len(dy) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if t.tier == cpu.AVX512VNNI {
		maskGradZ(&dx[0], &dy[0], &mask[0], n)
	} else {
		maskGradY(&dx[0], &dy[0], &mask[0], n)
	}
	return n
}

func (t *isa) maskReLUGradVec(dx, dy, y []float32, mask []uint8) int {
	n := len(dy) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if t.tier == cpu.AVX512VNNI {
		maskReLUGradZ(&dx[0], &dy[0], &y[0], &mask[0], n)
	} else {
		maskReLUGradY(&dx[0], &dy[0], &y[0], &mask[0], n)
	}
	return n
}

func (t *isa) addMaskedVec(dst, a, dy []float32, mask []uint8) int {
	n := len(dy) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if t.tier == cpu.AVX512VNNI {
		addMaskedZ(&dst[0], &a[0], &dy[0], &mask[0], n)
	} else {
		addMaskedY(&dst[0], &a[0], &dy[0], &mask[0], n)
	}
	return n
}

func (t *isa) adamVec(p, g, m, v []float32, f *adamFactors) int {
	n := len(p) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if t.tier == cpu.AVX512VNNI {
		adamZ(&p[0], &g[0], &m[0], &v[0], &f.b1, n)
	} else {
		adamY(&p[0], &g[0], &m[0], &v[0], &f.b1, n)
	}
	return n
}

// normalizeVec takes the factors gamma*invStd as a.
func (t *isa) normalizeVec(y, x, mean, a, beta []float32) int {
	n := len(x) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	var meanBuf, aBuf, betaBuf [stretchLen]float32
	ms, as, bs := stretch(&meanBuf, mean), stretch(&aBuf, a), stretch(&betaBuf, beta)
	if ms == nil {
		return 0
	}
	if t.tier == cpu.AVX512VNNI {
		normalizeZ(&y[0], &x[0], &ms[0], &as[0], &bs[0], n, len(ms))
	} else {
		normalizeY(&y[0], &x[0], &ms[0], &as[0], &bs[0], n, len(ms))
	}
	return n
}

// absMaxS8Vec does the leading codes and returns how many; it needs AVX2, as the
// tiles that ask for it do.
func absMaxS8Vec(w []int8) (top, done int) {
	const unit = 32
	if done = len(w) &^ (unit - 1); done == 0 {
		return 0, 0
	}
	var tops [unit]uint8
	absMaxS8Y(&tops[0], &w[0], done)
	for _, v := range tops {
		top = max(top, int(v))
	}
	return top, done
}

// widenCodesVec needs AVX2, as the tiles that read widened codes do.
func widenCodesVec(dst []int16, src []uint8) bool {
	if len(dst) > 0 {
		widenCodesY(&dst[0], &src[0], len(dst))
	}
	return true
}

// transposeVec transposes the leading multiples of eight rows and columns and
// returns how many those were.
func (t *isa) transposeVec(dst []float32, ldd int, src []float32, lds, rows, cols int) (r, c int) {
	r, c = rows&^7, cols&^7
	if t.tier == cpu.Generic || r == 0 || c == 0 {
		return 0, 0
	}
	for i := 0; i < r; i += 8 {
		transpose8(&dst[i], &src[i*lds], 4*ldd, 4*lds, c/8)
	}
	return r, c
}

// absMaxVec raises dst by leading elements of x, whole rows, and reports
// whether they hold a NaN. Where rows are no whole number of registers it reads
// several as one; where that would be too long, their ends apart.
func (t *isa) absMaxVec(dst, x []float32, channels int) (done int, nan bool) {
	if t.tier == cpu.Generic || len(x) == 0 {
		return 0, false
	}
	if channels%vecLanes == 0 {
		return len(x), t.absMaxRows(dst, x, channels)
	}
	var tops [stretchLen]float32
	period := len(stretch(&tops, dst)) // dst has zeros
	switch {
	case period == 0:
		nan = t.absMaxRows(dst, x, channels)
		return len(x), absMaxEnds(dst, x, channels, channels&^(vecLanes-1)) || nan
	case len(x) < period:
		return 0, false
	}
	done = len(x) / period * period
	nan = t.absMaxRows(tops[:period], x[:done], period)
	for i, v := range tops[:period] {
		dst[i%channels] = max(dst[i%channels], v)
	}
	return done, nan
}

// absMaxRows raises the columns of dst that fill registers, all of them where
// channels is a multiple of vecLanes.
func (t *isa) absMaxRows(dst, x []float32, channels int) (nan bool) {
	r := len(x) / channels
	block := max(16, 4096/channels) // rows that stay in the first-level cache while their columns are done
	for r0 := 0; r0 < r; r0 += block {
		n := min(block, r-r0)
		for c := 0; c+vecLanes <= channels; c += vecLanes {
			if t.tier == cpu.AVX512VNNI {
				nan = absMaxColumnsZ(&dst[c], &x[r0*channels+c], n, 4*channels) != 0 || nan
			} else {
				nan = absMaxColumnsY(&dst[c], &x[r0*channels+c], n, 4*channels) != 0 || nan
			}
		}
	}
	return nan
}

// absMaxEnds raises the columns of dst from column first on.
func absMaxEnds(dst, x []float32, channels, first int) (nan bool) {
	for ; len(x) > 0; x = x[channels:] {
		for c, v := range x[first:channels] {
			if v < 0 {
				v = -v
			}
			if v > dst[first+c] {
				dst[first+c] = v
			}
			nan = nan || v != v
		}
	}
	return nan
}

// minMaxVec widens lo and hi by leading elements, NaN left out.
func (t *isa) minMaxVec(x []float32, lo, hi *float32) (n int, nan bool) {
	n = len(x) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0, false
	}
	var stats [2 * vecLanes]float32
	fill(stats[:vecLanes], *lo)
	fill(stats[vecLanes:], *hi)
	if t.tier == cpu.AVX512VNNI {
		nan = minMaxZ(&stats[0], &x[0], n) != 0
	} else {
		nan = minMaxY(&stats[0], &x[0], n) != 0
	}
	for i := range vecLanes {
		*lo, *hi = min(*lo, stats[i]), max(*hi, stats[vecLanes+i])
	}
	return n, nan
}

// rowsTogether is how many rows a sum over them takes before it goes on to the
// next columns: as many blocks as stay in the first-level cache.
func rowsTogether(channels int) int {
	const cache = 16 << 10 / 4 // elements
	return max(1, cache/channels/columnBlock) * columnBlock
}

// columnVec adds all rows of the leading channels to dst.
func (t *isa) columnVec(dst []float64, term columnTerm, a *columnArgs, rows, channels int) (done int) {
	done = channels &^ (vecLanes - 1)
	if t.tier == cpu.Generic || rows == 0 || done == 0 {
		return 0
	}
	wide, stride, step := t.tier == cpu.AVX512VNNI, 4*channels, rowsTogether(channels)
	for r := 0; r < rows; r += step {
		n := min(step, rows-r)
		for c := 0; c < done; c += vecLanes {
			at := r*channels + c
			switch {
			case term == termScaleGrad:
				t.scaleGradBlocks(dst[c:], a, at, c, n, stride)
			case term == termSum && wide:
				columnSumZ(&dst[c], &a.x[at], nil, n, stride)
			case term == termSum:
				columnSumY(&dst[c], &a.x[at], nil, n, stride)
			case wide:
				columnSquaredDeviationZ(&dst[c], &a.x[at], &a.mean[c], n, stride)
			default:
				columnSquaredDeviationY(&dst[c], &a.x[at], &a.mean[c], n, stride)
			}
		}
	}
	return done
}

// scaleGradBlocks adds n rows of sixteen columns from element at on, of channel
// c on.
func (t *isa) scaleGradBlocks(dst []float64, a *columnArgs, at, c, n, stride int) {
	for ; n > 0; n -= columnBlock {
		var lane [vecLanes]float32
		if t.tier == cpu.AVX512VNNI {
			scaleGradColumnsZ(&lane[0], &a.dy[at], &a.x[at], &a.scale[c], min(n, columnBlock), stride, a.lo, a.hi)
		} else {
			scaleGradColumnsY(&lane[0], &a.dy[at], &a.x[at], &a.scale[c], min(n, columnBlock), stride, a.lo, a.hi)
		}
		for i, v := range lane {
			dst[i] += float64(v)
		}
		at += columnBlock * stride / 4
	}
}

func (t *isa) sumSquaresVec(lane *[16]float32, x []float32) int {
	n := len(x) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if t.tier == cpu.AVX512VNNI {
		sumSquaresZ(&lane[0], &x[0], n)
	} else {
		sumSquaresY(&lane[0], &x[0], n)
	}
	return n
}

func (t *isa) addVec(dst, a, b []float32) int {
	n := len(a) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if t.tier == cpu.AVX512VNNI {
		addZ(&dst[0], &a[0], &b[0], n)
	} else {
		addY(&dst[0], &a[0], &b[0], n)
	}
	return n
}

func (t *isa) addReLUVec(y []float32, mask []uint8, a, b []float32) int {
	n := len(a) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if t.tier == cpu.AVX512VNNI {
		addReLUZ(&y[0], &mask[0], &a[0], &b[0], n)
	} else {
		addReLUY(&y[0], &mask[0], &a[0], &b[0], n)
	}
	return n
}

func (t *isa) scaleVec(dst, x []float32, f float32) int {
	n := len(x) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if t.tier == cpu.AVX512VNNI {
		scaleZ(&dst[0], &x[0], n, f)
	} else {
		scaleY(&dst[0], &x[0], n, f)
	}
	return n
}

// poolVecF32 and poolVecU8 do the leading channels of one pooling window.
func (t *isa) poolVecF32(y []float32, arg []uint8, x []float32, w window) int {
	n := len(y) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	var sink [vecLanes]uint8
	a, step := &sink[0], 0
	if arg != nil {
		a, step = &arg[0], vecLanes
	}
	if t.tier == cpu.AVX512VNNI {
		maxCellsF32Z(&y[0], a, &x[0], n, w.rows, w.cols, 4*w.rowStep, 4*len(y), w.first, w.width, step)
	} else {
		maxCellsF32Y(&y[0], a, &x[0], n, w.rows, w.cols, 4*w.rowStep, 4*len(y), w.first, w.width, step)
	}
	return n
}

func (t *isa) poolVecU8(y, arg, x []uint8, w window) int {
	n := len(y) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	var sink [vecLanes]uint8
	a, step := &sink[0], 0
	if arg != nil {
		a, step = &arg[0], vecLanes
	}
	maxCellsU8(&y[0], a, &x[0], n, w.rows, w.cols, w.rowStep, len(y), w.first, w.width, step)
	return n
}
