package onnxpb

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Unmarshal reads a ModelProto. Errors wrap ErrFormat and name the path of messages that leads to the fault.
func Unmarshal(b []byte) (*Model, error) {
	m := &Model{}
	err := fields(b, "model", func(f field) error {
		switch f.num {
		case 1:
			return f.int64(&m.IRVersion)
		case 2:
			return f.str(&m.ProducerName)
		case 3:
			return f.str(&m.ProducerVersion)
		case 4:
			return f.str(&m.Domain)
		case 5:
			return f.int64(&m.ModelVersion)
		case 6:
			return f.str(&m.Doc)
		case 7:
			if m.Graph != nil {
				return fmt.Errorf("%w: two graphs", ErrFormat)
			}
			g, err := message(f, func(b []byte) (*Graph, error) { return readGraph(b, 0) })
			m.Graph = g
			return err
		case 8:
			o, err := message(f, readOpset)
			if err == nil {
				m.Opsets = append(m.Opsets, *o)
			}
			return err
		case 14:
			p, err := message(f, readProp)
			if err == nil {
				m.Metadata = append(m.Metadata, *p)
			}
			return err
		}
		m.unknown = append(m.unknown, f.all...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

func readOpset(b []byte) (*Opset, error) {
	o := &Opset{}
	err := fields(b, "opset", func(f field) error {
		switch f.num {
		case 1:
			o.emptyDomain = len(f.body) == 0
			return f.str(&o.Domain)
		case 2:
			return f.int64(&o.Version)
		}
		o.unknown = append(o.unknown, f.all...)
		return nil
	})
	return o, err
}

func readProp(b []byte) (*Prop, error) {
	p := &Prop{}
	err := fields(b, "metadata", func(f field) error {
		switch f.num {
		case 1:
			return f.str(&p.Key)
		case 2:
			return f.str(&p.Value)
		}
		p.unknown = append(p.unknown, f.all...)
		return nil
	})
	return p, err
}

func readGraph(b []byte, depth int) (*Graph, error) {
	if depth >= maxDepth {
		return nil, fmt.Errorf("%w: graphs nested deeper than %d", ErrFormat, maxDepth)
	}
	g := &Graph{}
	err := fields(b, "graph", func(f field) error {
		switch f.num {
		case 1:
			return list(f, &g.Nodes, func(b []byte) (*Node, error) { return readNode(b, depth) })
		case 2:
			return f.str(&g.Name)
		case 5:
			return list(f, &g.Initializers, readTensor)
		case 10:
			return f.str(&g.Doc)
		case 11:
			return list(f, &g.Inputs, readValueInfo)
		case 12:
			return list(f, &g.Outputs, readValueInfo)
		case 13:
			return list(f, &g.ValueInfos, readValueInfo)
		}
		g.unknown = append(g.unknown, f.all...)
		return nil
	})
	return g, err
}

func readNode(b []byte, depth int) (*Node, error) {
	n := &Node{}
	err := fields(b, "node", func(f field) error {
		var s string
		switch f.num {
		case 1:
			err := f.str(&s)
			n.Inputs = append(n.Inputs, s)
			return err
		case 2:
			err := f.str(&s)
			n.Outputs = append(n.Outputs, s)
			return err
		case 3:
			return f.str(&n.Name)
		case 4:
			return f.str(&n.Op)
		case 5:
			return list(f, &n.Attrs, func(b []byte) (*Attribute, error) { return readAttribute(b, depth) })
		case 6:
			return f.str(&n.Doc)
		case 7:
			return f.str(&n.Domain)
		}
		n.unknown = append(n.unknown, f.all...)
		return nil
	})
	return n, err
}

func readAttribute(b []byte, depth int) (*Attribute, error) {
	a := &Attribute{}
	graph := func(b []byte) (*Graph, error) { return readGraph(b, depth+1) }
	err := fields(b, "attribute", func(f field) (err error) {
		switch f.num {
		case 1:
			return f.str(&a.Name)
		case 2:
			return f.float(&a.Float)
		case 3:
			return f.int64(&a.Int)
		case 4:
			return f.bytes(&a.Bytes)
		case 5:
			a.Tensor, err = message(f, readTensor)
			return err
		case 6:
			a.Graph, err = message(f, graph)
			return err
		case 7:
			return f.floats(&a.Floats)
		case 8:
			return varints(f, &a.Ints)
		case 9:
			var s []byte
			err = f.bytes(&s)
			a.Strings = append(a.Strings, s)
			return err
		case 10:
			return list(f, &a.Tensors, readTensor)
		case 11:
			return list(f, &a.Graphs, graph)
		case 13:
			return f.str(&a.Doc)
		case 20:
			return f.enum((*int32)(&a.Type))
		}
		a.unknown = append(a.unknown, f.all...)
		return nil
	})
	return a, err
}

func readValueInfo(b []byte) (*ValueInfo, error) {
	v := &ValueInfo{}
	err := fields(b, "value info", func(f field) (err error) {
		switch f.num {
		case 1:
			return f.str(&v.Name)
		case 2:
			v.Type, err = message(f, readType)
			return err
		case 3:
			return f.str(&v.Doc)
		}
		v.unknown = append(v.unknown, f.all...)
		return nil
	})
	return v, err
}

func readType(b []byte) (*Type, error) {
	t := &Type{}
	err := fields(b, "type", func(f field) error {
		if f.num != 1 {
			t.unknown = append(t.unknown, f.all...)
			return nil
		}
		if err := f.want(protowire.BytesType); err != nil {
			return err
		}
		t.tensor = true
		return fields(f.body, "tensor type", func(f field) (err error) {
			switch f.num {
			case 1:
				return f.enum((*int32)(&t.Elem))
			case 2:
				t.Shape, err = message(f, readShape)
				return err
			}
			t.unknownTensor = append(t.unknownTensor, f.all...)
			return nil
		})
	})
	return t, err
}

func readShape(b []byte) (*Shape, error) {
	s := &Shape{}
	err := fields(b, "shape", func(f field) error {
		if f.num != 1 {
			s.unknown = append(s.unknown, f.all...)
			return nil
		}
		d, err := message(f, readDim)
		if err == nil {
			s.Dims = append(s.Dims, *d)
		}
		return err
	})
	return s, err
}

func readDim(b []byte) (*Dim, error) {
	d := &Dim{}
	err := fields(b, "dim", func(f field) error {
		switch f.num {
		case 1:
			d.HasValue = true
			return f.int64(&d.Value)
		case 2:
			return f.str(&d.Param)
		}
		d.unknown = append(d.unknown, f.all...)
		return nil
	})
	return d, err
}

func readTensor(b []byte) (*Tensor, error) {
	t := &Tensor{}
	err := fields(b, "tensor", func(f field) error {
		switch f.num {
		case 1:
			return varints(f, &t.Dims)
		case 2:
			return f.enum((*int32)(&t.Type))
		case 4:
			return f.floats(&t.Floats)
		case 5:
			return varints(f, &t.Int32s)
		case 6:
			var s []byte
			err := f.bytes(&s)
			t.Strings = append(t.Strings, s)
			return err
		case 7:
			return varints(f, &t.Int64s)
		case 8:
			return f.str(&t.Name)
		case 9:
			t.hasRaw = true
			return f.bytes(&t.Raw)
		case 10:
			return f.doubles(&t.Doubles)
		case 11:
			return varints(f, &t.Uint64s)
		case 12:
			return f.str(&t.Doc)
		case 14:
			var where int32
			err := f.enum(&where)
			t.External = where == 1
			return err
		}
		t.unknown = append(t.unknown, f.all...)
		return nil
	})
	if err != nil && t.Name != "" {
		return t, fmt.Errorf("%q: %w", t.Name, err)
	}
	return t, err
}
