package datasets_test

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"strings"

	"github.com/narrow-ml/narrow/datasets"
)

func ExampleLoad() {
	d, err := datasets.Load(context.Background(), "digits", datasets.Options{ValFraction: 0.1, Seed: 7})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(d.Train.Len(), d.Val.Len(), d.Test.Len(), d.Train.Shape, d.Source)
	fmt.Printf("value = %g * (code - %d), codes 0..%d\n", d.Scale, d.Zero, d.MaxCode)
	// Output:
	// 3441 382 1797 [8 8 1] embedded
	// value = 0.0625 * (code - 0), codes 0..16
}

func ExampleSet_Batches() {
	d, err := datasets.Load(context.Background(), "digits", datasets.Options{Limit: 10})
	if err != nil {
		fmt.Println(err)
		return
	}
	opt := datasets.BatchOptions{Size: 4, Seed: 7, Epoch: 0, Shuffle: true, Prefetch: 2}
	for b, err := range d.Train.Batches(context.Background(), opt) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(b.N, b.Index, b.Labels)
	}
	// Output:
	// 4 [8 6 1 0] [0 5 0 0]
	// 4 [4 9 3 7] [6 8 4 5]
	// 2 [2 5] [7 2]
}

func ExampleSet_Row() {
	d, err := datasets.Load(context.Background(), "digits", datasets.Options{Limit: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	for y := range 8 {
		fmt.Print("|")
		for _, q := range d.Test.Row(0)[8*y : 8*y+8] {
			fmt.Print(string(" .:-=+*#%@"[int(q)*9/16]))
		}
		fmt.Println("|")
	}
	fmt.Println("label", d.Classes[d.Test.Labels[0]])
	// Output:
	// |  :#+   |
	// |  #%+%: |
	// | .%. *= |
	// | :*  == |
	// | :=  += |
	// | :*  *- |
	// | .#:+*  |
	// |  -#+   |
	// label 0
}

func ExampleNames() {
	fmt.Println(datasets.Names())
	// Output: [digits mnist fashion-mnist cifar10]
}

func ExampleList() {
	for _, info := range datasets.List() {
		if info.Where == "embedded" { // the others depend on this machine
			fmt.Printf("%s: %d + %d examples, %d bytes, %s\n", info.Name, info.Train, info.Test, info.Bytes, info.Licence)
		}
	}
	// Output: digits: 3823 + 1797 examples, 365300 bytes, CC BY 4.0 (UCI Machine Learning Repository, doi:10.24432/C50P49)
}

func ExampleParseRow() {
	codes, err := datasets.ParseRow(strings.Split("0,3,16,1", ","), []int{2, 2, 1}, 16)
	fmt.Println(codes, err)
	_, err = datasets.ParseRow(strings.Split("0,3,17,1", ","), []int{2, 2, 1}, 16)
	fmt.Println(err)
	// Output:
	// [0 3 16 1] <nil>
	// column 3: "17" is not a whole number from 0 to 16
}

func ExampleDecodeImage() {
	// A 4x4 picture, white on the left, becomes 2x2 codes.
	img := image.NewGray(image.Rect(0, 0, 4, 4))
	for y := range 4 {
		img.SetGray(0, y, color.Gray{Y: 255})
		img.SetGray(1, y, color.Gray{Y: 255})
	}
	var file bytes.Buffer
	if err := png.Encode(&file, img); err != nil {
		fmt.Println(err)
		return
	}
	codes, err := datasets.DecodeImage(&file, []int{2, 2, 1})
	fmt.Println(codes, err)
	// Output: [255 0 255 0] <nil>
}
