//go:build !amd64

package kernel

func (t *isa) depthwiseVec([]float32, []float32, []float32, pixelRun, cellSteps, int, tapSteps, ConvGeom) int {
	return 0
}

func (t *isa) depthwiseWeightVec([]float32, []float32, []float32, pixelRun, cellSteps, ConvGeom) int {
	return 0
}

func (t *isa) depthwiseU8Vec([]int32, *rowRequant, []uint8, []int8, pixelRun, cellSteps, ConvGeom) int {
	return 0
}

func (t *isa) maxRowsF32([]float32, []float32, int, PoolGeom) bool { return false }

func (t *isa) maxRowsU8([]uint8, []uint8, int, PoolGeom) bool { return false }
