package model

// Fuse merges batch norm and ReLU into the conv or dense layer they follow, and ReLU into an addition. The merged node carries the name of the last
// node of its group, so downstream names do not change. A tensor with other readers, or that is an output, is not merged
// away. Fusing decides where quantizers go, not how a graph computes.
func Fuse(m *Model) (*Model, error) {
	if err := m.shaped(); err != nil {
		return nil, err
	}
	out := m.with(nil)
	merged := map[string]bool{}
	for i := range m.Nodes {
		if merged[m.Nodes[i].Name] {
			continue
		}
		n := m.Nodes[i]
		for n.Op.HasWeight() || n.Op == Add {
			next := m.only(n.Name)
			if next == nil {
				break
			}
			switch {
			case next.Op == BatchNorm && n.Op.HasWeight() && next.Layer == n.Layer && !n.Attr.Norm && !n.Attr.Relu:
				n.Attr.Norm, n.Attr.Whole, n.Attr.Eps, n.Attr.Momentum = true, next.Attr.Whole, next.Attr.Eps, next.Attr.Momentum
			case next.Op == ReLU && !n.Attr.Relu:
				n.Attr.Relu, n.Attr.Cap = true, next.Attr.Cap
			default:
				next = nil
			}
			if next == nil {
				break
			}
			n.Name, n.Shape = next.Name, next.Shape
			merged[next.Name] = true
		}
		if n.Op == BatchNorm {
			return nil, n.errorf("batch norm is supported right after conv or dense; write it as `norm: batch` of that layer")
		}
		out.Nodes = append(out.Nodes, n)
	}
	return out, nil
}

// only is the single reader of a tensor that nothing else needs; nil otherwise.
func (m *Model) only(name string) *Node {
	readers := m.Readers(name)
	if len(readers) != 1 || m.IsOutput(name) {
		return nil
	}
	return readers[0]
}
