package datasets

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
)

//go:embed embedded/optdigits.tra.gz
var digitsTrain []byte

//go:embed embedded/optdigits.tes.gz
var digitsTest []byte

//go:embed embedded/NOTICE.md
var digitsNotice string

// The UCI digits: 64 counts of dark pixels in 4x4 blocks, 0 to 16 each, then the digit.
const (
	digitsSide      = 8
	digitsMax       = 16
	digitsClasses   = 10
	digitsTrainRows = 3823
	digitsTestRows  = 1797
)

// embeddedDigits unpacks one of the two embedded files.
func embeddedDigits(gz []byte, rows int) (*Set, error) {
	r, err := gzip.NewReader(bytes.NewReader(gz))
	if err != nil {
		return nil, fmt.Errorf("digits csv: %w", err)
	}
	s, err := readDigits(r, rows)
	if err != nil {
		return nil, err
	}
	if s.Len() != rows {
		return nil, &FormatError{Format: "digits csv", Problem: fmt.Sprintf("%d rows, want %d", s.Len(), rows)}
	}
	return s, nil
}

// readDigits reads at most maxRows comma-separated rows of 65 whole numbers.
func readDigits(r io.Reader, maxRows int) (*Set, error) {
	const elems = digitsSide * digitsSide
	shape := []int{digitsSide, digitsSide, 1}
	s := &Set{Shape: shape}
	in := csv.NewReader(r)
	in.FieldsPerRecord = elems + 1
	in.ReuseRecord = true
	for {
		fields, err := in.Read()
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		row := s.Len() + 1
		if err != nil {
			return nil, &FormatError{Format: "digits csv", Problem: fmt.Sprintf("row %d", row), Err: err}
		}
		if row > maxRows {
			return nil, &FormatError{Format: "digits csv", Problem: fmt.Sprintf("more than %d rows", maxRows)}
		}
		x, err := ParseRow(fields[:elems], shape, digitsMax)
		if err != nil {
			return nil, &FormatError{Format: "digits csv", Problem: fmt.Sprintf("row %d", row), Err: err}
		}
		label, err := strconv.ParseUint(fields[elems], 10, 8)
		if err != nil || label >= digitsClasses {
			return nil, &FormatError{Format: "digits csv", Problem: fmt.Sprintf("row %d: label %q, want 0 to %d", row, fields[elems], digitsClasses-1)}
		}
		s.X = append(s.X, x...)
		s.Labels = append(s.Labels, int32(label))
	}
}
