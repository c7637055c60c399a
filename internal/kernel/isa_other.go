//go:build !amd64

package kernel

import "github.com/narrow-ml/narrow/internal/cpu"

// tierKernels returns the plain Go kernels: there is no assembly for this
// architecture.
func tierKernels(cpu.Tier) *isa {
	return &isa{tier: cpu.Generic}
}
