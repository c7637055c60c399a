package kernel

import (
	"errors"
	"fmt"
	"math"

	"github.com/narrow-ml/narrow/internal/elementary"
)

// Reduction says how the losses of rows become one number, and scales the
// gradient alike.
type Reduction uint8

const (
	// Mean divides by the number of rows (cross-entropy: by the sum of the
	// class weights of the rows that count).
	Mean Reduction = iota
	// Sum adds.
	Sum
)

// IgnoreLabel marks a row that takes no part in the loss.
const IgnoreLabel = -1

// CrossEntropy configures SoftmaxCrossEntropy. The zero value is the plain
// mean.
type CrossEntropy struct {
	Smoothing float64   // e in [0,1): the target is (1-e)*onehot + e/classes
	Weights   []float32 // weight of each class; nil means 1
	Reduction Reduction
}

// ErrLabel reports a label outside [0, classes) other than IgnoreLabel.
var ErrLabel = errors.New("label out of range")

// SoftmaxCrossEntropy returns the loss of logits x [rows,classes] against one
// label per row and writes its gradient, x and grad being float32 and all
// arithmetic between float64 with this package's own exp and log:
//
//	p = softmax(x), loss[r] = w[y]*(1-e)*-log p[y] + e/classes * sum_c w[c]*-log p[c]
//
// rowLoss, which may be nil, receives the loss of every row before reduction;
// grad may be nil and may be x. Rows labelled IgnoreLabel have loss and
// gradient zero. The mean over no rows at all is zero.
func SoftmaxCrossEntropy(grad, rowLoss, x []float32, labels []int32, classes int, opt CrossEntropy) (float64, error) {
	if classes <= 0 || len(x) != len(labels)*classes {
		return 0, fmt.Errorf("cross-entropy: %d logits for %d labels of %d classes", len(x), len(labels), classes)
	}
	if grad != nil && len(grad) < len(x) || rowLoss != nil && len(rowLoss) < len(labels) ||
		opt.Weights != nil && len(opt.Weights) != classes {
		return 0, fmt.Errorf("cross-entropy: gradient %d, row losses %d, class weights %d do not fit %d rows of %d classes",
			len(grad), len(rowLoss), len(opt.Weights), len(labels), classes)
	}
	if !(opt.Smoothing >= 0 && opt.Smoothing < 1) {
		return 0, fmt.Errorf("cross-entropy: label smoothing %v is not in [0,1)", opt.Smoothing)
	}
	weight := func(c int32) float64 {
		if opt.Weights == nil {
			return 1
		}
		return float64(opt.Weights[c])
	}
	norm := 0.0
	for r, y := range labels {
		switch {
		case y == IgnoreLabel:
		case y < 0 || int(y) >= classes:
			return 0, fmt.Errorf("cross-entropy: row %d: label %d of %d classes: %w", r, y, classes, ErrLabel)
		default:
			norm += weight(y)
		}
	}
	scale := 1.0
	if opt.Reduction == Mean && norm != 0 {
		scale = 1 / norm
	}
	allWeights := 0.0
	for c := range classes {
		allWeights += weight(int32(c))
	}
	share := opt.Smoothing / float64(classes)
	var exps [64]float64 // of a row's first classes
	total := 0.0
	for r, y := range labels {
		row := x[r*classes:][:classes]
		var out []float32
		if grad != nil {
			out = grad[r*classes:][:classes]
		}
		if y == IgnoreLabel {
			clear(out)
			if rowLoss != nil {
				rowLoss[r] = 0
			}
			continue
		}
		top, sum := sumExp(exps[:min(classes, len(exps))], row, 1)
		logSum := elementary.Log(sum)
		hit := float64((1 - opt.Smoothing) * weight(y))
		loss := float64(hit * (logSum - (float64(row[y]) - top)))
		if share > 0 {
			var lane [16]float64
			for c, v := range row {
				lane[c%16] += float64(weight(int32(c)) * (logSum - (float64(v) - top)))
			}
			loss += float64(share * tree16(&lane))
		}
		if rowLoss != nil {
			rowLoss[r] = float32(loss)
		}
		total += loss
		mass := hit + float64(share*allWeights)
		for c := range out {
			g := float64(mass * (expOf(exps[:], c, row[c], top) / sum))
			g -= float64(share * weight(int32(c)))
			if c == int(y) {
				g -= hit
			}
			out[c] = float32(g * scale)
		}
	}
	return total * scale, nil
}

// logSumExp returns the maximum of f*x and log sum exp(f*x - maximum).
func logSumExp(x []float32, f float64) (top, logSum float64) {
	top, sum := sumExp(nil, x, f)
	return top, elementary.Log(sum)
}

// sumExp returns the maximum of f*x and sum exp(f*x - maximum), over 16 lanes,
// and keeps as many of the terms as exps holds.
func sumExp(exps []float64, x []float32, f float64) (top, sum float64) {
	top = math.Inf(-1)
	for _, v := range x {
		if t := float64(v) * f; t > top || t != t {
			top = t
		}
	}
	var lane [16]float64
	for i, v := range x {
		e := elementary.Exp(float64(float64(v)*f) - top)
		if i < len(exps) {
			exps[i] = e
		}
		lane[i%16] += e
	}
	return top, tree16(&lane)
}

// expOf is exp(v - top), kept or made again.
func expOf(exps []float64, c int, v float32, top float64) float64 {
	if c < len(exps) {
		return exps[c]
	}
	return elementary.Exp(float64(v) - top)
}

// Softmax writes the softmax of every row of x. y may be x.
func Softmax(y, x []float32, classes int) {
	y = y[:len(x)]
	for r := range rows(len(x), classes) {
		row, out := x[r*classes:][:classes], y[r*classes:][:classes]
		top, logSum := logSumExp(row, 1)
		for c, v := range row {
			out[c] = float32(elementary.Exp(float64(v) - top - logSum))
		}
	}
}
