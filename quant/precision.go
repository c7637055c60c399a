package quant

import (
	"fmt"
	"strconv"
	"strings"
)

// Precision names the formats of a whole network: all weights in Weight, all hidden activations in Act. The model input
// is 8 bits where activations are integers, and the logits stay float32. Integer weights with 16-bit float activations are
// weight-only quantization, w8a16 to w2a16.
type Precision struct {
	Weight, Act Format
	Ternary     bool // int2 weights are -1, 0 and 1 even where a config would choose other levels
}

// Full is the unquantized network.
var Full = Precision{Weight: FP32, Act: FP32}

// String is "int8" rather than "w8a8", and "w4a4" for narrower ones: there the two widths are what one compares.
func (p Precision) String() string {
	switch {
	case p.Ternary:
		return Ternary
	case p.Weight == p.Act && p.Weight.Bits() >= 8:
		return p.Weight.String()
	case p.Weight.IsInteger() && p.Act.IsInteger():
		return fmt.Sprintf("w%da%d", p.Weight.Bits(), p.Act.Bits())
	case p.Weight.IsInteger() && p.Act == FP16:
		return fmt.Sprintf("w%da16", p.Weight.Bits())
	default:
		return fmt.Sprintf("%s/%s", p.Weight, p.Act)
	}
}

// IsInteger reports whether both formats are integer grids.
func (p Precision) IsInteger() bool { return p.Weight.IsInteger() && p.Act.IsInteger() }

// later are precision names the design foresees and this version refuses, with what to use instead.
var later = map[string]string{
	"fp8e4m3": "use fp16 or int8", "fp8e5m2": "use fp16 or int8", "mxfp8": "use int8", "mxfp4": "use w4a8",
	"mixed": "use quant.rules in the config with a base precision",
}

// ParsePrecision reads fp32, fp16, bf16, int16, int8 ... int2, wXaY or wXa16 with X and Y from 1 to 8. ("w4a4" and "int4" are the
// same precision, "ternary" is w2a2 with weights -1, 0 and 1, "binary" is w1a1; a16 is fp16.) Other names are refused with what to use instead.
func ParsePrecision(name string) (Precision, error) {
	low := strings.ToLower(strings.TrimSpace(name))
	if hint, ok := later[low]; ok {
		return Precision{}, fmt.Errorf("precision %q is not supported by this version: %s", name, hint)
	}
	if f, err := ParseFormat(low); err == nil {
		return Precision{Weight: f, Act: f, Ternary: low == Ternary}, nil
	}
	if rest, ok := strings.CutPrefix(low, "w"); ok {
		if w, a, ok := strings.Cut(rest, "a"); ok {
			wb, werr := strconv.Atoi(w)
			ab, aerr := strconv.Atoi(a)
			canonical := low == fmt.Sprintf("w%da%d", wb, ab) // Atoi also reads "+8" and "08"
			if werr == nil && aerr == nil && canonical {
				wf, wok := intFormat(wb)
				if ab == 16 && wok && wb <= 8 {
					return Precision{Weight: wf, Act: FP16}, nil
				}
				af, aok := intFormat(ab)
				if wok && aok && wb <= 8 && ab <= 8 {
					return Precision{Weight: wf, Act: af}, nil
				}
			}
		}
	}
	return Precision{}, fmt.Errorf("unknown precision %q (allowed: fp32, fp16, bf16, int16, int8 to int2, ternary, binary, or wXaY with X and Y from 1 to 8, for example w4a8, or wXa16)", name)
}
