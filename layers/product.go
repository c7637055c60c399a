package layers

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat"
)

// product is a convolution or a dense layer, which is a convolution of 1x1 images:
//
//	floats   y = x*w + b
//	codes    acc = sum (q_x - z)*q_w + q_b, exactly
//
// Inputs are x, w and, unless batch norm follows, b. The bias enters accumulators as the integers that the weight's
// quantizer folded; its node is there for the gradient.
type product struct {
	st     *qat.Step
	name   string
	geom   kernel.ConvGeom
	dense  bool
	needDX bool
	bias   bool
	weight *qat.Weight // of a quantized layer
	in     int         // elements of one example
	outRow int

	integer *kernel.Backward16 // the backward pass on integers, where there is one

	x, w, b []float32
	codes   *qat.Codes
	rows    kernel.RowsU8 // the codes of a dense layer
	y       *tensor.Dense
	ys      []float32
	acc     *qat.Acc
	each    func(shard, lo, hi int)
}

// geometry is the node's convolution over images of the given shape.
func geometry(n *model.Node, in model.Shape) (kernel.ConvGeom, error) {
	a := n.Attr
	g := kernel.ConvGeom{H: 1, W: 1, Cin: in.Channels(), KH: 1, KW: 1, Cout: a.Units, StrideH: 1, StrideW: 1, Groups: 1}
	if n.Op == model.Conv {
		g = kernel.ConvGeom{
			H: in[0], W: in[1], Cin: in[2], KH: a.Kernel[0], KW: a.Kernel[1], Cout: a.Units,
			StrideH: a.Stride[0], StrideW: a.Stride[1],
			PadTop: a.Pad[0], PadLeft: a.Pad[1], PadBottom: a.Pad[2], PadRight: a.Pad[3], Groups: a.Groups,
		}
	}
	return g, g.Check()
}

// makeProduct is a product without a node and without memory for its output.
func makeProduct(st *qat.Step, l *weighted, bias bool) (*product, error) {
	n := l.Node
	g, err := geometry(n, l.in)
	if err != nil {
		return nil, err
	}
	k := &product{
		st: st, name: n.Layer, geom: g, dense: n.Op == model.Dense, needDX: l.x.grad, bias: bias, weight: l.weight, integer: l.integer,
		in: l.in.Size(), outRow: g.OutH() * g.OutW() * g.Cout,
	}
	if k.each = k.shardFloat; l.weight != nil {
		k.each = k.shardCodes
	}
	return k, nil
}

// shape is that of the output for a batch.
func (k *product) shape(batch int) tensor.Shape {
	if k.dense {
		return tensor.Shape{batch, k.geom.Cout}
	}
	return tensor.Shape{batch, k.geom.OutH(), k.geom.OutW(), k.geom.Cout}
}

// allot makes memory for the output.
func (k *product) allot(batch int) G.Value {
	if k.weight != nil {
		k.acc = qat.NewAcc(k.shape(batch))
		return k.acc
	}
	k.y = gx.NewTensor(k.shape(batch)...)
	k.ys = k.y.Data().([]float32)
	return k.y
}

// newProduct adds the node of l's product; bias may be nil.
func newProduct(st *qat.Step, l *weighted, bias *G.Node) (*G.Node, error) {
	n, x := l.Node, l.x.node
	k, err := makeProduct(st, l, bias != nil)
	if err != nil {
		return nil, err
	}
	args := []*G.Node{x, l.w}
	if bias != nil {
		args = append(args, bias)
	}
	return gx.Apply(k, fmt.Sprintf("%s %s", n.Op, n.Layer), k.allot(x.Shape()[0]), args...)
}

func (k *product) Run(in []G.Value) (G.Value, error) {
	if err := k.load(in); err != nil {
		return nil, err
	}
	if k.weight != nil {
		return k.acc, k.run()
	}
	return k.y, k.run()
}

// load reads the step's inputs.
func (k *product) load(in []G.Value) error {
	if k.weight != nil {
		return k.loadCodes(in)
	}
	var err error
	if k.x, err = gx.Floats(in[0]); err != nil {
		return err
	}
	if k.w, err = gx.Floats(in[1]); err != nil {
		return err
	}
	if k.bias {
		if k.b, err = gx.Floats(in[2]); err != nil {
			return err
		}
	}
	return nil
}

func (k *product) shardFloat(s, lo, hi int) {
	if k.dense {
		from, to := k.columns(lo, hi)
		n := k.geom.Cout
		kernel.Gemm(k.ys[from:], n, k.x, k.in, false, k.w[from:], n, false, k.st.Rows, to-from, k.in, false, k.st.Scratch(s))
		if k.b != nil {
			for r := range k.st.Rows {
				y := k.ys[r*n+from : r*n+to]
				kernel.AddBias(y, y, k.b[from:to], to-from)
			}
		}
		return
	}
	k.imagesFloat(k.ys[lo*k.outRow:hi*k.outRow], s, lo, hi)
}

// imagesFloat computes the examples [lo, hi) into y.
func (k *product) imagesFloat(y []float32, s, lo, hi int) {
	kernel.ConvForward(y, k.x[lo*k.in:hi*k.in], k.w, k.b, hi-lo, k.geom, k.st.Scratch(s))
}

// run cuts the forward pass: a convolution by examples, a dense layer by columns of the weight, so that its weights are
// read once and not once for each cut.
func (k *product) run() error {
	if k.dense {
		if k.weight != nil {
			k.rows.Set(k.codes.U8, k.in, k.in, k.st.Rows)
		}
		return k.st.Each((k.geom.Cout+kernel.ColumnUnit-1)/kernel.ColumnUnit, k.each)
	}
	return k.st.EachRow(k.each)
}

// columns are the columns of a cut of a dense layer.
func (k *product) columns(lo, hi int) (from, to int) {
	return lo * kernel.ColumnUnit, min(hi*kernel.ColumnUnit, k.geom.Cout)
}

func (k *product) loadCodes(in []G.Value) error {
	codes, ok := in[0].(*qat.Codes)
	if !ok {
		return fmt.Errorf("needs codes, has %T", in[0])
	}
	k.codes = codes
	sx, z := codes.Params.At(0)
	a := k.acc
	a.InScale = sx
	copy(a.Scale, in[1].(*qat.Codes).Params.Scale)
	for c, sum := range k.weight.Packed().ColSums {
		a.Offset[c] = -z * sum
	}
	if f := k.weight.Folded(); k.bias && f != nil { // batch norm, where there is one, folds later
		for c, b := range f.Bias {
			a.Offset[c] += b
		}
	}
	return nil
}

func (k *product) shardCodes(s, lo, hi int) {
	if k.dense {
		from, to := k.columns(lo, hi)
		kernel.GemmU8S8Columns(k.acc.Raw, k.geom.Cout, &k.rows, k.weight.Packed(), from, to, k.st.Scratch(s))
		return
	}
	k.imagesCodes(k.acc.Raw[lo*k.outRow:hi*k.outRow], s, lo, hi)
}

// imagesCodes computes the accumulators of the examples [lo, hi) into acc.
func (k *product) imagesCodes(acc []int32, s, lo, hi int) {
	_, z := k.codes.Params.At(0)
	kernel.ConvU8S8(acc, k.codes.U8[lo*k.in:hi*k.in], uint8(z), k.weight.Packed(), hi-lo, k.geom, k.st.Scratch(s))
}

// imagesValues computes the values of the accumulators of the examples [lo, hi) into v.
func (k *product) imagesValues(v []float32, s, lo, hi int, mult []float32) {
	_, z := k.codes.Params.At(0)
	kernel.ConvU8S8Values(v, k.codes.U8[lo*k.in:hi*k.in], uint8(z), k.weight.Packed(), k.acc.Offset, mult, hi-lo, k.geom, k.st.Scratch(s))
}

func (k *product) Needs() []bool { return []bool{k.needDX, true, true}[:2+btoi(k.bias)] }

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
