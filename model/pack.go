package model

// packCodes writes n = len(codes) two's complement codes of the given width, 2 to 8 bits, as one little-endian bit
// stream: code i occupies bits [i*bits, (i+1)*bits) of the stream, and bit b of the stream is bit b%8 of byte b/8. Unused
// bits of the last byte are 0. dst must have PackedBytes(n) bytes.
func packCodes(dst []byte, codes []int8, bits int) {
	clear(dst)
	mask := uint16(1)<<bits - 1
	for i, q := range codes {
		at := i * bits
		v := (uint16(uint8(q)) & mask) << (at % 8)
		dst[at/8] |= byte(v)
		if v > 0xff {
			dst[at/8+1] |= byte(v >> 8)
		}
	}
}

// unpackCodes reads what packCodes wrote.
func unpackCodes(codes []int8, src []byte, bits int) {
	for i := range codes {
		at := i * bits
		v := uint16(src[at/8])
		if at%8+bits > 8 {
			v |= uint16(src[at/8+1]) << 8
		}
		v >>= at % 8
		codes[i] = int8(uint8(v)<<(8-bits)) >> (8 - bits) // the arithmetic shift extends the sign
	}
}
