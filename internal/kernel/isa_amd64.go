package kernel

import "github.com/narrow-ml/narrow/internal/cpu"

// tierKernels returns the kernels of tier t, which this machine must have.
func tierKernels(t cpu.Tier) *isa {
	return &isa{tier: t}
}
