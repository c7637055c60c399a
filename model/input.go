package model

import "github.com/narrow-ml/narrow/quant"

// InputTable maps the bytes of an input to the codes of its quantizer q: byte p stands for f32(Scale*(p-Zero)), whose code
// q gives. It is nil where the bytes are the codes already.
func (in *Input) InputTable(q *quant.Params) *[256]uint8 {
	if in.BytesAreCodes(q) {
		return nil
	}
	var table [256]uint8
	s, z := q.At(0)
	for p := range table {
		table[p] = uint8(q.Spec.Code(quant.Mul32(in.Scale, float32(int32(p)-in.Zero)), s, z))
	}
	return &table
}

// BytesAreCodes reports a quantizer whose grid is that of the bytes.
func (in *Input) BytesAreCodes(q *quant.Params) bool {
	lo, hi := q.Spec.Grid()
	return lo == 0 && hi == 255 && q.Scale[0] == in.Scale && q.Zero[0] == in.Zero
}
