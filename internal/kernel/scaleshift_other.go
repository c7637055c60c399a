//go:build !amd64

package kernel

func (t *isa) scaleShiftVec([]float32, []float32, []float32, []float32, int, After) (int, bool) {
	return 0, false
}

func (t *isa) addRequantVec([]uint8, Term, Term, int32, float32, float32) int { return 0 }

func (t *isa) meanSumsVec([]int32, []uint8, int) int { return 0 }

func (t *isa) meanVec([]float32, []float32, int) int { return 0 }
