//go:build !amd64

package kernel

func (t *isa) normSumsVec([]float64, []float64, []float32, []uint8, []float32, []float32, []float32, int, int) int {
	return 0
}

func (t *isa) normGradVec([]float32, []float32, []uint8, []float32, *NormParams) int { return 0 }

func (t *isa) normValuesVec(*NormAct, []float32, []uint8, []float32) int { return 0 }

func (t *isa) normQuantizeVec(*NormAct, []uint8, []uint8, []float32, float32, float32, float32, int32, *RequantStats) (int, bool) {
	return 0, false
}

func (t *isa) normScaleGradVec(_ *NormAct, _ *[16]float32, _ []float32, _ []uint8, _ []float32, _, _ []uint8, from int, _ float32, _ int32, _ bool) int {
	return from
}
