//go:build !amd64

package kernel

// No assembly for this architecture: the plain Go loops do everything.

func (t *isa) requantVec([]uint8, []int32, []int32, []float32, int32, int32, int32) int { return 0 }

func (t *isa) requantTrainVec([]uint8, []uint8, []int32, []int32, []float32, int32, int32, int32, bool, *RequantStats) int {
	return 0
}

func (t *isa) scaleRowsVec([]float32, []int32, []int32, []float32) int { return 0 }

func (t *isa) quantizeTrainVec([]uint8, []uint8, []float32, float32, float32, float32, int32, *RequantStats) (int, bool) {
	return 0, false
}

func (t *isa) scaleGradRowsVec(*[16]float32, []float32, []int32, []int32, []float32, []uint8, []uint8, int32) int {
	return 0
}

func (t *isa) addBiasVec([]float32, []float32, []float32) int { return 0 }

func (t *isa) reluVec([]float32, []float32) int { return 0 }

func (t *isa) reluGradVec([]float32, []float32, []float32) int { return 0 }

func (t *isa) reluCapGradVec([]float32, []float32, []float32, float32) int { return 0 }

func (t *isa) addRequantTrainVec([]uint8, []uint8, Term, Term, int32, float32, float32, bool, *RequantStats) int {
	return 0
}

func (t *isa) addScaledVec([]float32, Term, Term) int { return 0 }

func (t *isa) maskGradVec([]float32, []float32, []uint8) int { return 0 }

func (t *isa) maskReLUGradVec([]float32, []float32, []float32, []uint8) int { return 0 }

func (t *isa) addMaskedVec([]float32, []float32, []float32, []uint8) int { return 0 }

func (t *isa) adamVec([]float32, []float32, []float32, []float32, *adamFactors) int { return 0 }

func (t *isa) quantizeF32Vec([]float32, []uint8, []float32, []float32, float32, float32) (int, int) {
	return 0, -1
}

func (t *isa) quantizeU8Vec([]uint8, []uint8, []float32, float32, int32, float32, float32) (int, int) {
	return 0, -1
}

func (t *isa) quantizeS8Vec([]int8, []uint8, []float32, []float32, float32, float32) (int, int) {
	return 0, -1
}

func (t *isa) dequantizeU8Vec([]float32, []uint8, []float32, int32) int { return 0 }

func (t *isa) dequantizeS8Vec([]float32, []int8, []float32) int { return 0 }

func (t *isa) normalizeVec([]float32, []float32, []float32, []float32, []float32) int { return 0 }

func widenCodesVec([]int16, []uint8) bool { return false }

func absMaxS8Vec([]int8) (top, done int) { return 0, 0 }

func (t *isa) transposeVec([]float32, int, []float32, int, int, int) (int, int) { return 0, 0 }

func (t *isa) absMaxVec([]float32, []float32, int) (int, bool) { return 0, false }

func (t *isa) minMaxVec([]float32, *float32, *float32) (int, bool) { return 0, false }

func (t *isa) columnVec([]float64, columnTerm, *columnArgs, int, int) int { return 0 }

func (t *isa) scaleGradVec(*[16]float32, []float32, []float32, float32, float32, float32) int {
	return 0
}

func (t *isa) scaleGradU8Vec(_ *[16]float32, _ []float32, _ []uint8, _ []float32, _ float32, _, _ []uint8, from int, _ int32) int {
	return from
}

func (t *isa) scaleGradCodesVec([]float32, []float32, []float32, []float32, []int8, []uint8) int {
	return 0
}

func (t *isa) sumSquaresVec(*[16]float32, []float32) int { return 0 }

func (t *isa) addVec([]float32, []float32, []float32) int { return 0 }

func (t *isa) addReLUVec([]float32, []uint8, []float32, []float32) int { return 0 }

func (t *isa) scaleVec([]float32, []float32, float32) int { return 0 }

func (t *isa) poolVecF32([]float32, []uint8, []float32, window) int { return 0 }

func (t *isa) poolVecU8([]uint8, []uint8, []uint8, window) int { return 0 }
