//go:build !narrow_fault

package infer_test

import "math"

// refRound is the rounding that the reference expects.
func refRound(v float64) float64 { return math.RoundToEven(v) }

// codesOfHalves are the codes of acc/2 + 4 for acc = -4 ... 4.
var codesOfHalves = []uint8{2, 2, 3, 4, 4, 4, 5, 6, 6}

const describedRounding = "half to even"
