package onnxpb

import "math"

// Float16FromFloat32 rounds to IEEE binary16, half to even: 65520 and above become infinity, subnormals are kept,
// a NaN stays a quiet NaN of the same sign.
func Float16FromFloat32(x float32) uint16 {
	b := math.Float32bits(x)
	sign := uint16(b >> 16 & 0x8000)
	abs := b & 0x7fffffff
	switch {
	case abs > 0x7f800000:
		return sign | 0x7e00 | uint16(abs>>13&0x1ff)
	case abs >= 0x47800000: // 2^16 and more, infinity
		return sign | 0x7c00
	case abs >= 0x38800000: // normal in binary16: rebias the exponent, then round 13 bits away
		v := abs - (127-15)<<23
		return sign | uint16((v+0xfff+(v>>13&1))>>13)
	case abs < 0x33000000: // below 2^-25
		return sign
	}
	// Subnormal: the significand with its hidden bit, in units of 2^-24.
	shift := 126 - abs>>23 // between 14 and 24
	m := abs&0x7fffff | 0x800000
	half := uint32(1) << (shift - 1)
	return sign | uint16((m+half-1+(m>>shift&1))>>shift)
}

// Float16ToFloat32 widens exactly.
func Float16ToFloat32(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp, frac := uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch {
	case exp == 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	case exp == 0:
		v := float32(frac) * 0x1p-24
		return math.Float32frombits(sign | math.Float32bits(v))
	}
	return math.Float32frombits(sign | (exp+127-15)<<23 | frac<<13)
}

// BFloat16FromFloat32 keeps the upper half, rounding half to even; a NaN stays a NaN.
func BFloat16FromFloat32(x float32) uint16 {
	b := math.Float32bits(x)
	if b&0x7fffffff > 0x7f800000 {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + (b >> 16 & 1)) >> 16)
}

// BFloat16ToFloat32 widens exactly.
func BFloat16ToFloat32(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// pack puts integers of 2 or 4 bits into bytes, the first element in the lowest bits.
func pack(codes []int64, bits int) []byte {
	per := 8 / bits
	mask := byte(1<<bits - 1)
	out := make([]byte, (len(codes)+per-1)/per)
	for i, c := range codes {
		out[i/per] |= (byte(c) & mask) << (bits * (i % per))
	}
	return out
}

// unpack is the inverse of pack for n elements.
func unpack(raw []byte, n, bits int, signed bool) []int64 {
	per := 8 / bits
	out := make([]int64, n)
	for i := range out {
		v := raw[i/per] >> (bits * (i % per)) << (8 - bits)
		if signed {
			out[i] = int64(int8(v) >> (8 - bits))
		} else {
			out[i] = int64(v >> (8 - bits))
		}
	}
	return out
}
