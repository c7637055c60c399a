package ptq

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// maxRows and maxRowBytes bound what is kept of one layer's inputs.
const (
	maxRows     = 8192
	maxRowBytes = 256 << 20
)

// errEnough ends a trace at the tensor that was wanted.
var errEnough = errors.New("enough")

// tap runs m over a set, a batch at a time, and gives visit one tensor: its float32 values, s*(q-z) where it holds codes.
// The values are valid during the call.
func tap(ctx context.Context, m *model.Model, name string, set *datasets.Set, o Options, visit func(first, n int, x []float32) error) error {
	engine, err := infer.Compile(m, infer.Options{Workers: 1, MaxBatch: o.Batch})
	if err != nil {
		return err
	}
	var values []float32
	return batches(ctx, set, o.Batch, func(first int, x []uint8, n int) error {
		err := engine.Trace(x, n, func(t infer.Tensor) error {
			if t.Name != name {
				return nil
			}
			v := t.Values
			if t.Wide != nil {
				values = slices.Grow(values[:0], len(t.Wide))[:len(t.Wide)]
				if err := quant.Dequantize(values, t.Wide, t.Params); err != nil {
					return err
				}
				v = values
			}
			if t.Codes != nil {
				values = slices.Grow(values[:0], len(t.Codes))[:len(t.Codes)]
				s, z := t.Params.At(0)
				for i, q := range t.Codes {
					values[i] = s * float32(int32(q)-z)
				}
				v = values
			}
			if err := visit(first, n, v); err != nil {
				return err
			}
			return errEnough
		})
		if errors.Is(err, errEnough) {
			return nil
		}
		return err
	})
}

// layerRows is what one layer is fitted to: at n positions drawn from the calibration examples, its inputs in the
// quantized model and its outputs in the float model.
type layerRows struct {
	window
	n int
	x []float32 // [n, groups, depth], of the quantized prefix
	y []float32 // [n, units], after batch norm and ReLU
}

// position is one output position of one example.
type position struct{ example, at int }

// positions draws which outputs of a layer become rows: as many of each example, all of them where they are few. Their
// order is random, so that any run of them is a sample.
func positions(g *window, examples int, seed uint64, layer int) []position {
	want := min(maxRows, max(1, maxRowBytes/4/g.width()))
	used := min(examples, want)
	per := min(g.outputs, max(1, want/used))
	out := make([]position, 0, used*per)
	all := make([]int32, g.outputs)
	for i := range used {
		example := i * examples / used // spread over the set, which may be sorted by class
		stream := rng.New(seed, rng.Calibrate, uint64(layer), uint64(example))
		stream.Perm(all)
		for _, at := range all[:per] {
			out = append(out, position{example, int(at)})
		}
	}
	stream := rng.New(seed, rng.Calibrate, uint64(layer))
	order := make([]int32, len(out))
	stream.Perm(order)
	shuffled := make([]position, len(out))
	for i, j := range order {
		shuffled[i] = out[j]
	}
	return shuffled
}

// fitRows collects the rows of node number layer.
func fitRows(ctx context.Context, float, q *model.Model, layer int, set *datasets.Set, o Options) (*layerRows, error) {
	n := &q.Nodes[layer]
	in, ok := q.ShapeOf(n.In[0])
	if !ok {
		return nil, fmt.Errorf("input %q has no shape", n.In[0])
	}
	r := &layerRows{window: newWindow(n, in)}
	where := positions(&r.window, set.Len(), o.Seed, layer)
	r.n = len(where)
	r.x, r.y = make([]float32, r.n*r.width()), make([]float32, r.n*r.units)
	rows := make(map[int][]int, set.Len()) // by example
	for i, p := range where {
		rows[p.example] = append(rows[p.example], i)
	}
	size := in.Size()
	err := tap(ctx, q, n.In[0], set, o, func(first, count int, x []float32) error {
		for e := range count {
			for _, i := range rows[first+e] {
				r.patch(r.x[i*r.width():][:r.width()], x[e*size:][:size], where[i].at)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	size = n.Shape.Size()
	return r, tap(ctx, float, n.Name, set, o, func(first, count int, y []float32) error {
		for e := range count {
			for _, i := range rows[first+e] {
				copy(r.y[i*r.units:][:r.units], y[e*size+where[i].at*r.units:])
			}
		}
		return nil
	})
}
