package infer

import (
	"errors"

	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/quant"
)

// rounding16 is the kernels' word for the format that a tensor's values are rounded to.
func rounding16(f quant.Format) kernel.Rounding {
	switch f {
	case quant.FP16:
		return kernel.RoundF16
	case quant.BF16:
		return kernel.RoundBF16
	}
	return kernel.RoundNone
}

// atIndex gives an error of package quant another index.
func atIndex(err error, i int) error {
	var over *quant.OverflowError
	var nan *quant.NaNError
	switch {
	case errors.As(err, &over):
		over.Index = i
	case errors.As(err, &nan):
		nan.Index = i
	}
	return err
}
