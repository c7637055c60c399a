package model_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

var update = flag.Bool("update", false, "write golden model files anew")

// precisions are those of the round-trip tests: every number format of weights at least once.
var precisions = []string{"fp32", "fp16", "bf16", "int8", "int7", "w6a8", "w5a5", "w4a8", "w4a4", "w3a5", "w2a4", "w1a8", "w8a16", "w3a16", "int16"}

// frozenNet is a small network with every operation: conv with batch norm and ReLU, grouped conv, pool, a ReLU of its
// own, flatten, dense with and without bias. Its masters and ranges are random but the same every time.
func frozenNet(t testing.TB, precision string) *model.Model {
	t.Helper()
	p, err := quant.ParsePrecision(precision)
	if err != nil {
		t.Fatal(err)
	}
	m := model.New("net", model.Input{Name: "image", Shape: model.Shape{7, 6, 3}, Scale: 1.0 / 255, Zero: 3, Labels: []string{"shirt", "T-shirt/top", `"né" & <b>`}})
	attr := model.Attr{Kernel: [2]int{3, 2}, Stride: [2]int{1, 1}, Pad: [4]int{1, 0, 1, 1}, Groups: 1, Units: 6}
	m.Append(model.Node{Name: "c1.conv", Layer: "c1", Op: model.Conv, Attr: attr, Origin: "net.yaml:3"})
	m.Append(model.Node{Name: "c1.norm", Layer: "c1", Op: model.BatchNorm, Attr: model.Attr{Eps: 1e-5, Momentum: 0.1}})
	m.Append(model.Node{Name: "c1", Layer: "c1", Op: model.ReLU})
	m.Append(model.Node{Name: "pool", Layer: "pool", Op: model.MaxPool, Attr: model.Attr{Kernel: [2]int{2, 2}, Stride: [2]int{2, 1}, Pad: [4]int{1, 0, 0, 1}}})
	attr = model.Attr{Kernel: [2]int{1, 3}, Stride: [2]int{2, 1}, Groups: 2, Units: 4, Bias: true}
	m.Append(model.Node{Name: "c2", Layer: "c2", Op: model.Conv, Attr: attr})
	m.Append(model.Node{Name: "flat", Layer: "flat", Op: model.Flatten})
	m.Append(model.Node{Name: "act", Layer: "act", Op: model.ReLU})
	m.Append(model.Node{Name: "fc1", Layer: "fc1", Op: model.Dense, Attr: model.Attr{Units: 5}})
	m.Append(model.Node{Name: "fc2", Layer: "fc2", Op: model.Dense, Attr: model.Attr{Units: 3, Bias: true}})
	step := func(f func(*model.Model) (*model.Model, error)) {
		if err == nil {
			m, err = f(m)
		}
	}
	step(model.Shapes)
	step(model.Fuse)
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, name := range m.ParamNames() {
		for i := range m.Params[name].Data {
			m.Params[name].Data[i] = float32(rnd.NormFloat64())
			if strings.HasSuffix(name, model.Var) {
				m.Params[name].Data[i] = 0.1 + rnd.Float32()
			}
		}
	}
	if precision != "fp32" { // fp32 stays a Float model and is frozen from there
		step(func(m *model.Model) (*model.Model, error) { return model.Place(m, model.DefaultQuant(p)) })
		step(model.Share)
		for _, name := range m.QuantNames() {
			q := m.Quant[name]
			if m.Node(name) != nil && q.Spec.Format.IsInteger() && !q.Ready() {
				s, z := q.Spec.Choose(-2*rnd.Float32(), 3*rnd.Float32())
				q.Scale, q.Zero = []float32{s}, []int32{z}
			}
		}
	}
	step(model.Freeze)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func encoded(t testing.TB, m *model.Model) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := model.Encode(&buf, m); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestRoundTrip(t *testing.T) {
	for _, precision := range precisions {
		t.Run(precision, func(t *testing.T) {
			m := frozenNet(t, precision)
			data := encoded(t, m)
			if again := encoded(t, frozenNet(t, precision)); !bytes.Equal(data, again) {
				t.Fatal("the same model gave other bytes")
			}
			got, err := model.Decode(data)
			if err != nil {
				t.Fatal(err)
			}
			for i := range m.Nodes {
				m.Nodes[i].Origin = "" // places in a config are not stored
			}
			if !reflect.DeepEqual(got, m) {
				t.Errorf("decoded model differs:\n got %+v\nwant %+v", got, m)
			}
			if !bytes.Equal(encoded(t, got), data) {
				t.Error("the decoded model encodes to other bytes")
			}
			if m.Quant["pool"] != nil && got.Quant["pool"] != got.Quant["c1"] {
				t.Error("tensors that shared a quantizer no longer do")
			}
		})
	}
}

// TestTrueWidth holds the promise that n-bit codes take n bits: two nets that differ in 1000 weights.
func TestTrueWidth(t *testing.T) {
	for _, precision := range []string{"int8", "w7a8", "w6a8", "w5a8", "w4a8", "w3a8", "w2a8", "w1a8"} {
		size := func(in int) int {
			m := frozenDense(t, precision, in, 8)
			return len(encoded(t, m))
		}
		p, _ := quant.ParsePrecision(precision)
		got := size(1160) - size(1032) // headers of equal length: 128*8 weights more
		if want := 128 * p.Weight.Bits(); got != want {
			t.Errorf("%s: 1024 more weights take %d bytes, want %d", precision, got, want)
		}
	}
}

func frozenDense(t testing.TB, precision string, in, out int) *model.Model {
	t.Helper()
	p, err := quant.ParsePrecision(precision)
	if err != nil {
		t.Fatal(err)
	}
	m := model.New("dense", model.Input{Name: "x", Shape: model.Shape{in}, Scale: 0.5, Zero: 128})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: out}})
	for _, pass := range []func(*model.Model) (*model.Model, error){
		model.Shapes, model.Fuse,
		func(m *model.Model) (*model.Model, error) { return model.Place(m, model.DefaultQuant(p)) },
		model.Share, model.Freeze,
	} {
		if m, err = pass(m); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// reseal makes the length and the checksum fit data again.
func reseal(data []byte) []byte {
	if len(data) < 24+sha256.Size {
		return data
	}
	binary.LittleEndian.PutUint64(data[16:], uint64(len(data)))
	sum := sha256.Sum256(data[:len(data)-sha256.Size])
	copy(data[len(data)-sha256.Size:], sum[:])
	return data
}

// withHeader replaces text in the header and reseals the file.
func withHeader(t testing.TB, data []byte, old, repl string) []byte {
	t.Helper()
	n := int(binary.LittleEndian.Uint32(data[12:]))
	pad := func(n int) int { return (n + 15) / 16 * 16 }
	text, blobs := string(data[24:24+n]), data[pad(24+n):]
	if !strings.Contains(text, old) {
		t.Fatalf("header has no %s:\n%s", old, text)
	}
	text = strings.Replace(text, old, repl, 1)
	out := append(bytes.Clone(data[:24]), text...)
	binary.LittleEndian.PutUint32(out[12:], uint32(len(text)))
	out = append(out, make([]byte, pad(len(out))-len(out))...)
	return reseal(append(out, blobs...))
}

func TestDecodeRefuses(t *testing.T) {
	good := encoded(t, frozenNet(t, "w4a8"))
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	header := func(old, repl string) []byte { return withHeader(t, good, old, repl) }
	tests := []struct {
		name string
		data []byte
		is   error
		want string
	}{
		{"empty", nil, model.ErrNotModelFile, "magic number"},
		{"text", []byte("version: 1\nname: a config, not a model\n"), model.ErrNotModelFile, "magic number"},
		{"version", edit(func(b []byte) []byte { b[8] = 2; return b }), model.ErrFileVersion, "version 2: this program reads version 1"},
		{"cut", good[:len(good)-1], model.ErrFileLength, "its prefix says"},
		{"cut in prefix", good[:20], model.ErrNotModelFile, ""},
		{"extra", append(bytes.Clone(good), 0), model.ErrFileLength, "its prefix says"},
		{"bit flip", edit(func(b []byte) []byte { b[len(b)/2] ^= 1; return b }), model.ErrChecksum, "copy or download"},
		{"checksum", edit(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), model.ErrChecksum, ""},
		{"huge header", edit(func(b []byte) []byte { b[14] = 0xff; return reseal(b) }), model.ErrFileLength, "header of"},
		{"file ends in header", edit(func(b []byte) []byte { return reseal(b[:100]) }), model.ErrFileLength, "header of"},
		{"blobs missing", edit(func(b []byte) []byte { return reseal(b[:len(b)-64]) }), model.ErrBadModelFile, "end within"},
		{"extra blob bytes", edit(func(b []byte) []byte { return reseal(append(b, make([]byte, 16)...)) }), model.ErrBadModelFile, "canonical"},
		{"not JSON", header(`{"name"`, `{name`), model.ErrBadModelFile, "header:"},
		{"unknown key", header(`"target":`, `"novel":1,"target":`), model.ErrBadModelFile, `unknown field "novel"`},
		{"doubled key", header(`"target":"onnx"`, `"target":"onnx","target":"onnx"`), model.ErrBadModelFile, "canonical"},
		{"key case", header(`"target":`, `"Target":`), model.ErrBadModelFile, "canonical"},
		{"space", header(`"target":`, `"target": `), model.ErrBadModelFile, "canonical"},
		{"text after header", header(`{"name"`, `{}{"name"`), model.ErrBadModelFile, ""},
		{"escaped name", header(`"name":"net"`, `"name":"n\u0065t"`), model.ErrBadModelFile, "canonical"},
		{"control character", header(`"name":"net"`, `"name":"n\net"`), model.ErrBadModelFile, "cannot be printed"},
		{"target", header(`"target":"onnx"`, `"target":"tpu"`), model.ErrBadModelFile, `unknown target "tpu"`},
		{"precision", header(`"weight":"int4"`, `"weight":"int9"`), model.ErrBadModelFile, `unknown number format "int9"`},
		{"no input", header(`"inputs":[{`, `"inputs":[],"x":[{`), model.ErrBadModelFile, "unknown field"},
		{"input scale", header(`"scale":"3b808081","zero":3`, `"scale":"7f800000","zero":3`), model.ErrBadModelFile, "+Inf"},
		{"decimal scale", header(`"scale":"3b808081","zero":3`, `"scale":0.5,"zero":3`), model.ErrBadModelFile, "header:"},
		{"input zero", header(`"scale":"3b808081","zero":3`, `"scale":"3b808081","zero":4`), model.ErrBadModelFile, "its bytes are its codes"},
		{"op", header(`"op":"maxpool"`, `"op":"avgpool"`), model.ErrBadModelFile, `node "pool": unknown operation "avgpool"`},
		{"dangling input", header(`"in":["pool"]`, `"in":["pond"]`), model.ErrBadModelFile, `conv "c2": reads "pond"`},
		{"two inputs", header(`"in":["pool"]`, `"in":["pool","c1"]`), model.ErrBadModelFile, "needs 1 input, has 2"},
		{"shape", header(`"shape":[7,6,6]`, `"shape":[7,6,5]`), model.ErrBadModelFile, "shape [7 6 5]; its input and attributes give [7 6 6]"},
		{"huge stride", header(`"stride":[2,1]`, `"stride":[16777217,1]`), model.ErrBadModelFile, "outside [0, 16777216]"},
		{"duplicate tensor", header(`"name":"pool"`, `"name":"c1"`), model.ErrBadModelFile, "used twice"},
		{"requant zero", header(`"requant":{"zero":`, `"requant":{"zero":1`), model.ErrBadModelFile, `conv "c1"`},
		{"requant missing", header(`,"requant":{"zero":0,"lo":0,"hi":0,"float":true}`, ``), model.ErrBadModelFile, `multiplier "fc2"`},
		{"format unknown", header(`"format":"int4"`, `"format":"int12"`), model.ErrBadModelFile, "unknown number format"},
		{"width contradicts", header(`"format":"int4"`, `"format":"int5"`), model.ErrBadModelFile, "contradicts"},
		{"kind", header(`"kind":"scale"`, `"kind":"scales"`), model.ErrBadModelFile, "unknown kind"},
		{"type", header(`"type":"s4"`, `"type":"s9"`), model.ErrBadModelFile, `unknown type "s9"`},
		{"blob shape", header(`"shape":[3,2,3,6]`, `"shape":[3,2,2,9]`), model.ErrBadModelFile, "the layer needs [3 2 3 6]"},
		{"blob shape zero", header(`"shape":[3,2,3,6]`, `"shape":[3,0,3,6]`), model.ErrBadModelFile, "positive extents"},
		{"blob shape huge", header(`"shape":[3,2,3,6]`, `"shape":[16777216,16777216,16777216,6]`), model.ErrBadModelFile, "more than"},
		{"overlap", header(`"offset":32`, `"offset":0`), model.ErrBadModelFile, "must start at"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := model.Decode(tt.data)
			if err == nil || m != nil {
				t.Fatalf("accepted: %v", m)
			}
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q; want one of %v with %q", err, tt.is, tt.want)
			}
		})
	}
}

// blobOf finds a blob by its directory entry.
func blobOf(t testing.TB, data []byte, kind, name string, size int) []byte {
	t.Helper()
	n := int(binary.LittleEndian.Uint32(data[12:]))
	var h struct {
		Tensors []struct {
			Kind, Name string
			Offset     int
		}
	}
	if err := json.Unmarshal(data[24:24+n], &h); err != nil {
		t.Fatal(err)
	}
	for _, e := range h.Tensors {
		if e.Kind == kind && e.Name == name {
			return data[(24+n+15)/16*16+e.Offset:][:size]
		}
	}
	t.Fatalf("no %s %q", kind, name)
	return nil
}

// TestDecodeRefusesValues changes single values in the blobs and seals the file again.
func TestDecodeRefusesValues(t *testing.T) {
	float := func(v float32) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint32(b, math.Float32bits(v)) }
	}
	tests := []struct {
		name, precision, kind, tensor string
		edit                          func(b []byte)
		want                          string
	}{
		{"multiplier NaN", "int8", "multiplier", "c1", float(float32(math.NaN())), `conv "c1": multiplier[0] is NaN; it must be finite and positive`},
		{"multiplier infinite", "int8", "multiplier", "c1", float(float32(math.Inf(1))), "multiplier[0] is +Inf"},
		{"multiplier zero", "int8", "multiplier", "fc2", float(0), `dense "fc2": multiplier[0] is 0`},
		{"multiplier negative", "int8", "multiplier", "fc2", float(-0.5), "multiplier[0] is -0.5"},
		{"multiplier other", "int8", "multiplier", "fc2", float(0.5), "the scales give"},
		{"scale negative", "int8", "scale", "fc2.weight", float(-1), `dense "fc2": weight: scale[0] is -1`},
		{"lowest code", "w3a5", "param", "c1.weight", func(b []byte) { b[0] = b[0]&^7 | 4 }, "weight code[0] = -4 is outside the grid [-3, 3] of int3"},
		{"lowest ternary", "w2a4", "param", "c1.weight", func(b []byte) { b[0] = b[0]&^12 | 8 }, "weight code[1] = -2 is outside the grid [-1, 1]"},
		{"bias", "int8", "param", "fc1.bias", func(b []byte) { binary.LittleEndian.PutUint32(b, math.MaxInt32) }, "accumulator of channel 0 can reach"},
		{"fp32 weight NaN", "fp32", "param", "fc1.weight", float(float32(math.NaN())), `parameter "fc1.weight": value[0] is NaN`},
		{"bf16 weight infinite", "bf16", "param", "fc1.weight", func(b []byte) { b[0], b[1] = 0x80, 0xff }, "weight[0] is -Inf"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data := encoded(t, frozenNet(t, tt.precision))
			tt.edit(blobOf(t, data, tt.kind, tt.tensor, 4))
			_, err := model.Decode(reseal(data))
			if !errors.Is(err, model.ErrBadModelFile) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v; want %q", err, tt.want)
			}
		})
	}
}

// TestVersion1 reads a file that version 1 wrote: later programs must give the same model and the same bytes. The file is
// frozenNet("w3a5") on the day the format was fixed; -update writes it anew, which is right only before a release.
func TestVersion1(t *testing.T) {
	const path = "testdata/version1.narrow"
	if *update {
		if err := os.WriteFile(path, encoded(t, frozenNet(t, "w3a5")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(encoded(t, m), data) {
		t.Error("it encodes to other bytes")
	}
	names := []string{"c1.bias", "c1.weight", "c2.bias", "c2.weight", "fc1.bias", "fc1.weight", "fc2.bias", "fc2.weight"}
	if got := m.ParamNames(); !slices.Equal(got, names) {
		t.Errorf("parameters %v", got)
	}
	if got, want := m.Params["c1.weight"].Codes[:6], []int8{-1, 1, 3, -1, 0, -1}; !slices.Equal(got, want) {
		t.Errorf("first codes %v, want %v", got, want)
	}
	if m.Inputs[0].Scale != 1.0/255 || m.Inputs[0].Zero != 3 || m.Inputs[0].Labels[2] != `"né" & <b>` {
		t.Errorf("input %+v", m.Inputs[0])
	}
}

// TestDecodeRefusesPadding sets a bit that no value uses, in the padding after the header.
func TestDecodeRefusesPadding(t *testing.T) {
	data := encoded(t, frozenNet(t, "w3a5"))
	n := 24 + int(binary.LittleEndian.Uint32(data[12:]))
	for n%16 == 0 {
		data = withHeader(t, data, `"name":"net"`, `"name":"nets"`)
		n++
	}
	if _, err := model.Decode(data); err != nil {
		t.Fatal(err)
	}
	data[n] = 1
	if _, err := model.Decode(reseal(data)); err == nil || !strings.Contains(err.Error(), "canonical") {
		t.Errorf("error %v", err)
	}
}

func TestValidateRefuses(t *testing.T) {
	inf := float32(math.Inf(1))
	nan := float32(math.NaN())
	tests := []struct {
		name, precision string
		edit            func(m *model.Model)
		want            string
	}{
		{"stage", "int8", func(m *model.Model) { m.Stage = model.Quantized }, "freeze it first"},
		{"multiplier zero", "int8", func(m *model.Model) { m.Node("c1").Requant.M[2] = 0 }, `conv "c1": multiplier[2] is 0; it must be finite and positive`},
		{"multiplier NaN", "int8", func(m *model.Model) { m.Node("c1").Requant.M[2] = nan }, "multiplier[2] is NaN"},
		{"multiplier other", "int8", func(m *model.Model) { m.Node("fc2").Requant.M[0] *= 2 }, "the scales give"},
		{"multiplier count", "int8", func(m *model.Model) { m.Node("fc2").Requant.M = m.Node("fc2").Requant.M[1:] }, "2 multipliers, not 3"},
		{"requant missing", "int8", func(m *model.Model) { m.Node("c2").Requant = nil }, "needs its requantization"},
		{"requant on pool", "int8", func(m *model.Model) { m.Node("pool").Requant = m.Node("c2").Requant }, "its output has the quantizer of its input"},
		{"zero outside", "w4a4", func(m *model.Model) { m.Quant["c2"].Zero[0] = 16 }, "outside the grid [0, 15]"},
		{"scale", "w4a4", func(m *model.Model) { m.Quant["c2"].Scale[0] = inf }, "scale[0] is +Inf"},
		{"weight scale", "w4a4", func(m *model.Model) { m.Quant["c2.weight"].Scale[1] = -1 }, "scale[1] is -1"},
		{"code outside", "w2a4", func(m *model.Model) { m.Params["c2.weight"].Codes[1] = -2 }, "weight code[1] = -2 is outside the grid [-1, 1] of int2"},
		{"overflow", "int8", func(m *model.Model) { m.Params["fc1.bias"].Int32[3] = math.MaxInt32 }, "accumulator of channel 3 can reach"},
		{"lowest bias", "int8", func(m *model.Model) { m.Params["fc1.bias"].Int32[3] = math.MinInt32 }, "accumulator of channel 3 can reach 2147"},
		{"bias missing", "int8", func(m *model.Model) { delete(m.Params, "fc1.bias") }, `"fc1.bias" must be 5 int32 codes`},
		{"weight missing", "int8", func(m *model.Model) { delete(m.Params, "fc1.weight") }, `"fc1.weight" is missing`},
		{"parameter too many", "int8", func(m *model.Model) { m.Params["x"] = m.Params["c2.bias"] }, `parameter "x" belongs to no layer`},
		{"quantizer too many", "int8", func(m *model.Model) { m.Quant["x"] = m.Quant["c1"] }, `quantizer of "x"`},
		{"two payloads", "int8", func(m *model.Model) { m.Params["c2.weight"].Half = make([]uint16, 4) }, "2 payloads"},
		{"pool has other scale", "int8", func(m *model.Model) {
			m.Quant["pool"] = m.Quant["pool"].Clone()
			m.Quant["pool"].Scale[0] *= 2
		}, `quantizer of its input "c1"`},
		{"float in the middle", "int8", func(m *model.Model) { delete(m.Quant, "fc1") }, "the logits, and only they"},
		{"coded logits", "int8", func(m *model.Model) { m.Quant["fc2"] = m.Quant["fc1"] }, "the logits, and only they"},
		{"outputs", "fp32", func(m *model.Model) { m.Outputs = []string{"fc1"} }, "the last layer"},
		{"batch norm left", "fp32", func(m *model.Model) {
			m.Nodes[1].Op, m.Nodes[1].Shape, m.Nodes[1].Attr = model.BatchNorm, m.Nodes[0].Shape, model.Attr{Eps: 1, Momentum: 1}
		}, `batchnorm "pool": has no meaning in a frozen model`},
		{"NaN weight", "fp32", func(m *model.Model) { m.Params["c2.weight"].Data[7] = nan }, `parameter "c2.weight": value[7] is NaN`},
		{"infinite half", "fp16", func(m *model.Model) { m.Params["c2.weight"].Half[7] = 0x7c00 }, "weight[7] is +Inf"},
		{"half without format", "fp16", func(m *model.Model) { delete(m.Quant, "c2.weight") }, "16-bit values if it has 16 bits"},
		{"layer twice", "fp32", func(m *model.Model) { m.Node("fc2").Layer = "fc1" }, "same layer name"},
		{"label", "fp32", func(m *model.Model) { m.Inputs[0].Labels[0] = "a\x00b" }, "cannot be printed"},
		{"name", "fp32", func(m *model.Model) { m.Name = "\xff" }, "must be UTF-8"},
		{"huge input", "fp32", func(m *model.Model) { m.Inputs[0].Shape = model.Shape{1 << 20, 1 << 20, 3} }, "at most 268435456 elements"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := frozenNet(t, tt.precision)
			if err := model.Validate(m); err != nil {
				t.Fatalf("before the edit: %v", err)
			}
			tt.edit(m)
			err := model.Validate(m)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v; want %q", err, tt.want)
			}
			if got := model.Encode(&bytes.Buffer{}, m); got == nil || !strings.HasSuffix(got.Error(), err.Error()) {
				t.Errorf("Encode: %v", got)
			}
		})
	}
}

// failAfter is a writer that has room for n bytes.
type failAfter struct{ n int }

var errFull = errors.New("disk full")

func (f *failAfter) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestEncodeReportsWriteError(t *testing.T) {
	m := frozenNet(t, "int8")
	for n := range 3 {
		if err := model.Encode(&failAfter{n: n * 100}, m); !errors.Is(err, errFull) || !strings.Contains(err.Error(), `"net"`) {
			t.Errorf("after %d bytes: %v", n*100, err)
		}
	}
}

// FuzzDecode feeds files whose length and checksum are made to fit, so that the fuzzer reaches the header and the blobs.
// What is accepted must encode to the same bytes.
func FuzzDecode(f *testing.F) {
	for _, precision := range precisions {
		data := encoded(f, frozenNet(f, precision))
		f.Add(data)
		f.Add(withHeader(f, data, `"target":"onnx"`, `"target":"onnx","target":"onnx"`))
		f.Add(withHeader(f, data, `"offset":0`, `"offset":16`))
		for at := 30; at < len(data); at += 211 {
			bad := bytes.Clone(data)
			bad[at] ^= 0x11
			f.Add(reseal(bad))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, b := range [][]byte{data, reseal(bytes.Clone(data))} {
			m, err := model.Decode(b)
			if err != nil {
				continue
			}
			if !bytes.Equal(encoded(t, m), b) {
				t.Error("accepted bytes that Encode does not write")
			}
		}
	})
}
