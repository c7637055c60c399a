package kernel

import "github.com/narrow-ml/narrow/internal/cpu"

// isa is the kernels of one instruction tier. Fields that a tier does not have
// are nil, and the method that would use them runs the plain Go loop.
type isa struct {
	tier cpu.Tier
	f32  *tilesF32
	s8   *tilesS8
	s6   *tilesS8 // for weights of at most limitS6
	s16  *tilesS16
}

// active is the tier of this process, chosen before main and never written
// again.
var active = tierKernels(cpu.Active())
