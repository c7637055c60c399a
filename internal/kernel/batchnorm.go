package kernel

import "math"

// Batch norm over the last axis (arXiv:1502.03167), N rows:
//
//	mean[c] = 1/N sum x        var[c] = 1/N sum (x-mean)^2
//	y = (x-mean)*a + beta      a = gamma*invStd, invStd = 1/sqrt(var+eps)
//
// Training runs in passes so that shards can be joined between them: Moments of
// each shard, joined in order; Normalize. The backward pass is
// NormalizeGradSums, Combine, NormalizeGrad.

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

// NormalizeGradSums writes one shard's parts of dgamma[c] = sum dy*xhat and
// dbeta[c] = sum dy, where xhat = (x-mean)*invStd.
func NormalizeGradSums(dgamma, dbeta []float64, dy, x, mean, invStd []float32, channels int) {
	dy = dy[:len(x)]
	active.columnSums(dbeta, termSum, &columnArgs{x: dy}, channels)
	active.columnSums(dgamma, termProduct, &columnArgs{x: x, mean: mean[:channels], dy: dy, inv: invStd[:channels]}, channels)
}

// AddNormalizeGradSums is NormalizeGradSums added to dgamma and dbeta: a
// shard's parts, example by example.
func AddNormalizeGradSums(dgamma, dbeta []float64, dy, x, mean, invStd []float32, channels int) {
	dy = dy[:len(x)]
	active.addColumnSums(dbeta[:channels], termSum, &columnArgs{x: dy}, channels)
	active.addColumnSums(dgamma[:channels], termProduct, &columnArgs{x: x, mean: mean[:channels], dy: dy, inv: invStd[:channels]}, channels)
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
//	dx = gamma*invStd * (dy - dbeta/n - xhat*dgamma/n)
//
// dgamma and dbeta are the combined sums. dx may be dy.
func NormalizeGrad(dx, dy, x, mean, invStd, gamma []float32, dgamma, dbeta []float64, n, channels int) {
	active.normalizeGrad(dx, dy, x, mean, invStd, gamma, dgamma, dbeta, n, channels)
}

func (t *isa) normalizeGrad(dx, dy, x, mean, invStd, gamma []float32, dgamma, dbeta []float64, n, channels int) {
	rows(len(x), channels)
	dx, dy = dx[:len(x)], dy[:len(x)]
	mean, invStd, gamma = mean[:channels], invStd[:channels], gamma[:channels]
	dgamma, dbeta = dgamma[:channels], dbeta[:channels]
	factors := func(c int) (a, b, k float32) { return gradFactors(c, invStd, gamma, dgamma, dbeta, n) }
	done := 0
	if channels <= stretchLen {
		var a, b, k [stretchLen]float32
		for c := range channels {
			a[c], b[c], k[c] = factors(c)
		}
		done = t.normalizeGradVec(dx, dy, x, mean, a[:channels], b[:channels], k[:channels])
	}
	for i, c := done, done%channels; i < len(x); i++ {
		a, b, k := factors(c)
		d := dy[i] - b - float32((x[i]-mean[c])*k)
		dx[i] = d * a
		if c++; c == channels {
			c = 0
		}
	}
}
