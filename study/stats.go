package study

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// summary is the mean of a few numbers with its spread. Std and Half are nil for fewer than two numbers.
type summary struct {
	Mean float64
	Std  *float64 // with n-1
	Half *float64 // half the width of the 95 % interval of the mean
}

func summarize(x []float64) summary {
	s := summary{Mean: stat.Mean(x, nil)}
	n := float64(len(x))
	if n < 2 {
		return s
	}
	std := stat.StdDev(x, nil)
	half := studentQuantile(n-1) * std / math.Sqrt(n)
	s.Std, s.Half = &std, &half
	return s
}

// studentQuantile is the 97.5 % point of Student's t distribution.
func studentQuantile(df float64) float64 {
	return distuv.StudentsT{Mu: 0, Sigma: 1, Nu: df}.Quantile(0.975)
}

// differences is a[i]-b[i].
func differences(a, b []float64) []float64 {
	d := make([]float64, len(a))
	for i := range a {
		d[i] = a[i] - b[i]
	}
	return d
}

// finding says what a few paired differences show.
type finding int

const (
	unknown     finding = iota // one seed: no spread
	better                     // the 95 % interval lies above 0
	worse                      // it lies below 0
	leansBetter                // it holds 0, yet every seed gains and the mean is large: likely, not proven
	leansWorse                 // the same downwards
	close                      // it holds 0 and is narrow: if there is a difference, it is small
	open                       // it holds 0 and is wide: the seeds do not settle it
)

const (
	// smallPoints is the difference, in percentage points, below which a real difference is called small.
	smallPoints = 0.1
	// largePoints is the difference that a user would act on: the mean that makes a lean worth saying, and the widest
	// half interval for which no difference is a result and not a lack of data.
	largePoints = 0.5
)

// judged is what differences, one for each seed, show, with their summary.
func judged(d []float64) (finding, summary) {
	s := summarize(d)
	switch {
	case s.Half == nil:
		return unknown, s
	case s.Mean > *s.Half:
		return better, s
	case s.Mean < -*s.Half:
		return worse, s
	case s.Mean >= largePoints && slices.Min(d) > 0:
		return leansBetter, s
	case s.Mean <= -largePoints && slices.Max(d) < 0:
		return leansWorse, s
	case *s.Half <= largePoints:
		return close, s
	default:
		return open, s
	}
}
