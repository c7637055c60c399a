package kernel

// vectors holds the assembly kernels of a tier; see tierKernels.
type vectors struct{}
