//go:build !amd64

package kernel

func (t *isa) normPoolVec([]float32, []uint8, []float32, []float32, *NormParams, PoolGeom) bool {
	return false
}

func (t *isa) normPoolGradVec([]float32, int, []float32, []float32, []uint8, *NormParams, PoolGeom) bool {
	return false
}

func (t *isa) poolScatterVec([]float32, int, []float32, []uint8, PoolGeom) bool { return false }

func (t *isa) maxAccsVec([]int32, []uint8, []int32, *Signs, PoolGeom) bool { return false }
