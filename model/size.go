package model

import "github.com/narrow-ml/narrow/quant"

// PackedBytes is the size of n values in format f with no gaps between them.
func PackedBytes(n int, f quant.Format) int { return (n*f.Bits() + 7) / 8 }

// WeightBytes is the memory that the weight tensors take as deployed: codes at their width with their scales, 16-bit
// floats, or float32. Biases and batch norm are not weights; the size of the whole file is measured on the file. Layers
// that [Shapes] has not given a weight yet count 0.
func (m *Model) WeightBytes() int {
	total := 0
	for i := range m.Nodes {
		total += m.NodeWeightBytes(&m.Nodes[i])
	}
	return total
}

// NodeWeightBytes is the part of one node in [Model.WeightBytes].
func (m *Model) NodeWeightBytes(n *Node) int {
	w := m.Params[n.Param(Weight)]
	if !n.Op.HasWeight() || w == nil {
		return 0
	}
	elements := w.Shape.Size()
	q := m.Quant[n.Param(Weight)]
	if q == nil {
		return PackedBytes(elements, quant.FP32)
	}
	bytes := PackedBytes(elements, q.Spec.Format)
	if q.Spec.Format.IsInteger() {
		bytes += 4 * q.Spec.Scales(elements, n.Attr.Units)
	}
	return bytes
}

// MACs is the number of multiplications of one example in a conv or dense node; 0 for other operations and before
// [Shapes].
func (m *Model) MACs(n *Node) int {
	w := m.Params[n.Param(Weight)]
	if !n.Op.HasWeight() || w == nil {
		return 0
	}
	return n.Shape.Size() / n.Shape.Channels() * w.Shape.Size() // positions times one position's products
}
