package kernel

import (
	"unsafe"

	"github.com/narrow-ml/narrow/internal/cpu"
)

// words is the address of pairs as the s16 numbers that they are on amd64.
func words(x []int32) *int16 { return (*int16)(unsafe.Pointer(&x[0])) }

func (t *isa) pairRowsVec(codes, rows []int32, x, f []float32, n int, tail *pairTail) bool {
	channels := len(f)
	if t.tier == cpu.Generic || channels%vecLanes != 0 || n == 0 {
		return false
	}
	run, only := pairRowsY, pairRowsOnlyY
	if t.tier == cpu.AVX512VNNI {
		run, only = pairRowsZ, pairRowsOnlyZ
	}
	switch {
	case n == 1:
	case codes == nil:
		only(&rows[0], &x[0], &f[0], channels, n/2)
	default:
		run(&rows[0], words(codes), &x[0], &f[0], channels, n/2)
	}
	if n%2 == 1 {
		one := grow(&tail.x, 2*channels)
		copy(one, x[(n-1)*channels:])
		clear(one[channels:])
		out := grow(&tail.codes, channels)
		run(&rows[n/2*channels], words(out), &one[0], &f[0], channels, 1)
		if codes != nil {
			copy(codes[(n-1)*channels/2:], out[:channels/2])
		}
	}
	return true
}

// pairCodesVec does the leading channels and returns how many.
func (t *isa) pairCodesVec(pairs []int32, pitch int, x []uint8, next, step, channels, n int, zero int32) int {
	done := channels &^ (vecLanes - 1)
	if t.tier == cpu.Generic || done == 0 {
		return 0
	}
	if t.tier == cpu.AVX512VNNI {
		pairCodesZ(&pairs[0], 4*pitch, &x[0], next, step, done, n, zero)
	} else {
		pairCodesY(&pairs[0], 4*pitch, &x[0], next, step, done, n, zero)
	}
	return done
}

// widenUnit is how many bytes an iteration widens.
const widenUnit = 32

func (t *isa) widenS8Vec(dst []int32, x []int8) int {
	n := len(x) &^ (widenUnit - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if t.tier == cpu.AVX512VNNI {
		widenS8Z(words(dst), &x[0], n, 0)
	} else {
		widenS8Y(words(dst), &x[0], n, 0)
	}
	return n
}

// widenU8Vec returns how many pairs it made.
func (t *isa) widenU8Vec(dst []int32, x []uint8, zero int32) int {
	n := len(x) &^ (widenUnit - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if t.tier == cpu.AVX512VNNI {
		widenU8Z(words(dst), &x[0], n, pair(zero, zero))
	} else {
		widenU8Y(words(dst), &x[0], n, pair(zero, zero))
	}
	return n / 2
}

// transposePairsVec moves pairs as the float32 of the same bits.
func (t *isa) transposePairsVec(dst []int32, ldd int, src []int32, lds, rows, cols int) (r, c int) {
	floats := func(x []int32) []float32 {
		return unsafe.Slice((*float32)(unsafe.Pointer(&x[0])), len(x))
	}
	return t.transposeVec(floats(dst), ldd, floats(src), lds, rows, cols)
}
