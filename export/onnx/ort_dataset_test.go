package onnx_test

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/export/onnx"
	"github.com/narrow-ml/narrow/export/onnx/eval"
	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/model"
)

// TestONNXRuntimeOnDataSet holds trained models to ONNX Runtime over a whole test split. NARROW_MODELS lists model.narrow
// files (separated as in PATH), NARROW_DATASET names their data set; the checks in .ci train and name them.
//
//	each layer fed our codes: at most one step apart, in fewer than 0.1 % of the codes
//	whole file: top-1 accuracy within 0.05 points of the engine's
func TestONNXRuntimeOnDataSet(t *testing.T) {
	files := filepath.SplitList(os.Getenv("NARROW_MODELS"))
	if len(files) == 0 {
		t.Skip("NARROW_MODELS is not set: no trained models")
	}
	d, err := datasets.Load(t.Context(), os.Getenv("NARROW_DATASET"), datasets.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		t.Run(filepath.Base(filepath.Dir(path)), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			m, err := model.Decode(data)
			if err != nil {
				t.Fatal(err)
			}
			onDataSet(t, m, d.Test)
		})
	}
}

// tally counts, over the chunks of a test split, how a layer's codes compare.
type tally struct{ elements, offByOne, worse int }

func onDataSet(t *testing.T, m *model.Model, set *datasets.Set) {
	const chunk = 1000
	engine, err := infer.Compile(m, infer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	file, err := onnx.Build(m, onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	in, last := m.Inputs[0], m.Outputs[0]
	classes, size := engine.Classes(), set.Elems()
	ours, theirs := 0, 0
	layers := map[string]*tally{}
	for lo := 0; lo < set.Len(); lo += chunk {
		n := min(chunk, set.Len()-lo)
		x := set.X[lo*size : (lo+n)*size]
		logits := make([]float32, n*classes)
		if err := engine.Run(logits, x, n); err != nil {
			t.Fatal(err)
		}
		codes := engineCodes(t, engine, x, n)
		for i := range m.Nodes { // the file flattens channels first
			if node := &m.Nodes[i]; node.Op == model.Flatten {
				flat := codes[node.In[0]]
				flat.Shape = []int{n, node.Shape[0]}
				codes[node.Name] = flat
			}
		}
		models, feeds := []*onnxpb.Model{file}, [][]eval.Tensor{{onnx.InputTensor(in, x, n)}}
		var names []string
		for i := range m.Nodes {
			to := m.Nodes[i].Name
			if to == last || m.Nodes[i].Op == model.Flatten {
				continue
			}
			var from []string
			var feed []eval.Tensor
			for _, name := range m.Nodes[i].In {
				feed = append(feed, codes[name])
				if name == in.Name {
					name += "_codes"
				}
				from = append(from, name)
			}
			models, feeds, names = append(models, cutMany(file, from, to, feed, codes[to])), append(feeds, feed), append(names, to)
		}
		out, _ := runORTMany(t, models, feeds)
		for i := range n {
			label := int(set.Labels[lo+i])
			if infer.ArgMax(logits[i*classes:(i+1)*classes]) == label {
				ours++
			}
			if infer.ArgMax(out[0][last].Float32s()[i*classes:(i+1)*classes]) == label {
				theirs++
			}
		}
		for i, name := range names {
			if layers[name] == nil {
				layers[name] = &tally{}
			}
			layers[name].add(t, name, out[i+1][name], codes[name])
		}
	}
	for name, l := range layers {
		t.Logf("%s: %d codes, %d off by one, %d further", name, l.elements, l.offByOne, l.worse)
		if l.worse > 0 || 1000*l.offByOne >= l.elements {
			t.Errorf("%s: %d of %d codes are off by one, %d further", name, l.offByOne, l.elements, l.worse)
		}
	}
	a, b := 100*float64(ours)/float64(set.Len()), 100*float64(theirs)/float64(set.Len())
	t.Logf("%s %s: top-1 of the engine %.2f %%, of ONNX Runtime %.2f %% over %d examples", m.Name, m.Precision, a, b, set.Len())
	if math.Abs(a-b) > 0.05 {
		t.Errorf("top-1 differs by %.3f points", a-b)
	}
	if len(layers) == 0 {
		t.Error("no layer was compared")
	}
}

func (l *tally) add(t *testing.T, name string, got, want eval.Tensor) {
	if len(got.Ints) != len(want.Ints) || len(want.Ints) == 0 {
		t.Fatalf("%s: %d codes from ONNX Runtime, %d from the engine", name, len(got.Ints), len(want.Ints))
	}
	l.elements += len(want.Ints)
	for i, q := range want.Ints {
		switch d := got.Ints[i] - q; {
		case d == 1 || d == -1:
			l.offByOne++
		case d != 0:
			l.worse++
		}
	}
}

// engineCodes are the codes of every tensor, with channels first as in the file.
func engineCodes(t *testing.T, e *infer.Engine, x []uint8, n int) map[string]eval.Tensor {
	out := map[string]eval.Tensor{}
	if err := e.Trace(x, n, func(v infer.Tensor) error {
		if v.Codes == nil {
			return nil
		}
		c, ok := out[v.Name]
		if !ok {
			c = eval.Tensor{Type: onnxpb.Uint8, Shape: []int{n}}
			if len(v.Shape) == 3 {
				c.Shape = []int{n, v.Shape[2], v.Shape[0], v.Shape[1]}
			} else {
				c.Shape = append(c.Shape, v.Shape...)
			}
		}
		per := v.Shape.Size()
		for i := range v.N {
			c.Ints = append(c.Ints, firstChannels(v.Codes[i*per:(i+1)*per], v.Shape)...)
		}
		out[v.Name] = c
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// firstChannels reorders one example's codes to c, h, w.
func firstChannels(q []uint8, s model.Shape) []int64 {
	out := make([]int64, 0, len(q))
	if len(s) != 3 {
		for _, v := range q {
			out = append(out, int64(v))
		}
		return out
	}
	for c := range s[2] {
		for p := range s[0] * s[1] {
			out = append(out, int64(q[p*s[2]+c]))
		}
	}
	return out
}
