package model

import (
	"fmt"
	"math"
	"slices"

	"github.com/narrow-ml/narrow/quant"
)

// Affine is what follows a layer's product v in real arithmetic, per output channel: y = F[c]*v + B[c]. Without batch
// norm F is nil (all one) and B is the bias.
type Affine struct {
	F []float64
	B []float64

	// NoZero says that weight codes have no level 0 (even levels): a channel whose factor vanishes keeps its codes, at the
	// floor's scale.
	NoZero bool
}

// NormFloor is the smallest |gamma/sqrt(var+eps)| that a channel's scale is multiplied by. Below it the channel's codes
// count as zero and only its bias is left, so nothing is ever divided by a vanishing gamma.
const NormFloor = 1.0 / (1 << 20)

// Affine reads the bias or the batch norm of a layer from its masters. With batch norm, in float64:
//
//	F = gamma / sqrt(var + eps)      B = beta + (bias - mean)*F
func (m *Model) Affine(n *Node) (Affine, error) {
	c := n.Attr.Units
	a := Affine{B: make([]float64, c)}
	if q := m.Quant[n.Param(Weight)]; q != nil {
		a.NoZero = q.Spec.Even
	}
	var bias []float32
	if n.Attr.Bias {
		p := m.Params[n.Param(Bias)]
		if p == nil || len(p.Data) != c {
			return a, n.errorf("bias is missing")
		}
		bias = p.Data
	}
	if !n.Attr.Norm {
		for i := range bias {
			a.B[i] = float64(bias[i])
		}
		return a, a.check(n)
	}
	var stat [4][]float32
	for i, role := range []string{Gamma, Beta, Mean, Var} {
		p := m.Params[n.Param(role)]
		if p == nil || len(p.Data) != n.statistics(c) {
			return a, n.errorf("batch norm parameter %q is missing", n.Param(role))
		}
		stat[i] = p.Data
		if n.Attr.Whole {
			stat[i] = slices.Repeat(p.Data, c)
		}
	}
	a.F = make([]float64, c)
	for i := range a.F {
		f := float64(stat[0][i]) / math.Sqrt(float64(stat[3][i])+float64(n.Attr.Eps))
		b := 0.0
		if bias != nil {
			b = float64(bias[i])
		}
		shift := float64((b - float64(stat[2][i])) * f) // the conversion forbids a fused multiply-add
		a.F[i], a.B[i] = f, float64(stat[1][i])+shift
	}
	return a, a.check(n)
}

// check refuses NaN and whatever a float32 cannot hold.
func (a Affine) check(n *Node) error {
	for c, v := range a.B {
		if !(math.Abs(v) <= math.MaxFloat32) {
			return n.errorf("bias or batch norm of channel %d is %v", c, v)
		}
	}
	for c, v := range a.F {
		if !(math.Abs(v) <= math.MaxFloat32) {
			return n.errorf("batch norm factor of channel %d is %v (gamma / sqrt(var+eps))", c, v)
		}
	}
	return nil
}

// Folded is an [Affine] in the integer arithmetic of one layer.
type Folded struct {
	Sign  []int8    // what the accumulator (or the weight code) is multiplied by: -1, 0 or 1
	Scale []float32 // S[c]: the accumulator's scale is s_x*S[c]
	Bias  []int32   // q_b, in the accumulator
}

// Fold maps y = F*v + B onto accumulators whose weight scales are scale and whose input scale is sx:
//
//	S[c] = float32(scale[c]*|F[c]|)      q_b = rint(B[c] / float32(sx*S[c]))
//
// It reports the first channel whose bias does not fit an int32, or -1; [CodeWeights] raises scales until all fit.
func (a Affine) Fold(scale []float32, sx float32) (Folded, int) {
	c := len(scale)
	f := Folded{Sign: make([]int8, c), Scale: make([]float32, c), Bias: make([]int32, c)}
	for i, s := range scale {
		var ok bool
		if f.Sign[i], f.Scale[i], f.Bias[i], ok = a.foldChannel(i, s, sx); !ok {
			return f, i
		}
	}
	return f, -1
}

func (a Affine) foldChannel(i int, scale, sx float32) (sign int8, s float32, bias int32, ok bool) {
	sign, s = 1, scale
	if a.F != nil {
		mag := math.Abs(a.F[i])
		switch {
		case mag < NormFloor && !a.NoZero:
			sign, mag = 0, NormFloor
		case a.F[i] < 0:
			sign = -1
		}
		mag = max(mag, NormFloor)
		s = float32(float64(scale) * mag)
	}
	bias, ok = quant.BiasCode(a.B[i], sx, s)
	return sign, s, bias, ok
}

// Loops are the two passes over a weight that [CodeWeights] makes. They let a package with vector instructions lend them;
// both must compute exactly what the plain Go loops of this package do. The zero value is those loops.
type Loops struct {
	// AbsMax writes the greatest magnitude in each channel, infinities included, and returns the index of the first NaN,
	// or -1.
	AbsMax func(dst, w []float32, channels int) (nan int)
	// Quantize writes clamp(rint(w/scale), lo, hi), one scale per channel, and, unless mask is nil, one bit per element
	// that the clamp did not change (bit i&7 of byte i>>3). It returns the index of the first weight that is infinite or
	// NaN, or -1.
	Quantize func(codes []int8, mask []uint8, w, scale []float32, lo, hi int32) (odd int)
	// Squash returns what [Squash] makes of a weight, in memory of its own.
	Squash func(w []float32, top float32) []float32
	// Noise has a number of [0, 1) for each weight that is rounded stochastically: floor(w/scale + noise). Without it such
	// weights are rounded to nearest, as they are outside of training.
	Noise []float32
}

// CodeWeights is [Loops.CodeWeights] with plain Go loops and without a mask.
func CodeWeights(codes []int8, scale []float32, w []float32, p, in *quant.Params, affine *Affine) (raised int, err error) {
	return Loops{}.CodeWeights(codes, nil, scale, w, p, in, affine)
}

// CodeWeights computes the codes and the per-channel scales of the float32 master w (channels last). It is the one place
// where a weight scale is decided, for training, evaluation and Freeze alike.
//
// The scale is absmax/hi of the channel (or of the tensor, or of a channel's group of rows) for the range method minmax,
// mean|w| of it for mean, that of the Spec for constant, that of [-1, 1] for dorefa, which codes what [Squash] makes of w,
// and p.Scale otherwise (lsq, mse, percentile). len(scale) is the
// number of channels, with groups that of [quant.Spec.Scales].
// Where the layer computes on integers the scale is then doubled, channel by channel, until
//
//	|q_b| + sum|q_w| * max(z_x - lo_x, hi_x - z_x) <= 2^31 - 1
//
// so that no accumulator can overflow and the bias fits. in is the layer's input quantizer; floats in it mean that the
// weights are dequantized before they are multiplied. While batch norm trains there
// is no bias in the accumulator: pass a nil affine. A mask that is not nil gets a bit for each weight inside the grid. The
// number of channels whose scale was raised is returned.
func (l Loops) CodeWeights(codes []int8, mask []uint8, scale []float32, w []float32, p, in *quant.Params, affine *Affine) (raised int, err error) {
	c := len(scale)
	if p.Spec.Per == quant.PerGroup {
		c = p.Channels
	}
	if c == 0 || len(w)%c != 0 || len(codes) != len(w) || max(p.Spec.Scales(len(w), c), c) != len(scale) {
		return 0, fmt.Errorf("%d weights, %d codes, %d channels and %d scales do not fit", len(w), len(codes), c, len(scale))
	}
	if err := checkCoding(p, in, affine, c, 8); err != nil {
		return 0, err
	}
	if l.AbsMax == nil {
		noise := l.Noise
		l = plainLoops()
		l.Noise = noise
	}
	w, err = l.weightScales(scale, w, p, c, l.quantizes(p.Spec))
	if err != nil {
		return 0, err
	}
	lo, hi := p.Spec.Grid()
	if !in.Spec.Format.IsInteger() {
		return 0, l.code(codes, mask, w, scale, c, p.Spec)
	}
	most := int64(len(w)/c) * int64(max(hi, -lo)) // no channel's sum of |q_w| is larger
	xLo, xHi := in.Spec.Grid()
	reach := int64(max(in.Zero[0]-xLo, xHi-in.Zero[0]))
	for ch := range scale {
		if fits(ch, scale[ch], most*reach, in, affine) {
			continue
		}
		before := scale[ch]
		if err := weightError(w); err != nil {
			return raised, err
		}
		for !fits(ch, scale[ch], channelSum(w, ch, c, scale[ch], p.Spec)*reach, in, affine) {
			if scale[ch] > math.MaxFloat32/2 {
				return raised, fmt.Errorf("channel %d: no scale keeps the accumulator within 32 bits; its bias or batch norm is out of all proportion to its weights", ch)
			}
			scale[ch] *= 2
		}
		if scale[ch] != before {
			raised++
		}
	}
	return raised, l.code(codes, mask, w, scale, c, p.Spec)
}

// channelSum is the sum of |q_w| over a channel; of weights that are rounded stochastically the largest it can be, so that
// training and Freeze raise the same scales.
func channelSum(w []float32, ch, channels int, scale float32, spec quant.Spec) int64 {
	var sum int64
	for i := ch; i < len(w); i += channels {
		sum += magnitude(w[i], scale, spec)
	}
	return sum
}

// checkCoding reports arguments of [CodeWeights] that it cannot work with.
func checkCoding(p, in *quant.Params, affine *Affine, channels, bits int) error {
	if s := p.Spec; !s.Format.IsInteger() || s.Format.Bits() > bits || !s.Signed || s.Scheme == quant.Affine {
		return fmt.Errorf("%s: weights must be signed integers, without zero point and at most %d bits", s, bits)
	}
	if in == nil {
		return fmt.Errorf("the layer's input has no quantizer")
	}
	if err := in.Validate(1); err != nil {
		return fmt.Errorf("input quantizer: %w", err)
	}
	if p.Spec.Per == quant.PerGroup && in.Spec.Format.IsInteger() {
		return errGroupOfCodes
	}
	if affine != nil && (len(affine.B) != channels || (affine.F != nil && len(affine.F) != channels)) {
		return fmt.Errorf("%d biases and %d batch norm factors for %d channels", len(affine.B), len(affine.F), channels)
	}
	return nil
}

// fits reports whether the bias of a channel and products of magnitude bound fit an accumulator.
func fits(ch int, scale float32, bound int64, in *quant.Params, affine *Affine) bool {
	if affine != nil {
		_, _, q, ok := affine.foldChannel(ch, scale, in.Scale[0])
		if !ok {
			return false
		}
		if q < 0 {
			q = -q
		}
		bound += int64(q)
	}
	return bound <= math.MaxInt32
}

// weightScales fills scale, one per channel of each block, before any raise, and returns what is coded: w, or what the method
// makes of it. Weights must be finite whatever the method; with checked the quantizer will see to that, so that weights
// whose maximum does not matter are not read here.
func (l Loops) weightScales(scale []float32, w []float32, p *quant.Params, channels int, checked bool) ([]float32, error) {
	if checked && (p.Spec.Range.Learns() || p.Spec.Range == quant.Constant) {
		return w, givenScales(scale, p)
	}
	each := channels
	if p.Spec.Range != quant.MinMax || p.Spec.Per == quant.PerTensor {
		each = 1 // the tensor's maximum will do
	}
	top := float32(0)
	for b := range Blocks(len(w), channels, p.Spec) {
		tops := scale[b.Scale : b.Scale+each]
		if nan := l.AbsMax(tops, w[b.From:b.To], each); nan >= 0 {
			return nil, weightError(w)
		}
		for _, v := range tops {
			if v > top {
				top = v
			}
		}
	}
	if !finite(top) {
		return nil, weightError(w)
	}
	switch p.Spec.Range {
	case quant.Mean:
		for b := range Blocks(len(w), channels, p.Spec) {
			meanScales(scale[b.Scale:b.Scale+channels], w[b.From:b.To], p.Spec.Per)
		}
		return w, nil
	case quant.DoReFa:
		if p.Spec.Per != quant.PerTensor {
			return nil, errDoReFaPer
		}
		for ch := range scale {
			scale[ch], _ = p.Spec.Choose(-1, 1)
		}
		return l.Squash(w, top), nil
	case quant.MinMax:
	default:
		return w, givenScales(scale, p)
	}
	if p.Spec.Per == quant.PerTensor {
		for ch := range scale {
			scale[ch] = top
		}
	}
	p.Spec.ChooseSymmetric(scale, scale)
	return w, nil
}

// givenScales writes scales that do not follow from the weights.
func givenScales(scale []float32, p *quant.Params) error {
	given := p.Scale
	if p.Spec.Range == quant.Constant {
		s, _ := p.Spec.ConstantScale()
		given = []float32{s}
	}
	if len(given) != 1 && len(given) != len(scale) {
		return fmt.Errorf("range method %s needs 1 or %d scales, has %d: calibrate first", p.Spec.Range, len(scale), len(given))
	}
	for n := 0; n < len(scale); n += len(given) {
		copy(scale[n:], given)
	}
	for ch, s := range scale {
		if !(s > 0 && s <= math.MaxFloat32) {
			return &quant.ScaleError{Index: ch, Scale: s}
		}
	}
	return nil
}

// meanScales writes mean|w| of each channel, or of the tensor: the scale that minimises the squared error of binary weights
// (arXiv:1603.05279, section 3.1). Sums are in float64, row by row.
func meanScales(scale, w []float32, per quant.Granularity) {
	c := len(scale)
	sums := make([]float64, c)
	for from := 0; from < len(w); from += c {
		for ch, v := range w[from : from+c] {
			sums[ch] += math.Abs(float64(v))
		}
	}
	if per == quant.PerTensor {
		total := 0.0
		for _, v := range sums {
			total += v
		}
		for ch := range sums {
			sums[ch] = total / float64(c)
		}
	}
	for ch, v := range sums {
		scale[ch] = max(float32(v/float64(len(w)/c)), quant.MinScale)
	}
}

// weightError names the first weight that is not finite.
func weightError(w []float32) error {
	for i, v := range w {
		switch {
		case v != v:
			return &quant.NaNError{Index: i}
		case !finite(v):
			return fmt.Errorf("value[%d] is %v; a weight must be finite", i, v)
		}
	}
	return nil
}
