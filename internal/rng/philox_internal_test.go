package rng

import "testing"

// The known answers are those of the authors' library: Random123, tests/kat_vectors, lines "philox4x32 10".
func TestPhiloxKnownAnswers(t *testing.T) {
	const ones = 0xffffffff
	tests := []struct {
		counter [4]uint32
		key     [2]uint32
		want    [4]uint32
	}{
		{[4]uint32{}, [2]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{ones, ones, ones, ones}, [2]uint32{ones, ones}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0},
			[4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	}
	for _, tt := range tests {
		if got := philox(tt.counter, tt.key); got != tt.want {
			t.Errorf("philox(%08x, %08x) = %08x, want %08x", tt.counter, tt.key, got, tt.want)
		}
	}
}

// A stream is consecutive counters under one key, whatever call takes the words.
func TestStreamIsTheCounterInOrder(t *testing.T) {
	s := New(5, Init, 1, 2)
	var want []uint32
	for b := range uint32(3) {
		h0, h1 := split(s.high)
		w := philox([4]uint32{b, 0, h0, h1}, s.key)
		want = append(want, w[:]...)
	}
	for i, w := range want {
		if got := s.Uint32(); got != w {
			t.Fatalf("word %d = %08x, want %08x", i, got, w)
		}
	}
}
