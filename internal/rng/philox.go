package rng

// Multipliers of the two S-boxes and the Weyl increments of the key schedule: table 2 and section 3.3 of the SC'11 paper.
const (
	mul0  = 0xD2511F53
	mul1  = 0xCD9E8D57
	weyl0 = 0x9E3779B9 // the golden ratio
	weyl1 = 0xBB67AE85 // sqrt(3) - 1

	rounds = 10
)

// philox is Philox4x32-10: ten rounds of a keyed bijection on the counter c.
func philox(c [4]uint32, k [2]uint32) [4]uint32 {
	c0, c1, c2, c3 := c[0], c[1], c[2], c[3]
	k0, k1 := k[0], k[1]
	for range rounds {
		p0 := uint64(mul0) * uint64(c0)
		p1 := uint64(mul1) * uint64(c2)
		c0, c1, c2, c3 = uint32(p1>>32)^c1^k0, uint32(p1), uint32(p0>>32)^c3^k1, uint32(p0)
		k0 += weyl0
		k1 += weyl1
	}
	return [4]uint32{c0, c1, c2, c3}
}

func split(v uint64) (lo, hi uint32) { return uint32(v), uint32(v >> 32) }

func join(lo, hi uint32) uint64 { return uint64(hi)<<32 | uint64(lo) }
