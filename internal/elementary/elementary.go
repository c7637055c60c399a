package elementary

import "math"

// ln2Hi has its low 21 bits zero, so that k*ln2Hi is exact for any exponent k
// (Cody and Waite's reduction); ln2Lo is the rest of ln 2.
const (
	ln2Hi = 6.93147180369123816490e-01
	ln2Lo = 1.90821492927058770002e-10
)

// expTaylor holds 1/i! for exp(r)-1 = r + r^2/2! + ..., enough for |r| <= ln2/2.
var expTaylor = [...]float64{
	1, 1. / 2, 1. / 6, 1. / 24, 1. / 120, 1. / 720, 1. / 5040, 1. / 40320, 1. / 362880,
	1. / 3628800, 1. / 39916800, 1. / 479001600, 1. / 6227020800,
}

// Exp returns e**x.
func Exp(x float64) float64 {
	switch {
	case x != x:
		return x
	case x > 709.782712893384:
		return math.Inf(1)
	case x < -745.1332191019412:
		return 0
	}
	k := math.Floor(float64(x*math.Log2E) + 0.5)
	r := x - float64(k*ln2Hi)
	r -= float64(k * ln2Lo)
	return ldexp(1+expm1Taylor(r), int(k))
}

// ldexp is math.Ldexp of a normal v, in one multiplication where the result is normal, too.
func ldexp(v float64, k int) float64 {
	if k < -1000 || k > 1000 {
		return math.Ldexp(v, k)
	}
	return v * math.Float64frombits(uint64(k+1023)<<52) // a power of two: exact
}

// expm1Taylor returns e**r - 1 for |r| <= 0.35.
func expm1Taylor(r float64) float64 {
	p := expTaylor[len(expTaylor)-1]
	for i := len(expTaylor) - 2; i >= 0; i-- {
		p = float64(p*r) + expTaylor[i]
	}
	return float64(p * r)
}

// Log returns the natural logarithm of x.
func Log(x float64) float64 {
	switch {
	case x != x || math.IsInf(x, 1):
		return x
	case x < 0:
		return math.NaN()
	case x == 0:
		return math.Inf(-1)
	}
	f, e := math.Frexp(x) // f in [1/2, 1)
	if f < math.Sqrt2/2 {
		f *= 2
		e--
	}
	// log f = 2 atanh(s), |s| <= 0.1716
	s := (f - 1) / (f + 1)
	s2 := s * s
	p := 1. / 23
	for i := 21.; i >= 3; i -= 2 {
		p = float64(p*s2) + 1/i
	}
	tail := float64(2 * s * float64(p*s2)) // 2*s is exact
	k := float64(e)
	return float64(k*ln2Hi) + (float64(2*s) + (tail + float64(k*ln2Lo)))
}

// Sigmoid returns 1/(1+e**-x).
func Sigmoid(x float64) float64 {
	if x < 0 {
		e := Exp(x)
		return e / (1 + e)
	}
	return 1 / (1 + Exp(-x))
}

// Tanh returns the hyperbolic tangent of x.
func Tanh(x float64) float64 {
	a := math.Abs(x)
	var y float64
	switch {
	case a < 0.17:
		e := expm1Taylor(2 * a)
		y = e / (e + 2)
	case a > 20:
		y = 1
	default: // a NaN comes here
		y = 1 - 2/(Exp(2*a)+1)
	}
	return math.Copysign(y, x)
}

// Softplus returns log(1+e**x).
func Softplus(x float64) float64 {
	// max(x,0) + log(1+e**-|x|) neither overflows nor cancels
	return math.Max(x, 0) + Log(1+Exp(-math.Abs(x)))
}

// Erf returns the error function of x.
func Erf(x float64) float64 {
	a := math.Abs(x)
	var y float64
	switch {
	case a < 3:
		// 2/sqrt(pi) e**-a^2 sum_n 2^n a^(2n+1) / (1*3*...*(2n+1)): no cancellation
		term, sum := a, a
		for n := 1.; n < 60; n++ {
			term = term * float64(2*float64(a*a)) / float64(2*n+1)
			sum += term
		}
		y = float64(2/math.Sqrt(math.Pi)*Exp(-float64(a*a))) * sum
	case a > 6:
		y = 1
	default: // erfc as a continued fraction; a NaN comes here
		f := a
		for n := 60.; n >= 1; n-- {
			f = a + float64(n/2)/f
		}
		y = 1 - Exp(-float64(a*a))/float64(math.Sqrt(math.Pi)*f)
	}
	return math.Copysign(y, x)
}
