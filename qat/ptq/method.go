package ptq

import (
	"fmt"
	"strings"

	"github.com/narrow-ml/narrow/quant"
)

// Method names how ranges are chosen; see the package comment.
type Method uint8

// The methods. The zero value stands for MinMax in [Options].
const (
	MinMax Method = iota + 1
	Percentile
	MSE
	KL
	Histogram
	Auto // Quantize only: the best on the validation split
)

var methodNames = [...]string{MinMax: "minmax", Percentile: "percentile", MSE: "mse", KL: "kl", Histogram: "histogram", Auto: "auto"}

func (m Method) String() string {
	if int(m) < len(methodNames) && methodNames[m] != "" {
		return methodNames[m]
	}
	return fmt.Sprintf("Method(%d)", uint8(m))
}

// ParseMethod reads "minmax", "percentile", "mse", "kl", "histogram" or "auto".
func ParseMethod(s string) (Method, error) {
	for m, name := range methodNames {
		if name == s && s != "" {
			return Method(m), nil
		}
	}
	return 0, fmt.Errorf("unknown calibration method %q (allowed: %s)", s, strings.Join(methodNames[1:], ", "))
}

// named is the method that a Spec asks for by itself; ok is false for the range methods of training.
func named(r quant.Range) (m Method, ok bool) {
	switch r {
	case quant.MinMax:
		return MinMax, true
	case quant.Percentile:
		return Percentile, true
	case quant.MSE:
		return MSE, true
	default:
		return 0, false
	}
}
