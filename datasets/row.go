package datasets

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// RowError says which value of a row of numbers cannot be a code.
type RowError struct {
	Column  int // from 1, as spreadsheets count
	Value   string
	MaxCode uint8
}

func (e *RowError) Error() string {
	return fmt.Sprintf("column %d: %q is not a whole number from 0 to %d", e.Column, e.Value, e.MaxCode)
}

// ParseRow turns the fields of one csv row into the codes of one example of the given shape: whole numbers from 0 to
// maxCode in row-major order, spaces around them allowed, "12.0" read as 12 since spreadsheets write it so. A field that
// is no such number is a *RowError.
func ParseRow(fields []string, shape []int, maxCode uint8) ([]uint8, error) {
	n, err := elems(shape)
	if err != nil {
		return nil, err
	}
	if len(fields) != n {
		return nil, fmt.Errorf("the row has %d columns, want %d for shape %v (no label column)", len(fields), n, shape)
	}
	codes := make([]uint8, n)
	for i, f := range fields {
		code, ok := parseCode(strings.TrimSpace(f), maxCode)
		if !ok {
			return nil, &RowError{Column: i + 1, Value: f, MaxCode: maxCode}
		}
		codes[i] = code
	}
	return codes, nil
}

func parseCode(s string, maxCode uint8) (uint8, bool) {
	if v, err := strconv.ParseUint(s, 10, 8); err == nil {
		return uint8(v), v <= uint64(maxCode)
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= 0 && v <= float64(maxCode)) || v != math.Trunc(v) {
		return 0, false
	}
	return uint8(v), true
}
