package onnx

import (
	"fmt"
	"slices"

	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// step is one operator of a chain of reals: it makes out from in.
type step func(out, in string) string

// chain writes operators one behind the other, then the node's ReLU and the rounding of a 16-bit tensor. The first reads
// in. Every operator but the last gets a helper's name; the last makes the tensor out, the reals of the node.
func (b *builder) chain(n *model.Node, out, in string, steps []step) error {
	if n.Attr.Relu || n.Op == model.ReLU {
		relu, err := b.relu(n)
		if err != nil {
			return err
		}
		steps = append(steps, relu)
	}
	if q := b.m.Quant[n.Name]; q != nil && q.Spec.Format.Rounds16() {
		steps = append(steps, func(out, in string) string { return b.rounded(in, out, q.Spec.Format) })
	}
	at := in
	for i, write := range steps {
		name := out
		if i < len(steps)-1 {
			name = b.fresh(n.Name + "_acc")
		}
		at = write(name, at)
	}
	b.real[n.Name] = at
	return nil
}

// relu is the ReLU of a node on reals: Relu, or a Clip to [0, cap].
func (b *builder) relu(n *model.Node) (step, error) {
	if n.Attr.Cap == 0 {
		return func(out, in string) string { return b.add("Relu", out, []string{in}) }, nil
	}
	limits := make([]string, 2)
	for i, v := range []float32{0, n.Attr.Cap} {
		name := []string{"_min", "_max"}[i]
		t, err := onnxpb.FloatTensor(b.fresh(n.Name+name), onnxpb.Float, nil, []float32{v})
		if err != nil {
			return nil, err
		}
		limits[i] = b.initializer(t)
	}
	return func(out, in string) string { return b.add("Clip", out, []string{in, limits[0], limits[1]}) }, nil
}

// addition writes Add between DequantizeLinear and QuantizeLinear, or of reals. Flattened images have their elements in
// the file's order, c, h, w: a sum of one with a tensor that is no flattened image would mix two orders.
func (b *builder) addition(n *model.Node) error {
	first, flat := b.images[n.In[0]]
	second, both := b.images[n.In[1]]
	if flat != both || !slices.Equal(first, second) {
		return fmt.Errorf("adds a flattened image %v to %v, whose elements have another order in an ONNX file; add the images before flattening them", first, second)
	}
	if flat {
		b.images[n.Name] = first
	}
	in := make([]string, 2)
	for i, name := range n.In {
		var err error
		if in[i], err = b.reals(name); err != nil {
			return err
		}
	}
	if n.Requant == nil {
		return b.chain(n, n.Name, "", []step{func(out, _ string) string { return b.add("Add", out, in) }})
	}
	b.codes[n.Name] = n.Name
	return b.requantized(n, b.add("Add", b.fresh(n.Name+"_acc"), in), n.Name)
}

// globalAvg writes GlobalAveragePool, whose result is [N, C, 1, 1], and a Flatten that makes it the model's [N, C].
func (b *builder) globalAvg(n *model.Node) error {
	x, err := b.reals(n.In[0])
	if err != nil {
		return err
	}
	pooled := b.fresh(n.Name + "_pooled")
	if n.Requant == nil {
		if err := b.chain(n, pooled, "", []step{func(out, _ string) string { return b.add("GlobalAveragePool", out, []string{x}) }}); err != nil {
			return err
		}
		b.real[n.Name] = b.add("Flatten", n.Name, []string{pooled}, onnxpb.IntAttr("axis", 1))
		return nil
	}
	if err := b.requantized(n, b.add("GlobalAveragePool", b.fresh(n.Name+"_acc"), []string{x}), pooled); err != nil {
		return err
	}
	b.codes[n.Name] = b.add("Flatten", n.Name, []string{pooled}, onnxpb.IntAttr("axis", 1))
	return nil
}

// ownReLU writes a ReLU that no layer before it took in. On codes an upper limit makes it a Clip of the codes.
func (b *builder) ownReLU(n *model.Node) error {
	if image, flat := b.images[n.In[0]]; flat {
		b.images[n.Name] = image
	}
	codes, quantized := b.codes[n.In[0]]
	switch {
	case n.Attr.Cap == 0:
		return b.moved(n, b.m.Quant[n.Name], "Relu")
	case quantized && b.m.Quant[n.Name].Spec.Format == quant.Int16:
		in, err := b.reals(n.In[0])
		if err != nil {
			return err
		}
		limit, err := b.relu(n)
		if err != nil {
			return err
		}
		b.codes[n.Name] = n.Name
		_, err = b.quantize(limit(b.fresh(n.Name+"_limited"), in), n.Name, b.m.Quant[n.Name])
		return err
	case quantized:
		_, lo, hi := n.Limits(b.m.Quant[n.Name])
		b.codes[n.Name] = n.Name
		return b.clipped(n.Name, codes, n.Name, lo, hi)
	}
	in, err := b.reals(n.In[0])
	if err != nil {
		return err
	}
	return b.chain(n, n.Name, in, nil)
}
