package quant

import (
	"fmt"
	"strings"
)

// Format is a number format. The zero value is invalid.
type Format uint8

// The formats. IntN is both the signed and the unsigned N-bit grid: [Spec.Signed] tells which.
const (
	FP32 Format = iota + 1
	FP16
	BF16
	Int2
	Int3
	Int4
	Int5
	Int6
	Int7
	Int8
	Int16
	Binary // two values of opposite sign
)

// formats is the one table of number formats; a new width is a new row.
var formats = [...]struct {
	name    string
	bits    int
	integer bool
}{
	FP32:   {"fp32", 32, false},
	FP16:   {"fp16", 16, false},
	BF16:   {"bf16", 16, false},
	Int2:   {"int2", 2, true},
	Int3:   {"int3", 3, true},
	Int4:   {"int4", 4, true},
	Int5:   {"int5", 5, true},
	Int6:   {"int6", 6, true},
	Int7:   {"int7", 7, true},
	Int8:   {"int8", 8, true},
	Int16:  {"int16", 16, true},
	Binary: {"binary", 1, true},
}

// Valid reports whether f is one of the formats above.
func (f Format) Valid() bool { return f >= FP32 && int(f) < len(formats) }

// Bits is the width of one stored value.
func (f Format) Bits() int {
	if !f.Valid() {
		return 0
	}
	return formats[f].bits
}

// IsInteger reports whether values are codes on an integer grid.
func (f Format) IsInteger() bool { return f.Valid() && formats[f].integer }

// Rounds16 reports whether values are 16-bit floating point: stored rounded, computed in float32.
func (f Format) Rounds16() bool { return f == FP16 || f == BF16 }

// String is the name used in YAML and on the command line, for example "int8".
func (f Format) String() string {
	if !f.Valid() {
		return fmt.Sprintf("Format(%d)", uint8(f))
	}
	return formats[f].name
}

// MarshalText writes the format's name.
func (f Format) MarshalText() ([]byte, error) {
	if !f.Valid() {
		return nil, fmt.Errorf("%s has no name", f)
	}
	return []byte(f.String()), nil
}

// UnmarshalText reads a format's name.
func (f *Format) UnmarshalText(b []byte) (err error) {
	*f, err = ParseFormat(string(b))
	return err
}

// Formats lists the format names, widest float first.
func Formats() []string {
	var names []string
	for f := FP32; f.Valid(); f++ {
		names = append(names, f.String())
	}
	return names
}

// Ternary is another name for int2, whose weights are -1, 0 and 1.
const Ternary = "ternary"

// ParseFormat reads a format name.
func ParseFormat(name string) (Format, error) {
	if name == Ternary {
		return Int2, nil
	}
	for f := FP32; f.Valid(); f++ {
		if formats[f].name == name {
			return f, nil
		}
	}
	return 0, fmt.Errorf("unknown number format %q (allowed: %s)", name, strings.Join(Formats(), ", "))
}

// intFormat is the integer format of the given width.
func intFormat(bits int) (Format, bool) {
	for f := Int2; f.Valid(); f++ {
		if formats[f].integer && formats[f].bits == bits {
			return f, true
		}
	}
	return 0, false
}
