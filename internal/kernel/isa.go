package kernel

import "github.com/narrow-ml/narrow/internal/cpu"

// isa is the kernels of one instruction tier. Functions that a tier does not
// have are nil, and the method of the same name runs the plain Go loop.
type isa struct {
	tier cpu.Tier
	vec  vectors
}

// active is the tier of this process, chosen before main and never written
// again.
var active = tierKernels(cpu.Active())
