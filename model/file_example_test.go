package model_test

import (
	"bytes"
	"fmt"
	"log"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// A frozen model goes to a file and comes back the same; a file with one bit changed is refused.
func ExampleEncode() {
	m := model.New("parity", model.Input{Name: "x", Shape: model.Shape{4}, Scale: 1})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: 2}})
	m, err := model.Shapes(m)
	if err != nil {
		log.Fatal(err)
	}
	copy(m.Params["fc.weight"].Data, []float32{1, -1, 1, -1, 0, 0, -1, 1})
	for _, pass := range []func(*model.Model) (*model.Model, error){
		func(m *model.Model) (*model.Model, error) {
			return model.Place(m, model.DefaultQuant(quant.Precision{Weight: quant.Int2, Act: quant.Int8}))
		},
		model.Freeze,
	} {
		if m, err = pass(m); err != nil {
			log.Fatal(err)
		}
	}
	var file bytes.Buffer
	if err := model.Encode(&file, m); err != nil {
		log.Fatal(err)
	}
	got, err := model.Decode(file.Bytes())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(got.Params["fc.weight"].Codes)
	file.Bytes()[100] ^= 1
	_, err = model.Decode(file.Bytes())
	fmt.Println(err)
	// Output:
	// [1 -1 1 -1 0 0 -1 1]
	// model file is damaged: its checksum does not fit; copy or download it again
}
