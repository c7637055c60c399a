package kernel

import "unsafe"

// widenRows writes rows of n codes, lda apart, as s16, ldd apart.
func widenRows(dst []int16, ldd int, src []uint8, lda, n, rows int) {
	if n == ldd && n == lda || rows == 1 {
		widenCodes(dst[:n*rows], src)
		return
	}
	for i := range rows {
		widenCodes(dst[i*ldd:][:n], src[i*lda:])
	}
}

// widenCodes writes as many codes as dst has room for as s16.
func widenCodes(dst []int16, src []uint8) {
	src = src[:len(dst)]
	if widenCodesVec(dst, src) {
		return
	}
	for i, q := range src {
		dst[i] = int16(q)
	}
}

// wordBytes is the memory of x.
func wordBytes(x []int16) []uint8 {
	return unsafe.Slice((*uint8)(unsafe.Pointer(unsafe.SliceData(x))), 2*len(x))
}
