package eval

import "math"

// exp is e^v in float64 from basic operations only, so that every CPU gives the same bits (math.Exp does not promise
// that): v = k ln 2 + r, |r| <= ln(2)/2, and the Taylor series of e^r to r^13 (relative error below 1e-16).
func exp(v float64) float64 {
	switch {
	case v != v:
		return v
	case v > 709.7:
		return math.Inf(1)
	case v < -745:
		return 0
	}
	const ln2hi, ln2lo = 6.93147180369123816490e-01, 1.90821492927058770002e-10 // ln 2 in two parts, the first exact times k
	k := math.RoundToEven(v / math.Ln2)
	r := v - float64(k*ln2hi) - float64(k*ln2lo)
	sum := 1.0
	for n := 13; n > 0; n-- {
		sum = 1 + float64(r*sum)/float64(n)
	}
	return math.Ldexp(sum, int(k))
}

func sigmoid(v float64) float64 {
	if v >= 0 {
		return 1 / (1 + exp(-v))
	}
	e := exp(v)
	return e / (1 + e)
}

// tanh is (1 - e) / (1 + e) with e = exp(-2|v|); below 1e-4 the series is closer.
func tanh(v float64) float64 {
	a := math.Abs(v)
	var t float64
	if a < 1e-4 {
		t = a - float64(float64(a*a)*a)/3
	} else {
		e := exp(-2 * a)
		t = (1 - e) / (1 + e)
	}
	return math.Copysign(t, v)
}
