package quant

import (
	"fmt"
	"math"
)

// Params is a Spec with the numbers that belong to it: one scale and zero point per tensor, one per channel, or one per
// channel for each group of rows. Formats that are not integers have neither.
type Params struct {
	Spec     Spec
	Scale    []float32
	Zero     []int32
	Channels int // with granularity group: the extent of the tensor's last axis; else 0

	Learned []float32 // what the range method trains beside or instead of the scales; see [Params.Start]
}

// NewParams is a Spec whose scales are to come, for a tensor with the given extent of its last axis.
func NewParams(s Spec, channels int) *Params {
	p := &Params{Spec: s}
	if s.Per == PerGroup {
		p.Channels = channels
	}
	return p
}

// Index is the place of the scale of element i: 0 per tensor, i mod C per channel, and with groups of G rows
//
//	(i / (G*C))*C + i mod C
func (p *Params) Index(i int) int {
	if p.Spec.Per == PerGroup {
		return i/(p.Spec.Group*p.Channels)*p.Channels + i%p.Channels
	}
	return i % len(p.Scale)
}

// Ready reports whether p has its scales, that is, whether calibration or training has been done.
func (p *Params) Ready() bool { return !p.Spec.Format.IsInteger() || len(p.Scale) > 0 }

// At is the scale and zero point of channel c.
func (p *Params) At(c int) (scale float32, zero int32) {
	if len(p.Scale) == 1 {
		return p.Scale[0], p.Zero[0]
	}
	return p.Scale[c], p.Zero[c]
}

// Clone copies p and its slices.
func (p *Params) Clone() *Params {
	return &Params{
		Spec: p.Spec, Scale: append([]float32(nil), p.Scale...), Zero: append([]int32(nil), p.Zero...), Channels: p.Channels,
		Learned: append([]float32(nil), p.Learned...),
	}
}

// Validate checks the Spec, the number of scales for a tensor of the given channel count (of groups, that it is whole), that every scale is finite
// and positive, and that every zero point is on the grid.
func (p *Params) Validate(channels int) error {
	if err := p.Spec.Validate(); err != nil {
		return err
	}
	if !p.Spec.Format.IsInteger() {
		return nil
	}
	want := p.Spec.Scales(channels, channels)
	if p.Spec.Per == PerGroup {
		want = max(len(p.Scale)/channels, 1) * channels // as many groups as there are rows for
	}
	if (p.Channels != 0) != (p.Spec.Per == PerGroup) || p.Channels != 0 && p.Channels != channels {
		return fmt.Errorf("granularity %s with %d channels in its groups; the tensor has %d", p.Spec.Per, p.Channels, channels)
	}
	if len(p.Scale) != want || len(p.Zero) != want {
		return fmt.Errorf("%s needs %d scales and zero points, has %d and %d", p.Spec.Per, want, len(p.Scale), len(p.Zero))
	}
	if n := len(p.Learned); n != 0 && n != want {
		return fmt.Errorf("%s needs %d learned numbers, has %d", p.Spec.Per, want, n)
	}
	lo, hi := p.Spec.Grid()
	for i, s := range p.Scale {
		if !(s > 0) || math.IsInf(float64(s), 0) {
			return &ScaleError{Index: i, Scale: s}
		}
		z := p.Zero[i]
		if z < lo || z > hi {
			return fmt.Errorf("zero[%d] = %d is outside the grid [%d, %d]", i, z, lo, hi)
		}
		if z != 0 && p.Spec.Signed && p.Spec.Scheme != Affine {
			return fmt.Errorf("zero[%d] = %d: a signed %s grid has zero point 0", i, z, p.Spec.Scheme)
		}
	}
	return nil
}

// serves reports why p cannot code a tensor of n values: it has no scales yet, one is unusable, or n is not a whole
// number of rows of channels.
func (p *Params) serves(n int) error {
	c := len(p.Scale)
	switch {
	case !p.Spec.Format.IsInteger():
		return fmt.Errorf("%s values have no integer codes", p.Spec.Format)
	case c == 0:
		return fmt.Errorf("no scale yet: calibrate or train first")
	case len(p.Zero) != c:
		return fmt.Errorf("%d scales and %d zero points", c, len(p.Zero))
	case p.Spec.Per == PerGroup:
		if p.Channels < 1 || n%p.Channels != 0 || c != p.Spec.Scales(n, p.Channels) {
			return fmt.Errorf("%d scales do not fit %d values in rows of %d channels and groups of %d rows", c, n, p.Channels, p.Spec.Group)
		}
	case n%c != 0:
		return fmt.Errorf("%d values are not a whole number of rows of %d channels", n, c)
	}
	for i, s := range p.Scale {
		if !(s > 0) || math.IsInf(float64(s), 0) {
			return &ScaleError{Index: i, Scale: s}
		}
	}
	return nil
}

// ScaleError reports a scale that is not finite and positive.
type ScaleError struct {
	Index int
	Scale float32
}

func (e *ScaleError) Error() string {
	return fmt.Sprintf("scale[%d] is %v; it must be finite and positive", e.Index, e.Scale)
}

// NaNError reports a NaN that cannot be quantized.
type NaNError struct{ Index int }

func (e *NaNError) Error() string { return fmt.Sprintf("value[%d] is NaN and has no code", e.Index) }

// OverflowError reports a finite value that does not fit a 16-bit float format.
type OverflowError struct {
	Index  int
	Value  float32
	Format Format
}

func (e *OverflowError) Error() string {
	wider := "fp32 or bf16"
	if e.Format == BF16 {
		wider = "fp32" // bf16 has the exponent range of fp32: only the last half step overflows
	}
	return fmt.Sprintf("value[%d] = %v overflows %s; keep this layer in %s, or scale its inputs", e.Index, e.Value, e.Format, wider)
}
