package quant_test

import (
	"fmt"

	"github.com/narrow-ml/narrow/quant"
)

// Quantize activations to 4 bits: choose a scale for the range, code, and look at what the codes mean.
func Example() {
	spec := quant.ActSpec(quant.Int4)
	scale, zero := spec.Choose(-1, 2)
	p := &quant.Params{Spec: spec, Scale: []float32{scale}, Zero: []int32{zero}}

	x := []float32{-1, -0.3, 0, 0.95, 2, 100}
	codes := make([]uint8, len(x))
	if err := quant.Quantize(codes, x, p); err != nil {
		fmt.Println(err)
		return
	}
	y := make([]float32, len(x))
	if err := quant.Dequantize(y, codes, p); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(scale, zero)
	fmt.Println(codes)
	fmt.Printf("%.1f\n", y)
	// Output:
	// 0.2 5
	// [0 3 5 10 15 15]
	// [-1.0 -0.4 0.0 1.0 2.0 2.0]
}

func ExampleFakeQuantize() {
	p := &quant.Params{Spec: quant.WeightSpec(quant.Int2), Scale: []float32{0.5, 0.25}, Zero: []int32{0, 0}}
	x := []float32{0.6, 0.1, -0.2, -0.9} // two rows of two channels
	y, pass := make([]float32, 4), make([]bool, 4)
	if err := quant.FakeQuantize(y, x, p, pass); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(y)
	fmt.Println(pass) // the gradient of a saturated value is stopped
	// Output:
	// [0.5 0 0 -0.25]
	// [true true true false]
}

func ExampleSpec_Choose() {
	for _, s := range []quant.Spec{quant.WeightSpec(quant.Int8), quant.ActSpec(quant.Int8)} {
		scale, zero := s.Choose(-0.5, 1.5)
		fmt.Printf("%s: scale %.5f, zero point %d\n", s, scale, zero)
	}
	// Output:
	// int8 symmetric/channel/minmax: scale 0.01181, zero point 0
	// int8 affine/tensor/envelope: scale 0.00784, zero point 64
}

func ExampleRequant() {
	r := quant.Requant{M: []float32{quant.Multiplier(0.5, 0.25, 1)}, Zero: 10, Lo: 10, Hi: 255} // a fused ReLU: Lo is Zero
	for _, acc := range []int32{-80, 4, 12, 80, 1 << 20} {
		fmt.Print(r.Code(acc, 0), " ")
	}
	// Output: 10 10 12 20 255
}

func ExampleParsePrecision() {
	for _, name := range []string{"w4a8", "w8a8", "fp16", "mxfp4"} {
		p, err := quant.ParsePrecision(name)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(p, "weights", p.Weight, "activations", p.Act)
	}
	// Output:
	// w4a8 weights int4 activations int8
	// int8 weights int8 activations int8
	// fp16 weights fp16 activations fp16
	// precision "mxfp4" is not supported by this version: use w4a8
}

func ExampleRound16() {
	y := make([]float32, 2)
	fmt.Println(quant.Round16(y, []float32{1.0004, 3e-8}, quant.FP16), y)
	fmt.Println(quant.Round16(y, []float32{1, 70000}, quant.FP16))
	// Output:
	// <nil> [1 5.9604645e-08]
	// value[1] = 70000 overflows fp16; keep this layer in fp32 or bf16, or scale its inputs
}

// A learned range: an optimizer moves the numbers, and scale and zero point follow.
func ExampleParams_Settle() {
	spec := quant.ActSpec(quant.Int4)
	spec.Range = quant.LSQPlus
	p := &quant.Params{Spec: spec, Scale: []float32{0.1}, Zero: []int32{3}} // as calibrated
	p.Start()
	p.Numbers(quant.LearnedScale)[0] = 0.125
	p.Numbers(quant.LearnedOffset)[0] -= 0.75
	p.Settle()
	fmt.Println(p.Scale[0], p.Zero[0], p.Learned[0])
	// Output: 0.125 2 2.25
}
