//go:build narrow_fault

package infer_test

import "math"

// refRound is the fault of this build: halves away from zero.
func refRound(v float64) float64 { return math.Round(v) }

// codesOfHalves are the codes of acc/2 + 4 for acc = -4 ... 4.
var codesOfHalves = []uint8{2, 2, 3, 3, 4, 5, 5, 6, 6}

const describedRounding = "half away from zero (built with narrow_fault: for tests of verify only)"
