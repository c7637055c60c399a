package onnxpb_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
	"github.com/x448/float16"
)

// The binary16 codec (numerics D16) against x448/float16, whose rounding its authors checked on all 2^32 inputs.
func TestFloat16Codec(t *testing.T) {
	for i := 0; i < 1<<16; i++ {
		h := uint16(i)
		got, want := onnxpb.Float16ToFloat32(h), float16.Frombits(h).Float32()
		if math.Float32bits(got) != math.Float32bits(want) && !(got != got && want != want) {
			t.Fatalf("Float16ToFloat32(%#04x) = %v, want %v", h, got, want)
		}
	}
	check := func(x float32) {
		got, want := onnxpb.Float16FromFloat32(x), float16.Fromfloat32(x)
		if got != want.Bits() && !(want.IsNaN() && math.IsNaN(float64(onnxpb.Float16ToFloat32(got)))) {
			t.Fatalf("Float16FromFloat32(%v = %#08x) = %#04x, want %#04x", x, math.Float32bits(x), got, want.Bits())
		}
	}
	// Every upper half with the lower halves where rounding turns.
	for hi := uint32(0); hi < 1<<16; hi++ {
		for _, lo := range []uint32{0, 1, 0x0fff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001, 0xffff} {
			check(math.Float32frombits(hi<<16 | lo))
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 1 << 20 {
		check(math.Float32frombits(rng.Uint32()))
	}
}

func TestBFloat16Codec(t *testing.T) {
	for _, c := range []struct {
		x    float32
		want uint16
	}{
		{0, 0}, {1, 0x3f80}, {-1, 0xbf80}, {float32(math.Inf(1)), 0x7f80},
		{math.Float32frombits(0x3f808000), 0x3f80}, // tie, even below
		{math.Float32frombits(0x3f818000), 0x3f82}, // tie, even above
		{math.Float32frombits(0x3f808001), 0x3f81},
		{math.MaxFloat32, 0x7f80},
	} {
		if got := onnxpb.BFloat16FromFloat32(c.x); got != c.want {
			t.Errorf("BFloat16FromFloat32(%v) = %#04x, want %#04x", c.x, got, c.want)
		}
	}
	if h := onnxpb.BFloat16FromFloat32(math.Float32frombits(0x7f800001)); !math.IsNaN(float64(onnxpb.BFloat16ToFloat32(h))) {
		t.Errorf("a signalling NaN became %#04x", h)
	}
}

// Numerics D19: the even element in the low nibble, two's complement, the odd tail padded with zero.
func TestSubBytePacking(t *testing.T) {
	for _, c := range []struct {
		typ  onnxpb.DataType
		v    []int64
		want []byte
	}{
		{onnxpb.Int4, []int64{1, -1, -8}, []byte{0xf1, 0x08}},
		{onnxpb.Uint4, []int64{15, 0, 3, 7}, []byte{0x0f, 0x73}},
		{onnxpb.Int2, []int64{1, -1, -2, 0, 1}, []byte{0b00_10_11_01, 0b01}},
		{onnxpb.Uint2, []int64{3, 2, 1}, []byte{0b01_10_11}},
	} {
		in, err := onnxpb.IntTensor("w", c.typ, []int64{int64(len(c.v))}, c.v)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(in.Raw, c.want) {
			t.Errorf("%v %v packs to %x, want %x", c.typ, c.v, in.Raw, c.want)
		}
		back, err := in.Ints()
		if err != nil || !reflect.DeepEqual(back, c.v) {
			t.Errorf("%v %v unpacks to %v (%v)", c.typ, c.v, back, err)
		}
	}
}

func TestTensorElements(t *testing.T) {
	for _, typ := range []onnxpb.DataType{onnxpb.Uint8, onnxpb.Int8, onnxpb.Uint16, onnxpb.Int16, onnxpb.Int32, onnxpb.Uint32} {
		lo, hi, _ := typ.IntRange()
		want := []int64{lo, hi, 0, 1}
		in, err := onnxpb.IntTensor("v", typ, []int64{2, 2}, want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := in.Ints(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v: raw %v came back as %v (%v)", typ, want, got, err)
		}
		if _, err := onnxpb.IntTensor("v", typ, []int64{1}, []int64{hi + 1}); !errors.Is(err, onnxpb.ErrTensor) {
			t.Errorf("%v: %d was accepted (%v)", typ, hi+1, err)
		}
	}
	for _, typ := range []onnxpb.DataType{onnxpb.Float, onnxpb.Float16, onnxpb.BFloat16} {
		in, err := onnxpb.FloatTensor("v", typ, []int64{3}, []float32{-1.5, 0, 2})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := in.Reals(); err != nil || !reflect.DeepEqual(got, []float64{-1.5, 0, 2}) {
			t.Errorf("%v came back as %v (%v)", typ, got, err)
		}
	}
}

// A tensor whose dims, type and data disagree is an error, whatever the dims claim.
func TestTensorRefused(t *testing.T) {
	for name, in := range map[string]*onnxpb.Tensor{
		"raw too short":    {Type: onnxpb.Float, Dims: []int64{2}, Raw: make([]byte, 4)},
		"raw too long":     {Type: onnxpb.Int4, Dims: []int64{3}, Raw: make([]byte, 3)},
		"typed too short":  {Type: onnxpb.Int8, Dims: []int64{2}, Int32s: []int32{1}},
		"typed range":      {Type: onnxpb.Uint8, Dims: []int64{1}, Int32s: []int32{300}},
		"raw and typed":    {Type: onnxpb.Int8, Dims: []int64{1}, Int32s: []int32{1}, Raw: []byte{1}},
		"negative dim":     {Type: onnxpb.Int8, Dims: []int64{-1}},
		"enormous dims":    {Type: onnxpb.Int8, Dims: []int64{1 << 40, 1 << 40}},
		"huge claim":       {Type: onnxpb.Int64, Dims: []int64{1 << 30}},
		"external":         {Type: onnxpb.Int8, Dims: []int64{1}, External: true},
		"string":           {Type: onnxpb.String, Dims: []int64{1}, Strings: [][]byte{{1}}},
		"uint64 too large": {Type: onnxpb.Uint64, Dims: []int64{1}, Uint64s: []uint64{1 << 63}},
	} {
		if v, err := in.Ints(); !errors.Is(err, onnxpb.ErrTensor) {
			if in.Type != onnxpb.Float {
				t.Errorf("%s: Ints gave %v, %v", name, v, err)
			}
		}
		if v, err := in.Reals(); !errors.Is(err, onnxpb.ErrTensor) {
			t.Errorf("%s: Reals gave %v, %v", name, v, err)
		}
	}
}
