package configs

import (
	"github.com/narrow-ml/narrow/quant"
	"go.yaml.in/yaml/v3"
)

// autoWord asks for the range method that did best at the tensor's width; docs/guide.md has the table that decided it.
const autoWord = "auto"

// autoRange is the choice of a range method with the word auto, which is the zero value.
type autoRange struct {
	choice[quant.Range]
	inRule bool
}

func (v autoRange) allowed() string {
	if v.inRule {
		return v.choice.allowed()
	}
	return v.choice.allowed() + ", " + autoWord
}

func (v autoRange) decode(d *decoder, path string, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Value == autoWord {
		if v.inRule {
			d.report(n, path, "a rule without a range keeps the section's, and auto there goes by the rule's format").Hint = "leave it out"
			return
		}
		*v.p = 0
		return
	}
	before := len(d.problems)
	v.choice.decode(d, path, n)
	if len(d.problems) > before {
		d.problems[before].Allowed = v.allowed()
	}
}

func (v autoRange) encode() *yaml.Node {
	if *v.p == 0 && !v.inRule {
		return scalar("!!str", autoWord)
	}
	return v.choice.encode()
}

// standard is the default of a role's tensors in a format: the one of package quant and, where it is trained on, the range
// method that auto means. Scales of few bits are learned: nothing that follows extremes finds the balance between clipping
// and rounding. At 8 bits there is nothing to balance, and following is cheaper.
func (c *Config) standard(r role, f quant.Format) quant.Spec {
	s := r.spec(f)
	if c.QAT != nil && f.IsInteger() && f != quant.Binary && f.Bits() < 8 {
		s.Range = quant.LSQ
	}
	return s
}

// leveled gives 2-bit weights whose config does not name levels the four even ones, {-3, -1, 1, 3} times half a step: they
// did better than -1, 0 and 1 on every network of docs/guide.md, with learned scales and with absmax. What cannot have
// them keeps three: learned rounding, which chooses between neighbours; other roundings than half to even; ranges that are the config's own; weights that are
// dequantized; and the precision called ternary. Weights of range method dorefa have even levels at all widths below 8 bits, as
// its paper defines them.
func (c *Config) leveled(s quant.Spec, p quant.Precision) quant.Spec {
	method := s.Format == quant.Int2 && (s.Range == quant.LSQ || s.Range == quant.MinMax) || s.Range == quant.DoReFa && s.Format.Bits() < 8
	even := method && c.QAT != nil && !p.Ternary && p.IsInteger() && c.Quant.Calibration.Rounding == "nearest" &&
		s.Scheme == quant.Symmetric && s.Rounding == quant.HalfEven
	if s.Format != quant.Binary {
		s.Even, s.Narrow = even, true
	}
	return s
}
