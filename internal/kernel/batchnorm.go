package kernel

import "math"

// Batch norm over the last axis (arXiv:1502.03167), N rows:
//
//	mean[c] = 1/N sum x        var[c] = 1/N sum (x-mean)^2
//	y = (x-mean)*a + beta      a = gamma*invStd, invStd = 1/sqrt(var+eps)
//
// Training runs in passes so that shards can be joined between them: Moments of
// each shard, joined in order; Normalize. The backward pass is
// AddNormalizeGradSums, Combine, NormalizeGrad.

// SumSquaredDeviations writes dst[c] = sum of (x[r,c]-mean[c])^2, one shard's
// part.
func SumSquaredDeviations(dst []float64, x, mean []float32, channels int) {
	active.columnSums(dst, termSquare, &columnArgs{x: x, mean: mean[:channels]}, channels)
}

// InvStd writes 1/sqrt(variance+eps), for batch norm with running statistics.
func InvStd(invStd, variance []float32, eps float64) {
	invStd = invStd[:len(variance)]
	for c, v := range variance {
		invStd[c] = float32(1 / math.Sqrt(float64(v)+eps))
	}
}

// UpdateRunning moves running statistics by momentum towards the batch's:
// r += momentum*(batch-r). The variance is the unbiased one, times n/(n-1).
func UpdateRunning(runMean, runVar, mean, variance []float32, n int, momentum float64) {
	runMean, runVar, variance = runMean[:len(mean)], runVar[:len(mean)], variance[:len(mean)]
	unbias := 1.0
	if n > 1 {
		unbias = float64(n) / float64(n-1)
	}
	for c := range mean {
		m, v := float64(runMean[c]), float64(runVar[c])
		runMean[c] = float32(m + float64(momentum*(float64(mean[c])-m)))
		runVar[c] = float32(v + float64(momentum*(float64(float64(variance[c])*unbias)-v)))
	}
}

// Normalize writes y = (x-mean[c])*(gamma[c]*invStd[c]) + beta[c]. y may be x.
func Normalize(y, x, mean, invStd, gamma, beta []float32, channels int) {
	active.normalize(y, x, mean, invStd, gamma, beta, channels)
}

func (t *isa) normalize(y, x, mean, invStd, gamma, beta []float32, channels int) {
	rows(len(x), channels)
	y = y[:len(x)]
	mean, invStd, gamma, beta = mean[:channels], invStd[:channels], gamma[:channels], beta[:channels]
	done := 0
	if channels <= stretchLen {
		var a [stretchLen]float32
		for c, v := range gamma {
			a[c] = v * invStd[c]
		}
		done = t.normalizeVec(y, x, mean, a[:channels], beta)
	}
	for i, c := done, done%channels; i < len(x); i++ {
		y[i] = float32((x[i]-mean[c])*float32(gamma[c]*invStd[c])) + beta[c]
		if c++; c == channels {
			c = 0
		}
	}
}

// AddNormalizeGradSums adds a part of dgamma[c] = sum d*xhat and dbeta[c] = sum
// d, where xhat = (x-mean)*invStd and d is dy where the mask bit is set, else 0:
// a shard's parts, example by example. A nil mask has all bits set.
func AddNormalizeGradSums(dgamma, dbeta []float64, dy []float32, mask []uint8, x, mean, invStd []float32, channels int) {
	active.normSums(dgamma, dbeta, dy, mask, x, mean, invStd, channels)
}

func (t *isa) normSums(dgamma, dbeta []float64, dy []float32, mask []uint8, x, mean, invStd []float32, channels int) {
	r := rows(len(x), channels)
	dy, mask = dy[:len(x)], maskFor(mask, len(x))
	dgamma, dbeta, mean, invStd = dgamma[:channels], dbeta[:channels], mean[:channels], invStd[:channels]
	done := t.normSumsVec(dgamma, dbeta, dy, mask, x, mean, invStd, r, channels)
	for r0 := 0; r0 < r && done < channels; r0 += columnBlock {
		for c := done; c < channels; c++ {
			var sum, product float32
			for i := r0*channels + c; i < min(r0+columnBlock, r)*channels; i += channels {
				d := passed(dy, mask, i)
				sum += d
				product += float32(d * float32((x[i]-mean[c])*invStd[c]))
			}
			dbeta[c] += float64(sum)
			dgamma[c] += float64(product)
		}
	}
}

// passed is element i of a gradient behind its mask.
func passed(dy []float32, mask []uint8, i int) float32 {
	if mask != nil && mask[i>>3]>>(i&7)&1 == 0 {
		return 0
	}
	return dy[i]
}

// Moments are the number of rows of x, their mean and their sum of squared
// deviations from it, per channel, gathered group by group of rows: within a
// group the mean comes first, then the deviations; groups join by the formula
// of Chan, Golub and LeVeque (1983), in float64. The zero value has no rows.
type Moments struct {
	n        float64
	mean, m2 []float64
	sum, dev []float64
	pivot    []float32
}

// Reset forgets all rows.
func (m *Moments) Reset(channels int) {
	m.n = 0
	clear(grow(&m.mean, channels))
	clear(grow(&m.m2, channels))
	grow(&m.sum, channels)
	grow(&m.dev, channels)
	grow(&m.pivot, channels)
}

// Add adds a group of rows.
func (m *Moments) Add(x []float32) {
	channels := len(m.mean)
	n := float64(rows(len(x), channels))
	if n == 0 {
		return
	}
	SumColumns(m.sum, x, channels)
	for c, v := range m.sum {
		m.pivot[c] = float32(v / n)
	}
	SumSquaredDeviations(m.dev, x, m.pivot, channels)
	for c, v := range m.sum {
		v /= n
		d := v - float64(m.pivot[c]) // the pivot is the mean rounded
		m.sum[c], m.dev[c] = v, max(0, m.dev[c]-float64(n*float64(d*d)))
	}
	m.join(n, m.sum, m.dev)
}

// Join adds the rows of o.
func (m *Moments) Join(o *Moments) { m.join(o.n, o.mean, o.m2) }

func (m *Moments) join(n float64, mean, m2 []float64) {
	if n == 0 {
		return
	}
	total := m.n + n
	share, weight := n/total, m.n*n/total
	for c, v := range mean {
		d := v - m.mean[c]
		m.mean[c] += float64(d * share)
		m.m2[c] = m.m2[c] + m2[c] + float64(float64(d*d)*weight)
	}
	m.n = total
}

// Stats writes the mean, the biased variance and 1/sqrt(variance+eps).
func (m *Moments) Stats(mean, variance, invStd []float32, eps float64) {
	for c, v := range m.mean {
		mean[c] = float32(v)
		v = m.m2[c] / m.n
		variance[c] = float32(v)
		invStd[c] = float32(1 / math.Sqrt(v+eps))
	}
}

// NormalizeGrad writes the gradient of x when mean and variance are the
// batch's, n rows in all shards together:
//
//	dx = gamma*invStd * (d - dbeta/n - xhat*dgamma/n)
//
// d being dy where the mask bit is set, else 0; a nil mask has all bits set.
// p is that of SetGrad, from the combined sums. dx may be dy.
func NormalizeGrad(dx, dy []float32, mask []uint8, x []float32, p *NormParams) {
	active.normalizeGrad(dx, dy, mask, x, p)
}

func (t *isa) normalizeGrad(dx, dy []float32, mask []uint8, x []float32, p *NormParams) {
	rows(len(x), p.channels)
	dx, dy, mask = dx[:len(x)], dy[:len(x)], maskFor(mask, len(x))
	done := t.normGradVec(dx, dy, mask, x, p)
	for i, c := done, done%p.channels; i < len(x); i++ {
		d := passed(dy, mask, i) - p.rows[p.at(c, 2)] - float32((x[i]-p.rows[p.at(c, 0)])*p.rows[p.at(c, 3)])
		dx[i] = d * p.rows[p.at(c, 1)]
		if c++; c == p.channels {
			c = 0
		}
	}
}
