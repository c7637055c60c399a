package infer_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/internal/cpu"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

var integerPrecisions = []string{"int8", "w4a8", "w8a4", "w4a4", "w3a5", "w2a4", "w2a2"}

// TestIntegerEqualsReference compares every accumulator, code and logit of random networks with plain int64 loops.
func TestIntegerEqualsReference(t *testing.T) {
	for _, precision := range integerPrecisions {
		t.Run(precision, func(t *testing.T) {
			saturated, elements := 0, 0
			for seed := range uint64(25) {
				rnd := rand.New(rand.NewPCG(seed, 1))
				m := randomNet(t, rnd)
				const n = 5
				x := randomBytes(rnd, n*m.Inputs[0].Shape.Size())
				clear(x[:m.Inputs[0].Shape.Size()]) // the first example is all zero bytes
				frozen := pass(t, quantized(t, m, precision, x, rnd), model.Freeze)
				e := compile(t, frozen, infer.Options{Workers: 1, MaxBatch: 2})
				want := make([]map[string]refTensor, n)
				for i := range want {
					want[i] = reference(t, frozen, x[i*e.InputSize():][:e.InputSize()])
				}
				err := e.Trace(x, n, func(v infer.Tensor) error {
					size := v.Shape.Size()
					for i := range v.N {
						w := want[v.First+i][v.Name]
						for k := range size {
							switch {
							case w.acc != nil && int64(v.Acc[i*size+k]) != w.acc[k]:
								return fmt.Errorf("seed %d: %s[%d]: accumulator %d, want %d", seed, v.Name, k, v.Acc[i*size+k], w.acc[k])
							case w.codes != nil && int64(v.Codes[i*size+k]) != w.codes[k]:
								return fmt.Errorf("seed %d: %s[%d]: code %d, want %d", seed, v.Name, k, v.Codes[i*size+k], w.codes[k])
							case w.values != nil && v.Values[i*size+k] != w.values[k]:
								return fmt.Errorf("seed %d: %s[%d]: value %v, want %v", seed, v.Name, k, v.Values[i*size+k], w.values[k])
							}
							if w.codes != nil && w.acc != nil {
								r := frozen.Node(v.Name).Requant
								elements++
								if c := int32(w.codes[k]); c == r.Lo || c == r.Hi {
									saturated++
								}
							}
						}
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				logits := make([]float32, n*e.Classes())
				if err := e.Run(logits, x, n); err != nil {
					t.Fatal(err)
				}
				for i := range want {
					if got := logits[i*e.Classes():][:e.Classes()]; !slices.Equal(got, want[i][frozen.Outputs[0]].values) {
						t.Fatalf("seed %d: example %d: Run gives %v, want %v", seed, i, got, want[i][frozen.Outputs[0]].values)
					}
				}
			}
			if saturated == 0 || saturated == elements {
				t.Errorf("%d of %d codes at a limit: the nets do not try both sides", saturated, elements)
			}
		})
	}
}

// TestFloatNearReference compares FP32 networks with float64 loops.
func TestFloatNearReference(t *testing.T) {
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		m := randomNet(t, rnd)
		x := randomBytes(rnd, 3*m.Inputs[0].Shape.Size())
		e := compile(t, m, infer.Options{Workers: 1, MaxBatch: 2})
		checkFloat(t, e, x, 3, 1e-5)
	}
}

// checkFloat compares every tensor with the float64 reference: |difference| <= tol * the largest magnitude of the tensor.
func checkFloat(t *testing.T, e *infer.Engine, x []uint8, n int, tol float64) {
	t.Helper()
	err := e.Trace(x, n, func(v infer.Tensor) error {
		size := v.Shape.Size()
		for i := range v.N {
			want := reference64(e.Model(), x[(v.First+i)*e.InputSize():][:e.InputSize()])[v.Name]
			top := 1.0
			for _, w := range want {
				top = max(top, math.Abs(w))
			}
			for k, w := range want {
				if d := math.Abs(float64(v.Values[i*size+k]) - w); !(d <= tol*top) {
					return fmt.Errorf("%s[%d] = %v, want %v", v.Name, k, v.Values[i*size+k], w)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestHalfByDefinition checks 16-bit models tensor by tensor: each stored value is the rounding of what float64 loops
// compute from the engine's own stored input, wherever float32 sums cannot move it across a rounding boundary.
func TestHalfByDefinition(t *testing.T) {
	for _, format := range []quant.Format{quant.FP16, quant.BF16} {
		exact, total := 0, 0
		for seed := range uint64(20) {
			rnd := rand.New(rand.NewPCG(seed, 3))
			m := randomNet(t, rnd)
			x := randomBytes(rnd, 2*m.Inputs[0].Shape.Size())
			e := compile(t, quantized(t, m, format.String(), x, rnd), infer.Options{Workers: 1, MaxBatch: 1})
			stored := map[string][]float64{}
			err := e.Trace(x, 2, func(v infer.Tensor) error {
				want := make([]float64, len(v.Values))
				if n := e.Model().Node(v.Name); n != nil {
					want = refFloat(e.Model(), n, stored)
				} else {
					in := e.Model().Inputs[0]
					for i, p := range x[v.First*e.InputSize():][:e.InputSize()] {
						want[i] = float64(in.Scale * float32(int32(p)-in.Zero))
					}
				}
				keep := make([]float64, len(v.Values))
				for i, y := range v.Values {
					keep[i] = float64(y)
					if v.Params == nil {
						continue // float32 logits
					}
					if r := quant.Decode16(quant.Encode16(y, format), format); r != y {
						return fmt.Errorf("%s[%d] = %v is not a value of %s", v.Name, i, y, format)
					}
					total++
					lo := quant.Decode16(quant.Encode16(float32(want[i]-1e-5), format), format)
					hi := quant.Decode16(quant.Encode16(float32(want[i]+1e-5), format), format)
					if y < lo || y > hi {
						return fmt.Errorf("%s[%d] = %v, want %v rounded to %s", v.Name, i, y, want[i], format)
					}
					if lo == hi {
						exact++
					}
				}
				stored[v.Name] = keep
				return nil
			})
			if err != nil {
				t.Fatalf("%s, seed %d: %v", format, seed, err)
			}
		}
		if exact*2 < total {
			t.Errorf("%s: only %d of %d values were decided", format, exact, total)
		}
	}
}

// TestHalfOverflow drives a layer out of fp16: an error that names the layer and the example, not an infinity.
func TestHalfOverflow(t *testing.T) {
	m := model.New("big", model.Input{Name: "x", Shape: model.Shape{2}, Scale: 1})
	m.Append(model.Node{Name: "up", Layer: "up", Op: model.Dense, Attr: model.Attr{Units: 1}})
	m.Append(model.Node{Name: "out", Layer: "out", Op: model.Dense, Attr: model.Attr{Units: 1}})
	m = pass(t, m, model.Shapes, model.Fuse)
	for _, name := range m.ParamNames() {
		for i := range m.Params[name].Data {
			m.Params[name].Data[i] = 200
		}
	}
	x := []uint8{1, 1, 2, 2, 255, 255}
	for _, workers := range []int{1, 3} {
		e := compile(t, quantized(t, m, "fp16", x, nil), infer.Options{Workers: workers}).ShareAlways()
		err := e.Run(make([]float32, 3), x, 3)
		var over *quant.OverflowError
		if !errors.As(err, &over) || !strings.Contains(err.Error(), `dense "up": example 2: value[0] = 102000 overflows fp16`) {
			t.Errorf("%d workers: error %v", workers, err)
		}
		if err := e.Run(make([]float32, 3), x, 2); err != nil {
			t.Errorf("%d workers, after an error: %v", workers, err)
		}
	}
	e := compile(t, quantized(t, m, "bf16", x, nil), infer.Options{Workers: 1})
	if err := e.Run(make([]float32, 3), x, 3); err != nil {
		t.Errorf("bf16 has the range: %v", err)
	}
}

// extremeNet is a conv and a dense layer whose activations have zero point z, with all weights at the edge of the grid.
func extremeNet(t *testing.T, z int32, sign float32) *model.Model {
	t.Helper()
	m := model.New("extreme", model.Input{Name: "x", Shape: model.Shape{3, 3, 2}, Scale: 0.01, Zero: z})
	m.Append(model.Node{Name: "c", Layer: "c", Op: model.Conv, Attr: model.Attr{Kernel: [2]int{2, 2}, Stride: [2]int{1, 1}, Pad: [4]int{1, 1, 1, 1}, Groups: 1, Units: 3, Bias: true}})
	m.Append(model.Node{Name: "act", Layer: "act", Op: model.MaxPool, Attr: model.Attr{Kernel: [2]int{2, 2}, Stride: [2]int{1, 1}, Pad: [4]int{1, 0, 0, 1}}})
	m.Append(model.Node{Name: "own", Layer: "own", Op: model.ReLU})
	m.Append(model.Node{Name: "flat", Layer: "flat", Op: model.Flatten})
	m.Append(model.Node{Name: "out", Layer: "out", Op: model.Dense, Attr: model.Attr{Units: 4, Bias: true}})
	m = pass(t, m, model.Shapes, model.Fuse)
	for _, name := range m.ParamNames() {
		for i := range m.Params[name].Data {
			m.Params[name].Data[i] = sign
		}
	}
	q := pass(t, m, func(m *model.Model) (*model.Model, error) {
		return model.Place(m, model.DefaultQuant(quant.Precision{Weight: quant.Int8, Act: quant.Int8}))
	}, model.Share)
	q.Quant["c"].Scale, q.Quant["c"].Zero = []float32{0.02}, []int32{z}
	return pass(t, q, model.Freeze)
}

// TestExtremes runs zero points at both ends of the byte over inputs at both ends, weights all at one end.
func TestExtremes(t *testing.T) {
	for _, z := range []int32{0, 1, 128, 254, 255} {
		for _, sign := range []float32{1, -1} {
			for _, fill := range []uint8{0, 1, 127, 255} {
				m := extremeNet(t, z, sign)
				e := compile(t, m, infer.Options{Workers: 1})
				x := bytes.Repeat([]byte{fill}, e.InputSize())
				got := make([]float32, e.Classes())
				if err := e.Run(got, x, 1); err != nil {
					t.Fatal(err)
				}
				if want := reference(t, m, x)["out"].values; !slices.Equal(got, want) {
					t.Errorf("zero point %d, weights %v, bytes %d: %v, want %v", z, sign, fill, got, want)
				}
			}
		}
	}
}

// TestHalves holds the rounding of ties: acc/2 for acc = -4 ... 4 around zero point 4.
func TestHalves(t *testing.T) {
	m := model.New("halves", model.Input{Name: "x", Shape: model.Shape{1}, Scale: 1, Zero: 4})
	m.Append(model.Node{Name: "half", Layer: "half", Op: model.Dense, Attr: model.Attr{Units: 1}})
	m.Append(model.Node{Name: "out", Layer: "out", Op: model.Dense, Attr: model.Attr{Units: 1}})
	m = pass(t, m, model.Shapes, model.Fuse)
	m.Params["half.weight"].Data[0] = 1
	cfg := model.DefaultQuant(quant.Precision{Weight: quant.Int8, Act: quant.Int8})
	cfg.Weight.Range = quant.LSQ // takes the scale as it is
	m = pass(t, m, func(m *model.Model) (*model.Model, error) { return model.Place(m, cfg) }, model.Share)
	for _, name := range []string{"half.weight", "out.weight"} {
		m.Quant[name].Scale, m.Quant[name].Zero = []float32{1}, []int32{0}
	}
	m.Quant["half"].Scale, m.Quant["half"].Zero = []float32{2}, []int32{4}
	e := compile(t, m, infer.Options{})
	if got := e.Describe().Rounding; got != describedRounding {
		t.Errorf("Describe names rounding %q", got)
	}
	x := []uint8{0, 1, 2, 3, 4, 5, 6, 7, 8}
	err := e.Trace(x, len(x), func(v infer.Tensor) error {
		if v.Name == "half" && !slices.Equal(v.Codes, codesOfHalves) {
			return fmt.Errorf("codes %v of accumulators %v, want %v", v.Codes, v.Acc, codesOfHalves)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// digest is a hash of all codes, accumulators and logits of random integer networks.
func digest(t *testing.T) string {
	h := sha256.New()
	for _, precision := range integerPrecisions {
		for seed := range uint64(10) {
			rnd := rand.New(rand.NewPCG(seed, 7))
			m := randomNet(t, rnd)
			x := randomBytes(rnd, 9*m.Inputs[0].Shape.Size())
			q := pass(t, m, func(m *model.Model) (*model.Model, error) {
				p, err := quant.ParsePrecision(precision)
				if err != nil {
					return nil, err
				}
				return model.Place(m, model.DefaultQuant(p))
			}, model.Share)
			for _, name := range q.QuantNames() { // ranges not taken from a float trace: that one may differ between tiers
				if a := q.Quant[name]; !a.Ready() && !a.Spec.Signed {
					_, hi := a.Spec.Grid()
					a.Scale, a.Zero = []float32{0.01 + rnd.Float32()/float32(hi)}, []int32{rnd.Int32N(hi + 1)}
				}
			}
			e := compile(t, q, infer.Options{Workers: 1})
			err := e.Trace(x, 9, func(v infer.Tensor) error {
				h.Write(v.Codes)
				if err := binary.Write(h, binary.LittleEndian, v.Acc); err != nil {
					return err
				}
				return binary.Write(h, binary.LittleEndian, v.Values)
			})
			if err != nil {
				t.Fatal(err)
			}
			logits := make([]float32, 9*e.Classes())
			if err := e.Run(logits, x, 9); err != nil {
				t.Fatal(err)
			}
			if err := binary.Write(h, binary.LittleEndian, logits); err != nil {
				t.Fatal(err)
			}
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// wantDigest is the digest on every CPU.
const wantDigest = "6c401da2090d31ba66d4b5c138a46068537f824162902129bea844a8351c61b4"

// TestEveryCPUAgrees compares the digest with the constant that all CPUs and all instruction tiers must give, in this process
// and in one of its own for every other tier of this CPU. Where integers and their rounding change on purpose, the new
// constant is what the message prints, the same on every CPU.
func TestEveryCPUAgrees(t *testing.T) {
	const asked = "NARROW_INFER_DIGEST"
	if got := digest(t); got != wantDigest {
		t.Errorf("tier %s on %s: digest %s, want %s", cpu.Active(), runtime.GOARCH, got, wantDigest)
	}
	if os.Getenv(asked) != "" {
		fmt.Printf("tier %s\n", cpu.Active())
		return
	}
	for tier := cpu.Generic; tier <= cpu.Hardware(); tier++ {
		if tier == cpu.Active() {
			continue
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestEveryCPUAgrees$")
		cmd.Env = append(os.Environ(), asked+"=1", cpu.EnvVar+"="+tier.String())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", tier, err, out)
		}
		if want := fmt.Sprintf("tier %s\n", tier); !strings.Contains(string(out), want) {
			t.Errorf("printed %q, want %q", out, want)
		}
	}
}
