package eval

import "fmt"

// number is what products are computed in: codes, or reals.
type number interface{ int64 | float64 }

// accumulate adds x[k]*w[k*stride+j] over k to acc[j]. Four rows go in one pass; a pass of zeros is skipped, which for
// reals assumes finite weights (checked where reals are multiplied). The conversions keep a compiler from fusing.
func accumulate[T number](acc, x, w []T, stride int) {
	n := len(acc)
	k := 0
	for ; k+4 <= len(x); k += 4 {
		x0, x1, x2, x3 := x[k], x[k+1], x[k+2], x[k+3]
		if x0 == 0 && x1 == 0 && x2 == 0 && x3 == 0 {
			continue
		}
		w0 := w[k*stride:][:n]
		w1 := w[(k+1)*stride:][:n]
		w2 := w[(k+2)*stride:][:n]
		w3 := w[(k+3)*stride:][:n]
		for j := range acc {
			acc[j] += T(x0*w0[j]) + T(x1*w1[j]) + T(x2*w2[j]) + T(x3*w3[j])
		}
	}
	for ; k < len(x); k++ {
		if v := x[k]; v != 0 {
			row := w[k*stride:][:n]
			for j := range acc {
				acc[j] += T(v * row[j])
			}
		}
	}
}

// convolution is a 2-D convolution in channels-last order: x [N,H,W,C], w [KH,KW,C/groups,M], result [N,OH,OW,M].
type convolution struct {
	n, c, m, groups int
	win             *window
}

// newConvolution checks the shapes of x [N,C,(H,)W] and w [M,C/groups,(KH,)KW]; one spatial axis is taken as a height
// of 1.
func newConvolution(c *call, x, w []int) (*convolution, error) {
	if len(x) != len(w) || len(x) < 3 {
		return nil, fmt.Errorf("%w: input %v and weight %v", ErrModel, x, w)
	}
	if len(x) > 4 {
		return nil, fmt.Errorf("%w: a convolution over %d spatial axes", ErrUnsupported, len(x)-2)
	}
	cv := &convolution{n: x[0], c: x[1], m: w[0], groups: int(c.int("group", 1))}
	if cv.groups < 1 || cv.c%cv.groups != 0 || cv.m%cv.groups != 0 || w[1]*cv.groups != cv.c {
		return nil, fmt.Errorf("%w: input %v, weight %v, %d groups", ErrModel, x, w, cv.groups)
	}
	win, err := newWindow(c, x[2:], w[2:])
	if err != nil {
		return nil, err
	}
	if len(win.in) == 1 {
		lift := func(v []int, def int) []int { return []int{def, v[0]} }
		win = &window{in: lift(win.in, 1), out: lift(win.out, 1), kernel: lift(win.kernel, 1), stride: lift(win.stride, 1),
			dilation: lift(win.dilation, 1), padBegin: lift(win.padBegin, 0), padEnd: lift(win.padEnd, 0)}
	}
	cv.win = win
	return cv, nil
}

// weights brings [M, C/groups, taps] into [taps, C/groups, M].
func convWeights[T number](cv *convolution, w []T) []T {
	per, taps := cv.c/cv.groups, cv.win.kernel[0]*cv.win.kernel[1]
	out := make([]T, len(w))
	i := 0
	for m := range cv.m {
		for k := range per {
			for tap := range taps {
				out[(tap*per+k)*cv.m+m] = w[i]
				i++
			}
		}
	}
	return out
}

// convolve computes the sums with bias (nil or [M]) for x in N, C, H, W; the result is in N, M, OH, OW.
func convolve[T number](cv *convolution, x, w, bias []T) []T {
	win := cv.win
	h, wd, oh, ow := win.in[0], win.in[1], win.out[0], win.out[1]
	per, perOut := cv.c/cv.groups, cv.m/cv.groups
	rows := convWeights(cv, w)
	depthwise := per == 1 && perOut == 1
	dst := make([]T, cv.n*cv.m*oh*ow)
	parallel(cv.n, func(n int) {
		img := make([]T, cv.c*h*wd) // this image, channels last
		for c := range cv.c {
			for p, v := range x[(n*cv.c+c)*h*wd:][:h*wd] {
				img[p*cv.c+c] = v
			}
		}
		acc := make([]T, cv.m)
		for y := range oh {
			for xo := range ow {
				clear(acc)
				copy(acc, bias)
				for kh := range win.kernel[0] {
					iy := y*win.stride[0] + kh*win.dilation[0] - win.padBegin[0]
					if iy < 0 || iy >= h {
						continue
					}
					for kw := range win.kernel[1] {
						ix := xo*win.stride[1] + kw*win.dilation[1] - win.padBegin[1]
						if ix < 0 || ix >= wd {
							continue
						}
						px := img[(iy*wd+ix)*cv.c:][:cv.c]
						tap := rows[(kh*win.kernel[1]+kw)*per*cv.m:][:per*cv.m]
						if depthwise {
							for c, v := range px {
								acc[c] += T(v * tap[c])
							}
							continue
						}
						for g := range cv.groups {
							accumulate(acc[g*perOut:][:perOut], px[g*per:][:per], tap[g*perOut:], cv.m)
						}
					}
				}
				for m, v := range acc {
					dst[((n*cv.m+m)*oh+y)*ow+xo] = v
				}
			}
		}
	})
	return dst
}

// multiply computes a [N,K] times b [K,M].
func multiply[T number](a, b []T, n, k, m int) []T {
	dst := make([]T, n*m)
	const rows = 16
	parallel((n+rows-1)/rows, func(block int) {
		for i := block * rows; i < min(n, (block+1)*rows); i++ {
			accumulate(dst[i*m:][:m], a[i*k:][:k], b, m)
		}
	})
	return dst
}

// matmulShape resolves the shapes of MatMul: the batch axes broadcast, vectors get a 1 that the result drops.
type matmulShape struct {
	a, b    []int // with at least two axes
	batch   []int
	n, k, m int
	out     []int
}

func newMatmul(a, b []int) (*matmulShape, error) {
	if len(a) == 0 || len(b) == 0 {
		return nil, fmt.Errorf("%w: a matrix product of shapes %v and %v", ErrModel, a, b)
	}
	s := &matmulShape{a: a, b: b}
	if len(a) == 1 {
		s.a = []int{1, a[0]}
	}
	if len(b) == 1 {
		s.b = []int{b[0], 1}
	}
	ra, rb := len(s.a), len(s.b)
	s.n, s.k, s.m = s.a[ra-2], s.a[ra-1], s.b[rb-1]
	if s.b[rb-2] != s.k {
		return nil, fmt.Errorf("%w: a matrix product of shapes %v and %v", ErrModel, a, b)
	}
	var err error
	if s.batch, err = broadcast(s.a[:ra-2], s.b[:rb-2]); err != nil {
		return nil, err
	}
	s.out = append([]int{}, s.batch...)
	if len(a) > 1 {
		s.out = append(s.out, s.n)
	}
	if len(b) > 1 {
		s.out = append(s.out, s.m)
	}
	return s, nil
}

func matmul[T number](s *matmulShape, a, b []T) []T {
	if count(s.b[:len(s.b)-2]) == 1 { // one right-hand matrix for all rows
		return multiply(a, b, count(s.a[:len(s.a)-1]), s.k, s.m)
	}
	dst := make([]T, count(s.batch)*s.n*s.m)
	offB := make([]int, count(s.batch))
	walk(s.batch, s.b[:len(s.b)-2], func(i, j int) { offB[i] = j })
	walk(s.batch, s.a[:len(s.a)-2], func(i, j int) {
		copy(dst[i*s.n*s.m:], multiply(a[j*s.n*s.k:][:s.n*s.k], b[offB[i]*s.k*s.m:][:s.k*s.m], s.n, s.k, s.m))
	})
	return dst
}
