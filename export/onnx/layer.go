package onnx

import (
	"fmt"

	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// product writes the Conv or Gemm of a layer. bias may be "".
func (b *builder) product(n *model.Node, out, x, weight, bias string) string {
	in := []string{x, weight}
	if bias != "" {
		in = append(in, bias)
	}
	if n.Op == model.Dense {
		return b.add("Gemm", out, in, onnxpb.IntAttr("transB", 1))
	}
	return b.add("Conv", out, in, append(windowAttrs(n), onnxpb.IntAttr("group", int64(n.Attr.Groups)))...)
}

// outputMajor brings the weights of a layer into the file's order and shape: [O, I, KH, KW] or [Out, In].
func outputMajor[T any](b *builder, n *model.Node, w []T, s model.Shape) ([]T, []int64) {
	if n.Op == model.Conv {
		return outputsFirst(w, s), []int64{int64(s[3]), int64(s[2]), int64(s[0]), int64(s[1])}
	}
	if image, ok := b.images[n.In[0]]; ok {
		w = channelsFirstRows(w, image, s[1])
	}
	return transposed(w, s[1]), []int64{int64(s[1]), int64(s[0])}
}

// integerLayer writes a layer of codes: DequantizeLinear on input, weight and bias, the product, QuantizeLinear, Clip.
func (b *builder) integerLayer(n *model.Node) error {
	x, err := b.reals(n.In[0])
	if err != nil {
		return err
	}
	weight, err := b.weightCodes(n)
	if err != nil {
		return err
	}
	bias, err := b.biasCodes(n)
	if err != nil {
		return err
	}
	r := n.Requant
	if r.Float {
		if !n.Attr.Relu {
			b.real[n.Name] = b.product(n, n.Name, x, weight, bias)
			return nil
		}
		b.real[n.Name] = b.add("Relu", n.Name, []string{b.product(n, b.fresh(n.Name+"_acc"), x, weight, bias)})
		return nil
	}
	b.codes[n.Name] = n.Name
	return b.requantized(n, b.product(n, b.fresh(n.Name+"_acc"), x, weight, bias), n.Name)
}

// requantized rounds the reals acc of a node to the codes out: QuantizeLinear, and a Clip where uint8 saturation does not
// give the limits.
func (b *builder) requantized(n *model.Node, acc, out string) error {
	q, r := b.m.Quant[n.Name], n.Requant
	if _, z := q.At(0); z != r.Zero {
		return fmt.Errorf("zero point %d of the layer is not %d of its output", r.Zero, z)
	}
	if r.Sign {
		return b.signed(acc, out, r.Lo, r.Hi)
	}
	if q.Spec.Format == quant.Int16 { // limits of reals: runtimes have no Clip of 16-bit codes
		if n.Attr.Relu {
			limit, err := b.relu(n)
			if err != nil {
				return err
			}
			acc = limit(b.fresh(n.Name+"_limited"), acc)
		}
		_, err := b.quantize(acc, out, q)
		return err
	}
	if r.Lo == 0 && r.Hi == 255 { // what uint8 saturation does
		_, err := b.quantize(acc, out, q)
		return err
	}
	wide, err := b.quantize(acc, b.fresh(n.Name+"_wide"), q)
	if err != nil {
		return err
	}
	return b.clipped(n.Name, wide, out, r.Lo, r.Hi)
}

// signed gives reals from 0 on the code hi and negative ones lo: no QuantizeLinear does, since it rounds what is near 0 to
// the code of 0.
func (b *builder) signed(in, out string, lo, hi int32) error {
	zero, err := onnxpb.FloatTensor(b.fresh(out+"_from"), onnxpb.Float, nil, []float32{0})
	if err != nil {
		return err
	}
	positive := b.add("GreaterOrEqual", b.fresh(out+"_positive"), []string{in, b.initializer(zero)})
	choice := []string{positive}
	for _, code := range []int32{hi, lo} {
		t, err := onnxpb.IntTensor(b.fresh(out+"_code"), onnxpb.Uint8, nil, []int32{code})
		if err != nil {
			return err
		}
		choice = append(choice, b.initializer(t))
	}
	b.add("Where", out, choice)
	return nil
}

// clipped limits codes.
func (b *builder) clipped(name, in, out string, lo, hi int32) error {
	limits := []string{in}
	for _, l := range []struct {
		name string
		v    int32
	}{{"_lo", lo}, {"_hi", hi}} {
		t, err := onnxpb.IntTensor(b.fresh(name+l.name), onnxpb.Uint8, nil, []int32{l.v})
		if err != nil {
			return err
		}
		limits = append(limits, b.initializer(t))
	}
	b.add("Clip", out, limits)
	return nil
}

// weightCodes stores the codes and their scale per output channel, and dequantizes them.
func (b *builder) weightCodes(n *model.Node) (string, error) {
	name := n.Param(model.Weight)
	p := b.m.Params[name]
	channels := []int64{int64(n.Attr.Units)}
	if p.Codes16 != nil {
		codes, dims := outputMajor(b, n, p.Codes16, p.Shape)
		return dequantized(b, name, codes, dims, b.m.Quant[name].Scale, channels)
	}
	codes, dims := outputMajor(b, n, p.Codes, p.Shape)
	return dequantized(b, name, codes, dims, b.m.Quant[name].Scale, channels)
}

// biasCodes stores the int32 bias with the scale of the accumulator, f32(s_x * s_w[c]), and dequantizes it.
func (b *builder) biasCodes(n *model.Node) (string, error) {
	name := n.Param(model.Bias)
	channels := []int64{int64(n.Attr.Units)}
	sx, _ := b.m.Quant[n.In[0]].At(0)
	scales := make([]float32, n.Attr.Units)
	for c := range scales {
		sw, _ := b.m.Quant[n.Param(model.Weight)].At(c)
		scales[c] = quant.Mul32(sx, sw)
	}
	codes, err := onnxpb.IntTensor(b.fresh(name), onnxpb.Int32, channels, b.m.Params[name].Int32)
	if err != nil {
		return "", err
	}
	scale, err := onnxpb.FloatTensor(b.fresh(name+"_scale"), onnxpb.Float, channels, scales)
	if err != nil {
		return "", err
	}
	return b.add("DequantizeLinear", b.fresh(name+"_dq"), []string{b.initializer(codes), b.initializer(scale)}, onnxpb.IntAttr("axis", 0)), nil
}

// floatLayer writes a layer of reals: product, batch norm as a multiplication and an addition, ReLU, and the rounding
// of a 16-bit tensor.
func (b *builder) floatLayer(n *model.Node) error {
	x, err := b.reals(n.In[0])
	if err != nil {
		return err
	}
	weight, err := b.weightReals(n)
	if err != nil {
		return err
	}
	bias := ""
	if p := b.m.Params[n.Param(model.Bias)]; p != nil {
		if bias, err = b.floats(n.Param(model.Bias), []int64{int64(n.Attr.Units)}, p.Data); err != nil {
			return err
		}
	}
	var chain []step
	chain = append(chain, func(out, _ string) string { return b.product(n, out, x, weight, bias) })
	if n.Attr.Norm {
		dims := []int64{int64(n.Attr.Units)}
		if n.Op == model.Conv {
			dims = append(dims, 1, 1)
		}
		for _, part := range []struct{ role, op string }{{model.NormMul, "Mul"}, {model.NormAdd, "Add"}} {
			factor, err := b.floats(n.Param(part.role), dims, b.m.Params[n.Param(part.role)].Data)
			if err != nil {
				return err
			}
			chain = append(chain, func(out, in string) string { return b.add(part.op, out, []string{in, factor}) })
		}
	}
	return b.chain(n, n.Name, "", chain)
}

// weightReals stores float32 weights, 16-bit ones behind a Cast, or codes behind a DequantizeLinear.
func (b *builder) weightReals(n *model.Node) (string, error) {
	name := n.Param(model.Weight)
	p := b.m.Params[name]
	if p.Codes != nil {
		return b.weightValues(n)
	}
	if p.Half == nil {
		w, dims := outputMajor(b, n, p.Data, p.Shape)
		return b.floats(name, dims, w)
	}
	format := b.m.Quant[name].Spec.Format
	values := make([]float32, len(p.Half))
	for i, bits := range p.Half {
		values[i] = quant.Decode16(bits, format)
	}
	w, dims := outputMajor(b, n, values, p.Shape)
	t, err := onnxpb.FloatTensor(b.fresh(name), halfType(format), dims, w)
	if err != nil {
		return "", err
	}
	return b.cast(b.initializer(t), b.fresh(name+"_real"), onnxpb.Float), nil
}

func (b *builder) floats(name string, dims []int64, v []float32) (string, error) {
	t, err := onnxpb.FloatTensor(b.fresh(name), onnxpb.Float, dims, v)
	if err != nil {
		return "", err
	}
	return b.initializer(t), nil
}

func halfType(f quant.Format) onnxpb.DataType {
	if f == quant.BF16 {
		return onnxpb.BFloat16
	}
	return onnxpb.Float16
}

// rounded rounds reals to a 16-bit format and back: value rounding at a store.
func (b *builder) rounded(in, out string, f quant.Format) string {
	return b.cast(b.cast(in, b.fresh(out+"_half"), halfType(f)), out, onnxpb.Float)
}

func (b *builder) cast(in, out string, to onnxpb.DataType) string {
	return b.add("Cast", out, []string{in}, onnxpb.IntAttr("to", int64(to)))
}
