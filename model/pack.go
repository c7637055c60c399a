package model

import "fmt"

// Packed is the codes of weight name of a Frozen model as files store them, and the name of their type in docs/format.md,
// for example "s4". It is empty for a parameter that is no weight codes.
func (m *Model) Packed(name string) (typ string, data []byte) {
	p := m.Params[name]
	if p == nil || p.Codes == nil {
		return "", nil
	}
	b := blob{tensorHeader{Type: m.paramType(name, p), Shape: p.Shape}, *p}
	return b.Type, b.appendTo(nil)
}

// Unpack reads n codes of a type that [Model.Packed] names.
func Unpack(typ string, n int, data []byte) ([]int8, error) {
	if len(typ) < 2 || typ[0] != 's' && typ[0] != 'e' || blobBits(typ) == 0 || blobBits(typ) > 8 {
		return nil, fmt.Errorf("type %q holds no codes (allowed: s2 to s8, e1 to e7)", typ)
	}
	bits := blobBits(typ)
	if want := (n*bits + 7) / 8; n < 0 || len(data) != want {
		return nil, fmt.Errorf("%d codes of %s take %d bytes, not %d", n, typ, want, len(data))
	}
	codes := make([]int8, n)
	unpackCodes(codes, data, bits)
	fromLevels(codes, typ)
	return codes, nil
}

// toLevels turns codes of a type with even levels into the numbers of their levels, 0 to 2^bits-1, whose low bits a file
// holds; other codes are left as they are.
func toLevels(codes []int8, typ string) []int8 {
	if typ[0] != 'e' {
		return codes
	}
	hi := int32(1)<<blobBits(typ) - 1
	out := make([]int8, len(codes))
	for i, q := range codes {
		out[i] = int8((int32(q) + hi) / 2)
	}
	return out
}

// fromLevels is the reverse, in place, of what unpackCodes read.
func fromLevels(codes []int8, typ string) {
	if typ[0] != 'e' {
		return
	}
	hi := int32(1)<<blobBits(typ) - 1
	for i, level := range codes {
		codes[i] = int8(2*(int32(level)&hi) - hi)
	}
}

// packCodes writes n = len(codes) two's complement codes of the given width, 1 to 8 bits, as one little-endian bit
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
