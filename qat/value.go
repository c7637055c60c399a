package qat

import (
	"fmt"
	"unsafe"

	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// Codes are integer codes on an edge of the graph: unsigned for activations, signed for weights (exactly one of U8 and
// S8 is set). Params holds the scales and zero points in force during the step. To Gorgonia the value is a float32
// tensor of the given shape; what it stands for is Params.Scale*(q-Params.Zero), which [Codes.Dequantize] computes.
type Codes struct {
	U8     []uint8
	S8     []int8
	Params *quant.Params
	shape  tensor.Shape
}

// NewActCodes makes the codes of an activation or input.
func NewActCodes(p *quant.Params, shape tensor.Shape) *Codes {
	return &Codes{U8: make([]uint8, shape.TotalSize()), Params: p, shape: shape.Clone()}
}

// View is the same codes in another shape.
func (c *Codes) View(shape tensor.Shape) *Codes {
	return &Codes{U8: c.U8, S8: c.S8, Params: c.Params, shape: shape.Clone()}
}

// Dequantize writes the values of the first len(dst) codes.
func (c *Codes) Dequantize(dst []float32) {
	if c.S8 != nil {
		kernel.DequantizeS8(dst, c.S8[:len(dst)], c.Params.Scale)
		return
	}
	s, z := c.Params.At(0)
	kernel.DequantizeU8(dst, c.U8[:len(dst)], []float32{s}, z)
}

// Shape is the shape of the value, batch first for activations.
func (c *Codes) Shape() tensor.Shape { return c.shape }

// Size is the number of codes.
func (c *Codes) Size() int { return c.shape.TotalSize() }

// Data is the slice of codes.
func (c *Codes) Data() any {
	if c.S8 != nil {
		return c.S8
	}
	return c.U8
}

// Dtype is the type of the gradients, float32.
func (c *Codes) Dtype() tensor.Dtype { return tensor.Float32 }

// Uintptr is the address of the codes.
func (c *Codes) Uintptr() uintptr {
	if c.S8 != nil {
		return uintptr(unsafe.Pointer(unsafe.SliceData(c.S8)))
	}
	return uintptr(unsafe.Pointer(unsafe.SliceData(c.U8)))
}

// MemSize is the size of the codes in bytes.
func (c *Codes) MemSize() uintptr { return uintptr(len(c.U8) + len(c.S8)) }

// Format prints the kind and shape of the value.
func (c *Codes) Format(s fmt.State, _ rune) {
	kind := "u8"
	if c.S8 != nil {
		kind = "s8"
	}
	fmt.Fprintf(s, "codes %s %v", kind, c.shape)
}

// Acc are the accumulators of an integer layer on an edge of the graph. Element i of channel c is
//
//	a = Raw[i] + Offset[c]        and stands for float32(a) * (InScale*Scale[c])
//
// or, if Cells is not 0, for the mean float32(a) * (InScale/Cells); a ReLU limits the values. The offset holds the input's
// zero point times the column sums of the weights and, once batch norm is frozen or absent, the bias. To Gorgonia the
// value is a float32 tensor.
type Acc struct {
	Raw     []int32
	Wide    []int64 // in place of Raw where codes have 16 bits
	Offset  []int32
	InScale float32
	Scale   []float32
	Cells   int // of global average pooling: how many codes each sum has
	Limit
	shape tensor.Shape
}

// Limit is the ReLU behind a layer: none, max(x, 0), or min(max(x, 0), Cap) if Cap is not 0.
type Limit struct {
	Relu bool
	Cap  float32
}

// attr is the limit as model.Node has it.
func (l Limit) attr() *model.Node { return &model.Node{Attr: model.Attr{Relu: l.Relu, Cap: l.Cap}} }

// apply limits values in place.
func (l Limit) apply(x []float32) {
	switch {
	case l.Cap > 0:
		kernel.ReLUCap(x, x, l.Cap)
	case l.Relu:
		kernel.ReLU(x, x)
	}
}

// NewAcc makes accumulators for a layer with the given output shape, batch first.
func NewAcc(shape tensor.Shape) *Acc {
	a := NewAccView(shape)
	a.Raw = make([]int32, shape.TotalSize())
	return a
}

// NewAccView makes accumulators whose Raw another value will lend: batch norm changes scale and offset alone.
func NewAccView(shape tensor.Shape) *Acc {
	c := shape[len(shape)-1]
	return &Acc{Offset: make([]int32, c), Scale: make([]float32, c), shape: shape.Clone()}
}

// Over is a with other accumulators, of the same channels in another shape; into is what an earlier call gave, or nil.
func (a *Acc) Over(raw []int32, shape tensor.Shape, into *Acc) *Acc {
	if into == nil {
		into = &Acc{shape: shape.Clone()}
	}
	shape = into.shape
	*into = *a
	into.Raw, into.shape = raw, shape
	return into
}

// Channels is the extent of the last axis.
func (a *Acc) Channels() int { return len(a.Offset) }

// Multipliers writes InScale*Scale[c], rounded to float32.
func (a *Acc) Multipliers(dst []float32) {
	for c, s := range a.Scale {
		dst[c] = quant.Mul32(a.InScale, s)
		if a.Cells > 0 {
			dst[c] = a.InScale / float32(a.Cells)
		}
	}
}

// Values writes the real values of the elements [from, from+len(dst)), both multiples of the channels, with the factors
// that Multipliers gave.
func (a *Acc) Values(dst []float32, from int, mult []float32) {
	if a.Wide != nil {
		a.wideValues(dst, from, mult)
	} else {
		kernel.ScaleRows(dst, a.Raw[from:from+len(dst)], a.Offset, mult, a.Channels())
	}
	a.apply(dst)
}

// Dequantize writes the values of the first len(dst) elements.
func (a *Acc) Dequantize(dst []float32) {
	mult := make([]float32, a.Channels())
	a.Multipliers(mult)
	a.Values(dst, 0, mult)
}

// Shape is the shape of the value, batch first.
func (a *Acc) Shape() tensor.Shape { return a.shape }

// Size is the number of accumulators.
func (a *Acc) Size() int { return a.shape.TotalSize() }

// Data is the slice of accumulators without their offsets.
func (a *Acc) Data() any {
	if a.Wide != nil {
		return a.Wide
	}
	return a.Raw
}

// Dtype is the type of the gradients, float32.
func (a *Acc) Dtype() tensor.Dtype { return tensor.Float32 }

// Uintptr is the address of the accumulators.
func (a *Acc) Uintptr() uintptr {
	if a.Wide != nil {
		return uintptr(unsafe.Pointer(unsafe.SliceData(a.Wide)))
	}
	return uintptr(unsafe.Pointer(unsafe.SliceData(a.Raw)))
}

// MemSize is the size of the accumulators in bytes.
func (a *Acc) MemSize() uintptr { return uintptr(4*len(a.Raw) + 8*len(a.Wide)) }

// Format prints the kind and shape of the value.
func (a *Acc) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "accumulators s32 %v", a.shape) }
