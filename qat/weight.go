package qat

import (
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// Weight quantizes the weight of one layer at every step: codes and scales by model.CodeWeights, the bias or frozen
// batch norm folded by model.Affine.Fold. The layer reads the results through Packed and Folded.
type Weight struct {
	st     *Step
	m      *model.Model
	node   *model.Node
	geom   kernel.ConvGeom
	master []float32
	p, in  *quant.Params // of the weight and of the layer's input
	out    *Codes
	values *tensor.Dense // s*q, where floats are multiplied by them; else nil
	wide   []int16       // codes of a layer with 64-bit accumulators; else nil
	packed kernel.PackedS8
	folded *model.Folded
	raised int
	passes weightPasses

	mask []uint8   // of the straight-through estimator; nil where it passes everything or nothing is trained
	ds   []float32 // gradient of what is learned
	sums []float64 // of the channels
	dw   *tensor.Dense
	dws  []float32
}

// QuantizeWeight adds the quantizer of the weight of node n of m. master is the leaf of the float32 weight; learned are the
// leaves of what the range method trains.
// geom is the layer as a convolution, a dense layer being one of 1x1 images. Where the layer reads
// floats, or 16-bit codes, the node gives the values of the codes as a float tensor.
func QuantizeWeight(st *Step, m *model.Model, n *model.Node, geom kernel.ConvGeom, master *G.Node, learned G.Nodes) (*G.Node, *Weight, error) {
	p := m.Quant[n.Param(model.Weight)]
	param := m.Params[n.Param(model.Weight)]
	kinds := p.Spec.Range.Learned()
	if len(learned) != len(kinds) || len(kinds) > 1 {
		return nil, nil, fmt.Errorf("weight %q: range method %s learns %v, and there are %d leaves", n.Layer, p.Spec.Range, kinds, len(learned))
	}
	c := n.Attr.Units
	spec, only := p.Spec, m.WeightOnly(n)
	if spec.Per == quant.PerTensor {
		spec.Per = quant.PerChannel
	}
	scales := spec.Scales(len(param.Data), c)
	w := &Weight{
		st: st, m: m, node: n, geom: geom, master: param.Data, p: p, in: m.Quant[n.In[0]],
		out: &Codes{
			S8:     make([]int8, len(param.Data)),
			Params: &quant.Params{Spec: spec, Scale: make([]float32, scales), Zero: make([]int32, scales), Channels: p.Channels},
			shape:  tensor.Shape(param.Shape),
		},
	}
	w.passes.init(w, c)
	var out G.Value = w.out
	if m.Wide(n) && !only {
		w.wide = make([]int16, len(param.Data))
	}
	if only || w.wide != nil {
		w.values = gx.NewTensor(param.Shape...)
		out = w.values
	}
	node, err := gx.Apply(w, label("weight", n.Layer, p.Spec), out, append([]*G.Node{master}, learned...)...)
	return node, w, err
}

// Codes are the codes and scales of the last step.
func (w *Weight) Codes() *Codes { return w.out }

// Reads says what stands for the layer's input where that is not the model's quantizer: codes behind a dropout have a
// larger scale.
func (w *Weight) Reads(in *quant.Params) { w.in = in }

// Packed are the codes as the integer kernels read them.
func (w *Weight) Packed() *kernel.PackedS8 { return &w.packed }

// Folded is what follows the accumulators: nil while batch norm trains, the bias alone without batch norm.
func (w *Weight) Folded() *model.Folded { return w.folded }

// Raised is the number of channels whose scale was raised at the last step so that no accumulator overflows.
func (w *Weight) Raised() int { return w.raised }

// Run codes the master.
func (w *Weight) Run([]G.Value) (G.Value, error) {
	q := w.out.Params
	if w.values != nil && w.wide == nil {
		if _, err := w.passes.code(nil); err != nil {
			return nil, err
		}
		return w.values, quant.Dequantize(w.values.Data().([]float32), w.out.S8, q)
	}
	var affine *model.Affine
	if !w.node.Attr.Norm || !w.st.NormTrains() {
		a, err := w.m.Affine(w.node)
		if err != nil {
			return nil, err
		}
		affine = &a
	}
	var err error
	if w.wide != nil {
		err = w.wideCodes(affine)
	} else {
		w.raised, err = w.passes.code(affine)
	}
	if err != nil {
		return nil, err
	}
	w.folded = nil
	if affine != nil {
		f, bad := affine.Fold(q.Scale, w.in.Scale[0])
		if bad >= 0 {
			return nil, fmt.Errorf("bias of channel %d does not fit 32 bits", bad)
		}
		w.folded = &f
	}
	if w.wide != nil {
		return w.values, quant.Dequantize(w.values.Data().([]float32), w.wide, q)
	}
	return w.out, w.passes.pack()
}

// Needs says that the master and what is learned get gradients.
func (w *Weight) Needs() []bool {
	if w.p.Spec.Range.Learns() {
		return []bool{true, true}
	}
	return []bool{true}
}

// follows reports a scale that is made of the weights at every step.
func (w *Weight) follows() bool {
	return w.p.Spec.Range == quant.MinMax || w.p.Spec.Range == quant.Mean
}

// Backward is the straight-through estimator. A scale made of the weights' magnitudes clamps nothing by choice of its own,
// so the gradient is the upstream one, unless an estimator of the sign shapes it. What dorefa codes is never outside its grid:
// its gradient is the upstream one through model.Squash.
func (w *Weight) Backward(in G.Nodes, _, grad *G.Node) (G.Nodes, error) {
	if w.follows() && w.p.Spec.Estimator == quant.Clipped {
		return G.Nodes{grad}, nil
	}
	var ok bool
	if w.dw, ok = gx.Output(grad).(*tensor.Dense); !ok { // a layer's gradient is made anew at each step: masked in place
		w.dw = gx.NewTensor(w.out.shape...)
	}
	w.dws = w.dw.Data().([]float32)
	if w.p.Spec.Range != quant.DoReFa {
		w.mask = make([]uint8, kernel.MaskLen(len(w.master)))
	}
	w.sums = make([]float64, len(w.out.Params.Scale))
	w.ds = make([]float32, len(w.p.Scale))
	dw, err := gx.Apply(weightGrad{w}, "gradient(weight "+w.node.Layer+")", w.dw, in[0], grad)
	if err != nil || !w.p.Spec.Range.Learns() {
		return G.Nodes{dw}, err
	}
	ds, err := gx.Side(fmt.Sprintf("gradient(%s %s)", w.p.Spec.Range.Learned()[0], w.node.Layer), gx.Wrap(w.ds, len(w.ds)), dw)
	return G.Nodes{dw, ds}, err
}

// BeginRowsGrad makes ready for [Weight.RowsGrad] in a loop over the rows of a dense layer's weight, whose gradient dw is. It
// reports whether that has a use: where not, the weight's gradient is an op of its own.
func (w *Weight) BeginRowsGrad(dw []float32, rows int) bool {
	return w.dw != nil && w.passes.beginRows(dw, rows)
}

// RowsGrad masks the rows [lo, hi) of the gradient and sums that of what is learned, while shard s has them in cache. In a
// shard, rows come in order, multiples of 32 at a time but for the last.
func (w *Weight) RowsGrad(s, lo, hi int) { w.passes.gradRows(s, lo, hi) }

// weightGrad masks the gradient of the codes' values and sums that of what is learned (D5).
type weightGrad struct{ f *Weight }

func (k weightGrad) Run(in []G.Value) (G.Value, error) {
	w := k.f
	if !w.passes.gradByRows() {
		dy, err := gx.Floats(in[1])
		if err != nil {
			return nil, err
		}
		if err := w.passes.grad(w.dws, dy); err != nil || !w.p.Spec.Range.Learns() {
			return w.dw, err
		}
	}
	_, hi := w.p.Spec.Grid()
	method, scale := w.p.Spec.Range, w.out.Params.Scale
	shared := len(scale) / len(w.ds) // channels that share a scale; a group shares it with none
	g := w.st.ScaleFactor.Of(len(w.master)/len(w.ds), hi)
	for i, s := range w.p.Scale {
		sum := 0.0
		for c := i * shared; c < (i+1)*shared; c++ {
			part := w.sums[c]
			if scale[c] != s { // by a power of two, where CodeWeights raised it
				part = float64(part * (float64(scale[c]) / float64(s)))
			}
			sum += part
		}
		if w.p.Spec.Per == quant.PerGroup { // the last group may be short
			size := w.p.Spec.Group
			g = w.st.ScaleFactor.Of(min(size, len(w.master)/w.node.Attr.Units-i/w.node.Attr.Units*size), hi)
		}
		w.ds[i], _ = gradients(method, slopes{Scale: sum}, s, hi, g, 0)
	}
	return w.dw, nil
}

// signSlope is the derivative that an estimator puts for that of a sign; nil for the clipped one, which is a mask.
func signSlope(e quant.Estimator) func(t float32) float32 {
	switch e {
	case quant.ApproxSign:
		return kernel.ApproxSignSlope
	case quant.SwishSign:
		return kernel.SwishSignSlope
	}
	return nil
}

// InitialScale sets the scales of a learned-scale weight that has none yet to 2*mean|w|/sqrt(hi) (arXiv:1902.08153,
// section 2.1), with even levels mean|w|/sqrt(hi), for each channel, each group of its rows, or the tensor. A calibrated scale is a better start and is left alone.
func InitialScale(p *quant.Params, w []float32, channels int) {
	if !p.Spec.Range.Learns() || len(p.Scale) > 0 {
		return
	}
	n := p.Spec.Scales(len(w), channels)
	_, hi := p.Spec.Grid()
	p.Scale, p.Zero = make([]float32, n), make([]int32, n)
	sums := make([]float64, n)
	count := make([]int, n)
	for i, v := range w {
		c := p.Index(i)
		sums[c] += math.Abs(float64(v))
		count[c]++
	}
	for c := range p.Scale {
		mean := sums[c] / float64(count[c])
		p.Scale[c] = max(float32(firstStep(p.Spec)*mean/math.Sqrt(float64(hi))), quant.MinScale)
		if p.Spec.Scheme == quant.PowerOfTwo {
			p.Scale[c], _ = p.Spec.Choose(0, p.Scale[c]*float32(hi))
		}
	}
}

// firstStep is the factor of a learned scale's first value: of even levels the scale is half a step.
func firstStep(s quant.Spec) float64 {
	if s.Even {
		return 1
	}
	return 2
}
