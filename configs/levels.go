package configs

import (
	"github.com/narrow-ml/narrow/quant"
	"go.yaml.in/yaml/v3"
)

// The levels of a grid: all codes; without the lowest one, so that 0 is in the middle; or the same number of levels on
// both sides of 0, which is none itself.
const (
	fullLevels   = "full"
	narrowLevels = "narrow"
	evenLevels   = "even"
)

// defaultLevels are those of a section that does not say. Weights then have narrow levels, or even ones: see leveled.
func (s *tensorSection) defaultLevels() string {
	if s.role == weightRole {
		return ""
	}
	return fullLevels
}

// ternaryToo is a choice of a weight's format that knows the other name of int2.
type ternaryToo struct {
	choice[quant.Format]
	role   role
	levels *string
}

func (v ternaryToo) decode(d *decoder, path string, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Value == quant.Ternary {
		if v.role == weightRole {
			*v.p, *v.levels = quant.Int2, narrowLevels
			return
		}
		p := d.report(n, path, "%q is a format of weights", n.Value)
		p.Allowed, p.Hint = v.allowed(), "for codes -1, 0 and 1 write format: int2, scheme: symmetric, levels: narrow"
		return
	}
	v.choice.decode(d, path, n)
}

// settled is a choice that a section writes only where it differs from the default.
type settled struct {
	choice[string]
	standard string
	inRule   bool
}

func (v settled) encode() *yaml.Node {
	if !v.inRule && *v.p == v.standard {
		return nil
	}
	return v.choice.encode()
}

// binary fills in what a binary section leaves open; the settings of the other formats are not its own.
func (d *decoder) binary(path string, t *TensorQuant, s quant.Spec) {
	if t.Format != quant.Binary {
		return
	}
	if !d.given(join(path, "scheme")) {
		t.Scheme = s.Scheme
	}
	if !d.given(join(path, "range")) {
		t.Range = s.Range
	}
	if t.Range == quant.Constant && !d.given(join(path, "max")) {
		t.Max = 1
	}
}

// squashed fills in what a section of dorefa weights leaves open: they have one scale.
func (d *decoder) squashed(path string, t *TensorQuant) {
	if t.Range == quant.DoReFa && !d.given(join(path, "per")) {
		t.Per = quant.PerTensor
	}
}

// int16 fills in what a section of 16-bit activations leaves open.
func (d *decoder) int16(path string, t *TensorQuant) {
	if t.Format == quant.Int16 && !d.given(join(path, "scheme")) {
		t.Scheme = quant.Symmetric
	}
}

// over lays the settings of t, but not its format, over the default s of a format. Binary has levels of its own and, unlike
// the others, no use for the range of an activation or the largest weight; settings made for other formats step back.
func (t TensorQuant) over(s quant.Spec) quant.Spec {
	if t.Per != 0 {
		s.Per, s.Group = t.Per, 0
	}
	if t.Group != 0 {
		s.Group = t.Group
	}
	if t.Rounding != 0 && !s.Even {
		s.Rounding = t.Rounding
	}
	if t.Estimator != 0 && s.Format == quant.Binary {
		s.Estimator = t.Estimator
	}
	binary := s.Format == quant.Binary
	if !binary {
		if t.Scheme != 0 && (s.Format != quant.Int16 || t.Format == quant.Int16) { // that of narrower formats is not for 16 bits
			s.Scheme = t.Scheme
		}
		switch t.Levels {
		case evenLevels:
			s.Even, s.Narrow = true, true
		case narrowLevels:
			s.Even, s.Narrow = false, true
		case fullLevels:
			s.Even, s.Narrow = false, false
		}
	}
	switch r := t.Range; {
	case r == 0 && s.Scheme == quant.PowerOfTwo && s.Range == quant.LSQ: // auto learns: so does this, and powers of two
		s.Range = quant.TQT
	case r == 0:
	case !binary && r == quant.Mean && t.Format == quant.Binary: // made for binary weights
	case binary && t.Format != quant.Binary && r != quant.Constant && (r != quant.LSQ || !s.Signed):
	default:
		s.Range = r
	}
	s.Max = 0
	if s.Range == quant.Constant {
		if s.Max = float32(t.Max); t.Range != quant.Constant {
			s.Max = 1
		}
	}
	return s
}

// spec is the default of a role's tensors in a format.
func (r role) spec(f quant.Format) quant.Spec {
	if r == weightRole {
		return quant.WeightSpec(f)
	}
	return quant.ActSpec(f)
}

// idle reports settings of a rule that mean nothing to the format it ends up with.
func (d *decoder) idle(path string, t, standard TensorQuant) {
	if d.failed(path) {
		return
	}
	f, r := t.Format, t.Range
	if f == 0 {
		f = standard.Format
	}
	if r == 0 {
		r = standard.Range
	}
	switch {
	case t.Estimator != quant.Clipped && f != quant.Binary:
		d.reportAt(join(path, "estimator"), "has no effect on %s: it belongs to format: binary", f).Hint = "remove it"
	case t.Levels != "" && f == quant.Binary:
		d.reportAt(join(path, "levels"), "has no effect on binary, which has two levels").Hint = "remove it"
	case t.Max != 0 && r != quant.Constant:
		d.reportAt(join(path, "max"), "has no effect on range: %s: it belongs to range: constant", r).Hint = "remove it"
	}
}
