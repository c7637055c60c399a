package infer

import (
	"errors"
	"math"

	"github.com/narrow-ml/narrow/quant"
)

const signBit = 1 << 31

// round16 is quant.Round16 in place. Values whose result is a normal 16-bit number are rounded on their float32 pattern,
// by adding half of the last kept bit, less one where that bit is 0, and clearing what is below; all others, few in
// practice, go through package quant.
func round16(y []float32, f quant.Format) error {
	drop, top := 13, uint32(142)<<23|0x7fe000 // fp16: 10 bits of fraction, largest 65504
	least := uint32(113) << 23                // 2^-14
	if f == quant.BF16 {
		drop, top = 16, 0x7f7f0000
		least = 1 << 23
	}
	half, keep := uint32(1)<<(drop-1)-1, ^uint32(0)<<drop
	for i, v := range y {
		if v == 0 {
			continue
		}
		b := math.Float32bits(v)
		mag := b &^ signBit
		r := (mag + half + mag>>drop&1) & keep
		if mag >= least && r <= top {
			y[i] = math.Float32frombits(r | b&signBit)
			continue
		}
		if err := quant.Round16(y[i:i+1], y[i:i+1], f); err != nil {
			return atIndex(err, i)
		}
	}
	return nil
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

// indexOf is the index in an error of package quant; -1 in any other.
func indexOf(err error) int {
	var over *quant.OverflowError
	var nan *quant.NaNError
	switch {
	case errors.As(err, &over):
		return over.Index
	case errors.As(err, &nan):
		return nan.Index
	}
	return -1
}
