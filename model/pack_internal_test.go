package model

import (
	"bytes"
	"slices"
	"testing"
)

// TestPackKnown holds the bit order of docs/format.md against streams worked out by hand.
func TestPackKnown(t *testing.T) {
	tests := []struct {
		bits  int
		codes []int8
		want  []byte
	}{
		{2, []int8{1, -1, 0, 1, -1}, []byte{0b01_00_11_01, 0b11}},
		{3, []int8{3, -3, 1}, []byte{0b01_101_011, 0b0}},
		{3, []int8{0, 0, -1}, []byte{0b11_000_000, 0b1}},
		{4, []int8{-7, 7, 1}, []byte{0x79, 0x01}},
		{5, []int8{-15, 15}, []byte{0b111_10001, 0b01}},
		{8, []int8{-127, 127, 0}, []byte{0x81, 0x7f, 0}},
	}
	for _, tt := range tests {
		got := make([]byte, len(tt.want))
		packCodes(got, tt.codes, tt.bits)
		if !bytes.Equal(got, tt.want) {
			t.Errorf("%d bits of %v: %08b, want %08b", tt.bits, tt.codes, got, tt.want)
		}
	}
}

// TestPackRoundTrip packs every code of every width at every position of a byte.
func TestPackRoundTrip(t *testing.T) {
	for bits := 2; bits <= 8; bits++ {
		for lead := range 8 {
			codes := make([]int8, lead)
			for q := -(1 << (bits - 1)); q < 1<<(bits-1); q++ {
				codes = append(codes, int8(q))
			}
			packed := make([]byte, (len(codes)*bits+7)/8)
			packCodes(packed, codes, bits)
			got := make([]int8, len(codes))
			unpackCodes(got, packed, bits)
			if !slices.Equal(got, codes) {
				t.Errorf("%d bits after %d codes: %v, want %v", bits, lead, got, codes)
			}
		}
	}
}
