package onnxpb_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// Malformed files are errors that wrap ErrFormat.
func TestUnmarshalRefuses(t *testing.T) {
	nested := []byte{}
	for range 40 { // attribute { g: graph { node { attribute ...
		attr := protowire.AppendBytes(protowire.AppendTag(nil, 6, protowire.BytesType), nested)
		node := protowire.AppendBytes(protowire.AppendTag(nil, 5, protowire.BytesType), attr)
		nested = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), node)
	}
	for name, b := range map[string][]byte{
		"cut tag":           {0x80},
		"cut varint":        {0x08, 0xff},
		"length beyond end": {0x3a, 0x7f, 0x00},
		"group":             {0x3b},
		"ir as string":      {0x0a, 0x01, 'x'},
		"graph as varint":   {0x38, 0x01},
		"two graphs":        {0x3a, 0x00, 0x3a, 0x00},
		"deep nesting":      protowire.AppendBytes(protowire.AppendTag(nil, 7, protowire.BytesType), nested),
		"odd packed floats": {0x3a, 0x05, 0x2a, 0x03, 0x22, 0x01, 0x00},
	} {
		if m, err := onnxpb.Unmarshal(b); !errors.Is(err, onnxpb.ErrFormat) {
			t.Errorf("%s: got %+v, %v", name, m, err)
		}
	}
}

// Whatever the bytes, reading does not panic, and what was read is written to a fixed point.
func FuzzUnmarshal(f *testing.F) {
	w, err := onnxpb.IntTensor("w", onnxpb.Int4, []int64{3}, []int64{1, -2, 3})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(onnxpb.Marshal(&onnxpb.Model{IRVersion: 8, Opsets: []onnxpb.Opset{{Version: 17}}, Graph: &onnxpb.Graph{
		Name:         "g",
		Nodes:        []*onnxpb.Node{{Op: "Relu", Inputs: []string{"x"}, Outputs: []string{"y"}, Attrs: []*onnxpb.Attribute{onnxpb.IntsAttr("axes", 1, 2)}}},
		Initializers: []*onnxpb.Tensor{w},
		Inputs:       []*onnxpb.ValueInfo{{Name: "x", Type: onnxpb.TensorType(onnxpb.Float, &onnxpb.Shape{Dims: []onnxpb.Dim{onnxpb.SymbolicDim("N")}})}},
	}}))
	f.Add([]byte{0x08, 0x08, 0xa0, 0x06, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := onnxpb.Unmarshal(b)
		if err != nil {
			return
		}
		once := onnxpb.Marshal(m)
		again, err := onnxpb.Unmarshal(once)
		if err != nil {
			t.Fatalf("what Marshal wrote is refused: %v", err)
		}
		if twice := onnxpb.Marshal(again); !bytes.Equal(once, twice) {
			t.Fatalf("not a fixed point:\n%x\n%x", once, twice)
		}
		if m.Graph == nil {
			return
		}
		for _, in := range m.Graph.Initializers {
			if n, err := in.Len(); err == nil && n > 1<<16 {
				continue
			}
			_, _ = in.Ints()
			_, _ = in.Reals()
		}
	})
}
