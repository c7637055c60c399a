package export_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/export"
	"github.com/narrow-ml/narrow/export/safetensors"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// oddLayer is a frozen dense layer of 35 weights: in every width below 8 its last byte is not full.
func oddLayer(t *testing.T, p quant.Precision) *model.Model {
	t.Helper()
	m := model.New("odd", model.Input{Name: "x", Shape: model.Shape{7}, Scale: 0.5, Zero: 3})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: 5, Bias: true}})
	m, err := model.Shapes(m)
	if err != nil {
		t.Fatal(err)
	}
	w := m.Params["fc.weight"].Data
	for i := range w {
		w[i] = float32((i*29)%37)/18 - 1
	}
	for _, pass := range []func(*model.Model) (*model.Model, error){
		func(m *model.Model) (*model.Model, error) { return model.Place(m, model.DefaultQuant(p)) }, model.Share, model.Freeze,
	} {
		if m, err = pass(m); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// TestTensorsPacked reads packed codes back, and finds as many bits in the file as the format has.
func TestTensorsPacked(t *testing.T) {
	for f := quant.Int2; f <= quant.Int8; f++ {
		t.Run(f.String(), func(t *testing.T) {
			m := oddLayer(t, quant.Precision{Weight: f, Act: quant.Int8})
			var file bytes.Buffer
			if err := export.WriteTensors(&file, m); err != nil {
				t.Fatal(err)
			}
			tensors, meta, err := safetensors.Read(file.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			codes, shape, err := export.ReadCodes(tensors, meta, "fc.weight")
			if err != nil {
				t.Fatal(err)
			}
			if want := m.Params["fc.weight"]; !slices.Equal(codes, want.Codes) || !slices.Equal(shape, []int(want.Shape)) {
				t.Errorf("%v %v, want %v %v", shape, codes, want.Shape, want.Codes)
			}
			for _, s := range tensors {
				if want := model.PackedBytes(35, f); s.Name == "fc.weight" && len(s.Data) != want {
					t.Errorf("%d bytes, want %d", len(s.Data), want)
				}
			}
			if _, _, err := export.ReadCodes(tensors, meta, "fc.bias"); err == nil {
				t.Error("a bias was read as weight codes")
			}
			meta["narrow.packed"] = `{"fc.weight":{"type":"s3","shape":[7,6]}}`
			if _, _, err := export.ReadCodes(tensors, meta, "fc.weight"); f != quant.Int8 && err == nil {
				t.Error("a shape that does not fit the bytes was accepted")
			}
		})
	}
}

// TestTensorsNibbles: 4-bit codes lie as in ONNX int4, low nibble first, the odd tail padded with 0 (D19).
func TestTensorsNibbles(t *testing.T) {
	m := oddLayer(t, quant.Precision{Weight: quant.Int4, Act: quant.Int8})
	_, data := m.Packed("fc.weight")
	codes := append(slices.Clone(m.Params["fc.weight"].Codes), 0)
	for i, b := range data {
		if want := uint8(codes[2*i])&15 | uint8(codes[2*i+1])<<4; b != want {
			t.Errorf("byte %d is %02x, want %02x", i, b, want)
		}
	}
	if m, err := model.Unpack("s4", 35, data[:17]); err == nil {
		t.Errorf("cut data gave %v", m)
	}
}

func TestWriteTensorsNeedsFrozen(t *testing.T) {
	if err := export.WriteTensors(&bytes.Buffer{}, model.New("m", model.Input{})); err == nil {
		t.Error("a float model was written")
	}
}
