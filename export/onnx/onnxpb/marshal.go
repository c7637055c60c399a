package onnxpb

// Marshal writes the model; equal models give equal bytes.
func Marshal(m *Model) []byte {
	var e encoder
	e.int(1, m.IRVersion)
	e.str(2, m.ProducerName)
	e.str(3, m.ProducerVersion)
	e.str(4, m.Domain)
	e.int(5, m.ModelVersion)
	e.str(6, m.Doc)
	if m.Graph != nil {
		e.embed(7, m.Graph.encode)
	}
	for _, o := range m.Opsets {
		e.embed(8, func(e *encoder) {
			if o.emptyDomain {
				e.elem(1, "")
			} else {
				e.str(1, o.Domain)
			}
			e.int(2, o.Version)
			e.b = append(e.b, o.unknown...)
		})
	}
	for _, p := range m.Metadata {
		e.embed(14, func(e *encoder) {
			e.str(1, p.Key)
			e.str(2, p.Value)
			e.b = append(e.b, p.unknown...)
		})
	}
	return append(e.b, m.unknown...)
}

func (g *Graph) encode(e *encoder) {
	for _, n := range g.Nodes {
		e.embed(1, n.encode)
	}
	e.str(2, g.Name)
	for _, t := range g.Initializers {
		e.embed(5, t.encode)
	}
	e.str(10, g.Doc)
	for _, v := range g.Inputs {
		e.embed(11, v.encode)
	}
	for _, v := range g.Outputs {
		e.embed(12, v.encode)
	}
	for _, v := range g.ValueInfos {
		e.embed(13, v.encode)
	}
	e.b = append(e.b, g.unknown...)
}

func (n *Node) encode(e *encoder) {
	for _, s := range n.Inputs {
		e.elem(1, s)
	}
	for _, s := range n.Outputs {
		e.elem(2, s)
	}
	e.str(3, n.Name)
	e.str(4, n.Op)
	for _, a := range n.Attrs {
		e.embed(5, a.encode)
	}
	e.str(6, n.Doc)
	e.str(7, n.Domain)
	e.b = append(e.b, n.unknown...)
}

func (a *Attribute) encode(e *encoder) {
	e.str(1, a.Name)
	if a.Type == AttrFloat || a.Float != 0 {
		e.fixed32(2, a.Float)
	}
	if a.Type == AttrInt || a.Int != 0 {
		e.present(3, a.Int)
	}
	if a.Type == AttrString || len(a.Bytes) > 0 {
		e.bytes(4, a.Bytes)
	}
	if a.Tensor != nil {
		e.embed(5, a.Tensor.encode)
	}
	if a.Graph != nil {
		e.embed(6, a.Graph.encode)
	}
	for _, v := range a.Floats {
		e.fixed32(7, v)
	}
	unpacked(e, 8, a.Ints)
	for _, s := range a.Strings {
		e.bytes(9, s)
	}
	for _, t := range a.Tensors {
		e.embed(10, t.encode)
	}
	for _, g := range a.Graphs {
		e.embed(11, g.encode)
	}
	e.str(13, a.Doc)
	e.int(20, int64(a.Type))
	e.b = append(e.b, a.unknown...)
}

func (v *ValueInfo) encode(e *encoder) {
	e.str(1, v.Name)
	if v.Type != nil {
		e.embed(2, v.Type.encode)
	}
	e.str(3, v.Doc)
	e.b = append(e.b, v.unknown...)
}

func (t *Type) encode(e *encoder) {
	if t.tensor || t.Elem != Undefined || t.Shape != nil {
		e.embed(1, func(e *encoder) {
			e.int(1, int64(t.Elem))
			if t.Shape != nil {
				e.embed(2, t.Shape.encode)
			}
			e.b = append(e.b, t.unknownTensor...)
		})
	}
	e.b = append(e.b, t.unknown...)
}

func (s *Shape) encode(e *encoder) {
	for _, d := range s.Dims {
		e.embed(1, func(e *encoder) {
			if d.HasValue {
				e.present(1, d.Value)
			}
			e.str(2, d.Param)
			e.b = append(e.b, d.unknown...)
		})
	}
	e.b = append(e.b, s.unknown...)
}

func (t *Tensor) encode(e *encoder) {
	unpacked(e, 1, t.Dims)
	e.int(2, int64(t.Type))
	e.floats(4, t.Floats)
	packed(e, 5, t.Int32s)
	for _, s := range t.Strings {
		e.bytes(6, s)
	}
	packed(e, 7, t.Int64s)
	e.str(8, t.Name)
	if t.hasRaw || len(t.Raw) > 0 {
		e.bytes(9, t.Raw)
	}
	e.doubles(10, t.Doubles)
	packed(e, 11, t.Uint64s)
	e.str(12, t.Doc)
	if t.External {
		e.int(14, 1)
	}
	e.b = append(e.b, t.unknown...)
}
