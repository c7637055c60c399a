package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/narrow-ml/narrow/internal/cpu"
)

// eachTier runs a test once for every tier of this machine.
func eachTier(t *testing.T, test func(t *testing.T, k *isa)) {
	for tier := cpu.Generic; tier <= cpu.Hardware(); tier++ {
		t.Run(tier.String(), func(t *testing.T) { test(t, tierKernels(tier)) })
	}
}

// generic is the definition that the other tiers are compared with.
func generic() *isa { return tierKernels(cpu.Generic) }

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 17)) }

// randomF32 fills x with values of magnitude around one, some of them special
// when edges is set.
func randomF32(r *rand.Rand, x []float32, edges bool) {
	special := []float32{0, float32(math.Copysign(0, -1)), 1, -1, 0.5, -0.5, 1e30, -1e30, 1e-30,
		float32(math.Inf(1)), float32(math.Inf(-1)), math.SmallestNonzeroFloat32, math.MaxFloat32}
	for i := range x {
		x[i] = float32(r.NormFloat64())
		if edges && r.IntN(4) == 0 {
			x[i] = special[r.IntN(len(special))]
		}
	}
}

func randomCodes[T int8 | uint8](r *rand.Rand, x []T) {
	for i := range x {
		x[i] = T(r.Uint32())
	}
}

// Detect reads NARROW_ISA while the test runs, which also tells go test not to
// reuse a cached result of another tier.
func TestActiveIsTheForcedTier(t *testing.T) {
	want, err := cpu.Detect()
	if err != nil {
		t.Fatal(err)
	}
	if active.tier != want {
		t.Errorf("kernels run at %v, want %v", active.tier, want)
	}
}
