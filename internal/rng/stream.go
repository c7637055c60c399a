package rng

import "math/bits"

// Purpose keeps the numbers of one part of a program apart from those of every other. The values are part of what a
// seed means: add new ones at the end and never renumber.
type Purpose uint32

// What random numbers are drawn for.
const (
	Init      Purpose = iota + 1 // initial weights
	Split                        // validation split
	Shuffle                      // order of the examples in an epoch
	Augment                      // random crops, flips, noise on inputs
	Dropout                      // dropout masks
	Calibrate                    // choice of calibration examples
	Bootstrap                    // resampling for error bars
	Round                        // stochastic and learned rounding
	Search                       // bit-width and hyperparameter search
	Synthetic                    // made-up data
	Test                         // inputs of tests and benchmarks
)

// Stream is one sequence of random numbers, named by the arguments of New. It is a small value: copying it forks the
// sequence, both copies then give the same numbers. It allocates nothing and must not be used from two goroutines at
// once; give each its own name instead.
type Stream struct {
	key   [2]uint32
	high  uint64 // upper half of the counter
	block uint64 // lower half: the next block to compute
	buf   [4]uint32
	left  int // words of buf not handed out yet
}

// New returns the stream named by seed, purpose and key, typically epoch, step and index. The number of key words is
// part of the name: New(s, p, 1) and New(s, p, 1, 0) are unrelated.
func New(seed uint64, p Purpose, key ...uint64) Stream {
	k0, k1 := split(seed)
	s := philox([4]uint32{uint32(p), uint32(len(key)), 0, 0}, [2]uint32{k0, k1})
	for _, w := range key {
		lo, hi := split(w)
		s = philox([4]uint32{s[0], s[1], lo, hi}, [2]uint32{s[2], s[3]})
	}
	return Stream{key: [2]uint32{s[0], s[1]}, high: join(s[2], s[3])}
}

// Uint32 returns the next word.
func (s *Stream) Uint32() uint32 {
	if s.left == 0 {
		s.refill()
	}
	w := s.buf[4-s.left]
	s.left--
	return w
}

func (s *Stream) refill() {
	b0, b1 := split(s.block)
	h0, h1 := split(s.high)
	s.buf = philox([4]uint32{b0, b1, h0, h1}, s.key)
	s.block++
	s.left = 4
}

// Uint64 returns the next two words, the first of them in the low half.
func (s *Stream) Uint64() uint64 {
	lo := s.Uint32()
	return join(lo, s.Uint32())
}

// Fill writes the words that len(dst) calls of Uint32 would have returned.
func (s *Stream) Fill(dst []uint32) {
	for len(dst) > 0 && s.left > 0 {
		dst[0], dst = s.Uint32(), dst[1:]
	}
	for len(dst) >= 4 {
		s.refill()
		s.left = 0
		copy(dst, s.buf[:])
		dst = dst[4:]
	}
	for i := range dst {
		dst[i] = s.Uint32()
	}
}

// Float32 returns a multiple of 2^-24 in [0, 1), each equally likely.
func (s *Stream) Float32() float32 { return float32(float32(s.Uint32()>>8) * 0x1p-24) }

// Float64 returns a multiple of 2^-53 in [0, 1), each equally likely.
func (s *Stream) Float64() float64 { return float64(float64(s.Uint64()>>11) * 0x1p-53) }

// IntN returns an integer in [0, n), each exactly equally likely. With n of 1 or less there is nothing to choose: the
// result is 0 and no word is used.
//
// The method is Lemire's (arXiv:1805.10941, algorithm 5): the high half of a 128-bit product, with the few low halves
// that would favour some results drawn again.
func (s *Stream) IntN(n int) int {
	if n <= 1 {
		return 0
	}
	bound := uint64(n)
	hi, lo := bits.Mul64(s.Uint64(), bound)
	if lo < bound {
		for reject := -bound % bound; lo < reject; {
			hi, lo = bits.Mul64(s.Uint64(), bound)
		}
	}
	return int(hi)
}

// Perm fills dst with a random order of 0..len(dst)-1, every order equally likely (Fisher and Yates).
func (s *Stream) Perm(dst []int32) {
	for i := range dst {
		j := s.IntN(i + 1)
		dst[i] = dst[j]
		dst[j] = int32(i)
	}
}
