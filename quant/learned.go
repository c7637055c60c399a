package quant

import "math"

// ScaleFactor names the factor that a learned scale's gradient is multiplied by (g of D5). n is the number of weights that
// share the scale, or the elements of one example of an activation.
type ScaleFactor uint8

// The factors. Adam divides a gradient by its own size, so they matter most with sgd.
const (
	FactorLSQ      ScaleFactor = iota + 1 // 1/sqrt(n*hi), of the paper (arXiv:1902.08153, section 2.2)
	FactorElements                        // 1/sqrt(n): the grid plays no part
	FactorNone                            // 1
)

// ScaleStep says in what a learned scale takes its steps.
type ScaleStep uint8

// The steps. An optimizer such as Adam moves every number by about its learning rate whatever its size, and scales lie
// anywhere between 1e-4 and 1: a step that is right for one throws the next about.
const (
	StepLog    ScaleStep = iota + 1 // in ln s: a learning rate of 0.001 moves a scale by about 0.1 %
	StepLinear                      // in s itself
)

var (
	scaleFactorNames = []string{FactorLSQ: "lsq", FactorElements: "elements", FactorNone: "none"}
	scaleStepNames   = []string{StepLog: "log", StepLinear: "linear"}
)

func (v ScaleFactor) String() string { return enumName("ScaleFactor", scaleFactorNames, uint8(v)) }
func (v ScaleStep) String() string   { return enumName("ScaleStep", scaleStepNames, uint8(v)) }

// Of is the factor for n elements and the highest code hi; the zero value is [FactorLSQ].
func (v ScaleFactor) Of(n int, hi int32) float64 {
	switch v {
	case FactorNone:
		return 1
	case FactorElements:
		return 1 / math.Sqrt(float64(n))
	}
	return 1 / math.Sqrt(float64(n)*float64(hi))
}
