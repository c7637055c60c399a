//go:build !amd64

package kernel

func (t *isa) pairRowsVec([]int32, []int32, []float32, []float32, int, *pairTail) bool { return false }

func (t *isa) pairCodesVec([]int32, int, []uint8, int, int, int, int, int32) int { return 0 }

func (t *isa) widenS8Vec([]int32, []int8) int { return 0 }

func (t *isa) widenU8Vec([]int32, []uint8, int32) int { return 0 }

func (t *isa) transposePairsVec([]int32, int, []int32, int, int, int) (r, c int) { return 0, 0 }
