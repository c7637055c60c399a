package safetensors_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/export/safetensors"
)

func sample() []safetensors.Tensor {
	return []safetensors.Tensor{
		safetensors.Float32("b.weight", []int{2, 2}, []float32{1, -2, float32(math.Inf(1)), 0.1}),
		{Name: "a", DType: safetensors.I8, Shape: []int{3}, Data: []byte{1, 255, 3}},
		{Name: "empty", DType: safetensors.F32, Shape: []int{0, 4}},
		safetensors.Int32("z", nil, []int32{-7}),
	}
}

func TestRoundTrip(t *testing.T) {
	var first, second bytes.Buffer
	meta := map[string]string{"step": "12", "phase": "qat"}
	if err := safetensors.Write(&first, sample(), meta); err != nil {
		t.Fatal(err)
	}
	got, gotMeta, err := safetensors.Read(first.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(meta, gotMeta) {
		t.Errorf("metadata %v, want %v", gotMeta, meta)
	}
	var names []string
	for _, x := range got {
		names = append(names, x.Name)
	}
	if s := strings.Join(names, " "); s != "a b.weight empty z" {
		t.Errorf("order %q", s)
	}
	values := make([]float32, 4)
	if err := got[1].Float32s(values); err != nil || values[1] != -2 || values[3] != 0.1 {
		t.Errorf("values %v, %v", values, err)
	}
	if err := got[0].Float32s(values); err == nil {
		t.Error("an I8 tensor was read as F32")
	}
	if err := safetensors.Write(&second, got, meta); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("writing what was read gave other bytes")
	}
}

func TestWriteRefuses(t *testing.T) {
	for want, tensors := range map[string][]safetensors.Tensor{
		"used twice": {{Name: "a", DType: "U8", Shape: []int{0}}, {Name: "a", DType: "U8", Shape: []int{0}}},
		"reserved":   {{Name: "__metadata__", DType: "U8", Shape: []int{0}}},
		"unknown":    {{Name: "a", DType: "Q4", Shape: []int{0}}},
		"takes 4":    {{Name: "a", DType: "F32", Shape: []int{1}, Data: []byte{1}}},
		"range":      {{Name: "a", DType: "F32", Shape: []int{math.MaxInt, 3}}},
	} {
		err := safetensors.Write(&bytes.Buffer{}, tensors, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}

func file(header string, body ...byte) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(out, header...), body...)
}

func TestReadRefuses(t *testing.T) {
	for want, data := range map[string][]byte{
		"too short":      {1, 2, 3},
		"exceeds":        binary.LittleEndian.AppendUint64(nil, 1<<40),
		"header":         file("{"),
		"offsets 0..4":   file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 1, 2),
		"starts at 1":    file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 1, 2),
		"ends at 1":      file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
		"2 bytes follow": file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1, 2, 3),
		"unknown field":  file(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1}}`),
		"out of range":   file(`{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,0]}}`),
		"metadata":       file(`{"__metadata__":3}`),
	} {
		_, _, err := safetensors.Read(data)
		if !errors.Is(err, safetensors.ErrFormat) || !strings.Contains(err.Error(), want) {
			t.Errorf("want ErrFormat with %q, got %v", want, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	if err := safetensors.Write(&b, sample(), map[string]string{"k": "v"}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		tensors, meta, err := safetensors.Read(data)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := safetensors.Write(&out, tensors, meta); err != nil {
			t.Fatalf("cannot write what was read: %v", err)
		}
	})
}

func ExampleWrite() {
	var b bytes.Buffer
	err := safetensors.Write(&b, []safetensors.Tensor{safetensors.Float32("w", []int{2}, []float32{1, 2})}, nil)
	fmt.Println(err, string(b.Bytes()[8:b.Len()-8]))
	// Output: <nil> {"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}
}
