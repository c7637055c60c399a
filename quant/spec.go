package quant

import (
	"fmt"
	"slices"
	"strings"
)

// Scheme says how scale and zero point follow from a range of values.
type Scheme uint8

// The schemes.
const (
	Symmetric  Scheme = iota + 1 // the range is [-a, a]; the zero point is 0 (signed) or the middle code (unsigned)
	Affine                       // the range is [min, max] with 0 inside; the zero point is any code
	PowerOfTwo                   // s = 2^k, the smallest that does not clip; else as symmetric, or without negative values as affine
)

// Granularity says which elements share a scale.
type Granularity uint8

// The granularities. The channel axis is the last axis of the tensor.
const (
	PerTensor Granularity = iota + 1
	PerChannel
	PerGroup // Spec.Group consecutive rows of a channel: weights that are dequantized before they are multiplied
)

// Range names the method that finds the range of a tensor.
type Range uint8

// The range methods.
const (
	MinMax     Range = iota + 1 // smallest and largest value ever seen; for weights, of the current master
	EMA                         // exponential moving average of the batch minimum and maximum (D7)
	Envelope                    // grows at once, shrinks by a factor per step: the QAT default for activations
	LSQ                         // the scale is learned (arXiv:1902.08153)
	Percentile                  // calibration only: clips the outermost values
	MSE                         // calibration only: the range that minimises the squared quantization error
	Mean                        // binary weights: the scale is mean|w| of the current master (arXiv:1603.05279)
	Constant                    // [-Max, Max] of the Spec, whatever the values are
	LSQPlus                     // scale and zero point are learned (arXiv:2004.09576): activations
	PACT                        // [0, alpha] with alpha learned (arXiv:1805.06085): activations behind a ReLU
	TQT                         // the scale is a power of two whose threshold is learned (arXiv:1903.08066)
	DoReFa                      // weights: tanh(w)/max|tanh w| on a grid of [-1, 1] (arXiv:1606.06160)
)

var (
	schemeNames      = []string{Symmetric: "symmetric", Affine: "affine", PowerOfTwo: "pow2"}
	granularityNames = []string{PerTensor: "tensor", PerChannel: "channel", PerGroup: "group"}
	rangeNames       = []string{MinMax: "minmax", EMA: "ema", Envelope: "envelope", LSQ: "lsq", Percentile: "percentile", MSE: "mse", Mean: "mean", Constant: "constant", LSQPlus: "lsq+", PACT: "pact", TQT: "tqt", DoReFa: "dorefa"}
)

func (v Scheme) String() string      { return enumName("Scheme", schemeNames, uint8(v)) }
func (v Granularity) String() string { return enumName("Granularity", granularityNames, uint8(v)) }
func (v Range) String() string       { return enumName("Range", rangeNames, uint8(v)) }

// ParseScheme reads "symmetric", "affine" or "pow2".
func ParseScheme(s string) (Scheme, error) { return parseEnum[Scheme]("scheme", schemeNames, s) }

// ParseGranularity reads "tensor", "channel" or "group".
func ParseGranularity(s string) (Granularity, error) {
	return parseEnum[Granularity]("granularity", granularityNames, s)
}

// ParseRange reads the name of a range method.
func ParseRange(s string) (Range, error) { return parseEnum[Range]("range method", rangeNames, s) }

func enumName(kind string, names []string, v uint8) string {
	if v == 0 {
		return ""
	}
	if int(v) < len(names) && names[v] != "" {
		return names[v]
	}
	return fmt.Sprintf("%s(%d)", kind, v)
}

func parseEnum[E ~uint8](kind string, names []string, s string) (E, error) {
	var allowed []string
	for i, n := range names {
		if n == "" {
			continue
		}
		if n == s {
			return E(i), nil
		}
		allowed = append(allowed, n)
	}
	return 0, fmt.Errorf("unknown %s %q (allowed: %s)", kind, s, strings.Join(allowed, ", "))
}

// The enums read and write as their names in JSON, the unset value as the empty string.

func (v Scheme) MarshalText() ([]byte, error) { return enumText("Scheme", schemeNames, uint8(v)) }
func (v Granularity) MarshalText() ([]byte, error) {
	return enumText("Granularity", granularityNames, uint8(v))
}
func (v Range) MarshalText() ([]byte, error) { return enumText("Range", rangeNames, uint8(v)) }

func enumText(kind string, names []string, v uint8) ([]byte, error) {
	if int(v) >= len(names) {
		return nil, fmt.Errorf("%s has no name", enumName(kind, names, v))
	}
	return []byte(names[v]), nil
}

func (v *Scheme) UnmarshalText(b []byte) (err error) { *v, err = orZero(b, ParseScheme); return err }
func (v *Granularity) UnmarshalText(b []byte) (err error) {
	*v, err = orZero(b, ParseGranularity)
	return err
}
func (v *Range) UnmarshalText(b []byte) (err error) { *v, err = orZero(b, ParseRange); return err }

// orZero parses b; the unset value of an enum, which float formats carry, is the empty string.
func orZero[E any](b []byte, parse func(string) (E, error)) (v E, err error) {
	if len(b) == 0 {
		return v, nil
	}
	return parse(string(b))
}

// Spec says how one tensor is quantized. It is comparable; the zero value is invalid.
type Spec struct {
	Format   Format
	Scheme   Scheme
	Per      Granularity
	Range    Range
	Rounding Rounding
	Signed   bool // codes are two's complement: weights
	Narrow   bool // the lowest code is left out, so the grid is symmetric around its zero point

	Even      bool      `json:",omitzero"` // an even number of levels: codes at odd distances from the zero point, which is no level itself
	Estimator Estimator `json:",omitzero"` // of the gradient of a binary tensor
	Max       float32   `json:",omitzero"` // range constant: the largest magnitude
	Group     int       `json:",omitzero"` // with PerGroup: rows that share a scale, one of [Groups]
}

// WeightSpec is the default for weights in format f: symmetric, narrow, per channel, absmax of the current master.
// Binary weights are -s and s with s = mean|w|.
func WeightSpec(f Format) Spec {
	if f == Binary {
		return Spec{Format: f, Scheme: Symmetric, Per: PerChannel, Range: Mean, Rounding: HalfEven, Signed: true, Narrow: true, Even: true}
	}
	return Spec{Format: f, Scheme: Symmetric, Per: PerChannel, Range: MinMax, Rounding: HalfEven, Signed: true, Narrow: true}
}

// ActSpec is the default for activations in format f: affine, unsigned, per tensor, envelope range.
// Binary activations are -1 and 1; 16 bits are signed and symmetric, with zero point 0.
func ActSpec(f Format) Spec {
	if f == Binary {
		return Spec{Format: f, Scheme: Symmetric, Per: PerTensor, Range: Constant, Rounding: HalfEven, Even: true, Max: 1}
	}
	if f == Int16 {
		return Spec{Format: f, Scheme: Symmetric, Per: PerTensor, Range: Envelope, Rounding: HalfEven, Signed: true}
	}
	return Spec{Format: f, Scheme: Affine, Per: PerTensor, Range: Envelope, Rounding: HalfEven}
}

// Validate reports the first contradiction in s.
func (s Spec) Validate() error {
	check := func(kind string, names []string, v uint8) error {
		if int(v) >= len(names) || names[v] == "" {
			return fmt.Errorf("%s is not set", kind)
		}
		return nil
	}
	if !s.Format.Valid() {
		return fmt.Errorf("format is not set")
	}
	if !s.Format.IsInteger() {
		return nil // value rounding: nothing else applies
	}
	for _, err := range []error{
		check("scheme", schemeNames, uint8(s.Scheme)),
		check("granularity", granularityNames, uint8(s.Per)),
		check("range method", rangeNames, uint8(s.Range)),
		check("rounding", roundingNames, uint8(s.Rounding)),
	} {
		if err != nil {
			return err
		}
	}
	if s.Narrow && !s.Signed && s.Scheme == Affine {
		return fmt.Errorf("narrow needs a signed grid or scheme symmetric: an affine zero point is not in the middle")
	}
	if s.Per != PerTensor && s.Scheme == Affine {
		return fmt.Errorf("affine per %s is not supported: per-%s tensors are weights, and weights need zero point 0", s.Per, s.Per)
	}
	if (s.Per == PerGroup) != slices.Contains(Groups(), s.Group) || (s.Per != PerGroup && s.Group != 0) {
		return fmt.Errorf("granularity %s with a group of %d: granularity group, and only it, has a group of %v", s.Per, s.Group, Groups())
	}
	if err := s.checkRange(); err != nil {
		return err
	}
	if err := s.validateRounding(); err != nil {
		return err
	}
	return s.validateLevels()
}

// Groups are the extents that [Spec.Group] may have.
func Groups() []int { return []int{32, 64, 128} }

// Scales is the number of scales of a tensor of n values with the given extent of its last axis. A last group may be
// shorter than the others.
func (s Spec) Scales(n, channels int) int {
	switch {
	case s.Per == PerTensor:
		return 1
	case s.Per == PerGroup && s.Group > 0 && channels > 0:
		return (n/channels + s.Group - 1) / s.Group * channels
	}
	return channels
}

// Grid is the code grid: unsigned [0, 2^N-1], signed [-2^(N-1), 2^(N-1)-1], narrow without the lowest code:
// [1, 2^N-1] and [-(2^(N-1)-1), 2^(N-1)-1]. A narrow 2-bit grid is therefore ternary. With even levels the codes are
// every second integer of [-(2^N-1), 2^N-1] or, unsigned, of [0, 2^(N+1)-2]. It is [0, 0] for formats that are not
// integers.
func (s Spec) Grid() (lo, hi int32) {
	if !s.Format.IsInteger() {
		return 0, 0
	}
	n := s.Format.Bits()
	switch {
	case s.Even && s.Signed:
		hi = int32(1)<<n - 1
		return -hi, hi
	case s.Even:
		return 0, 2 * (int32(1)<<n - 1)
	case !s.Signed && s.Narrow:
		return 1, int32(1)<<n - 1
	case !s.Signed:
		return 0, int32(1)<<n - 1
	}
	hi = int32(1)<<(n-1) - 1
	lo = -hi - 1
	if s.Narrow {
		lo = -hi
	}
	return lo, hi
}

// String is a compact description for tables, for example "int8 symmetric/channel/minmax".
func (s Spec) String() string {
	if !s.Format.IsInteger() {
		return s.Format.String()
	}
	per := s.Per.String()
	if s.Per == PerGroup {
		per += fmt.Sprintf(" of %d", s.Group)
	}
	text := fmt.Sprintf("%s %s/%s/%s", s.Format, s.Scheme, per, s.Range)
	if s.Range == Constant {
		text += fmt.Sprintf(" %v", s.Max)
	}
	if s.Even && s.Format != Binary {
		text += " even"
	}
	if s.Narrow && !s.Signed {
		text += " narrow"
	}
	if s.Rounding != HalfEven && s.Rounding != 0 {
		text += " " + s.Rounding.String()
	}
	if s.Estimator != Clipped {
		text += " " + s.Estimator.String()
	}
	return text
}
