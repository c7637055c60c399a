package qat

import (
	"fmt"
	"unsafe"

	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/kernel"
)

// MaskedGrad is the gradient that a quantizer or a ReLU lets through, before anybody has written it to memory: that of its
// output and a mask of what passes. Ops that know it read both; to others it is, by Data, a gradient with zeros.
type MaskedGrad struct {
	st    *Step
	shape tensor.Shape
	row   int // elements of an example
	mask  []uint8
	dy    []float32
	own   []float32 // for Data
	set   bool      // own holds the step's gradient
}

// NewMaskedGrad is the gradient behind mask, whose examples begin at a byte: kernel.MaskLen of an example's elements each.
func NewMaskedGrad(st *Step, shape tensor.Shape, mask []uint8) *MaskedGrad {
	return &MaskedGrad{st: st, shape: shape, row: shape.TotalSize() / shape[0], mask: mask}
}

// Set takes the step's gradient before the mask.
func (m *MaskedGrad) Set(dy []float32) { m.dy, m.set = dy, false }

// Row is the memory of example i's gradient, and the bits of those that pass.
func (m *MaskedGrad) Row(i int) (dy []float32, mask []uint8) {
	n := kernel.MaskLen(m.row)
	return m.dy[i*m.row : (i+1)*m.row], m.mask[i*n : (i+1)*n]
}

// Write writes the gradient of the examples [from, to).
func (m *MaskedGrad) Write(dx []float32, from, to int) {
	for i := from; i < to; i++ {
		dy, mask := m.Row(i)
		kernel.MaskGrad(dx[(i-from)*len(dy):][:len(dy)], dy, mask)
	}
}

// Whole is the gradient before the mask, of all examples.
func (m *MaskedGrad) Whole() []float32 { return m.dy }

// Data is the gradient of the rows in use, []float32.
func (m *MaskedGrad) Data() any {
	if !m.set {
		if m.own == nil {
			m.own = make([]float32, m.Size())
		}
		m.Write(m.own, 0, m.st.Rows)
		m.set = true
	}
	return m.own
}

// Shape is the shape of the value, batch first.
func (m *MaskedGrad) Shape() tensor.Shape { return m.shape }

// Size is the number of elements.
func (m *MaskedGrad) Size() int { return m.shape.TotalSize() }

// Dtype is float32.
func (m *MaskedGrad) Dtype() tensor.Dtype { return tensor.Float32 }

// Uintptr is the address of the value.
func (m *MaskedGrad) Uintptr() uintptr { return uintptr(unsafe.Pointer(m)) }

// MemSize is the size of the mask in bytes.
func (m *MaskedGrad) MemSize() uintptr { return uintptr(len(m.mask)) }

// Format prints the kind and shape of the value.
func (m *MaskedGrad) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "masked gradient %v", m.shape) }
