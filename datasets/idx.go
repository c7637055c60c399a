package datasets

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// MaxIDXElements bounds what ReadIDX accepts, so that a damaged or hostile header cannot ask for all memory.
const MaxIDXElements = 1 << 30

// FormatError says that a file is not what its name promises.
type FormatError struct {
	Format  string // "idx", "digits csv", "png", ...
	Problem string
	Err     error // the reader's own error, or nil
}

func (e *FormatError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", e.Format, e.Problem, e.Err)
	}
	return e.Format + ": " + e.Problem
}

// Unwrap returns the reader's own error.
func (e *FormatError) Unwrap() error { return e.Err }

func idxError(err error, format string, args ...any) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the end of the file is never expected where this is called
	}
	return &FormatError{Format: "idx", Problem: fmt.Sprintf(format, args...), Err: err}
}

// ReadIDX reads an idx file of unsigned bytes, the format of MNIST and its kin (http://yann.lecun.com/exdb/mnist/):
//
//	0, 0, element type (8 = uint8), number of sizes r
//	r sizes, 32-bit big-endian
//	the elements, row-major
//
// It returns the sizes and the elements. Other element types, sizes of 0, more than MaxIDXElements elements, and files
// shorter or longer than their header says are a *FormatError. Memory grows with the bytes read, not with the header.
func ReadIDX(r io.Reader) (sizes []int, data []uint8, err error) {
	var magic [4]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil {
		return nil, nil, idxError(err, "the 4-byte header is cut short")
	}
	if magic[0] != 0 || magic[1] != 0 {
		return nil, nil, idxError(nil, "it starts with bytes %02x %02x, want 00 00", magic[0], magic[1])
	}
	if magic[2] != 0x08 {
		return nil, nil, idxError(nil, "element type 0x%02x, only 0x08 (unsigned byte) is read", magic[2])
	}
	rank := int(magic[3])
	if rank == 0 || rank > 4 {
		return nil, nil, idxError(nil, "%d sizes, want 1 to 4", rank)
	}
	sizes = make([]int, rank)
	total := 1
	for i := range sizes {
		var word [4]byte
		if _, err := io.ReadFull(r, word[:]); err != nil {
			return nil, nil, idxError(err, "size %d of %d is cut short", i+1, rank)
		}
		d := binary.BigEndian.Uint32(word[:])
		if d == 0 || uint64(d) > uint64(MaxIDXElements/total) {
			return nil, nil, idxError(nil, "size %d of %d is %d, the product must be 1 to %d", i+1, rank, d, MaxIDXElements)
		}
		sizes[i] = int(d)
		total *= sizes[i]
	}
	var buf bytes.Buffer
	n, err := io.Copy(&buf, io.LimitReader(r, int64(total)+1))
	switch {
	case err != nil:
		return nil, nil, idxError(err, "after %d of %d elements", n, total)
	case n < int64(total):
		return nil, nil, idxError(io.ErrUnexpectedEOF, "%d of %d elements", n, total)
	case n > int64(total):
		return nil, nil, idxError(nil, "there are bytes after the last of %d elements", total)
	}
	return sizes, buf.Bytes(), nil
}

// idxSet joins an image file [N H W] or [N H W C] and a label file [N].
func idxSet(images, labels io.Reader) (*Set, error) {
	sizes, x, err := ReadIDX(images)
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	if len(sizes) < 3 {
		return nil, fmt.Errorf("images: %w", idxError(nil, "sizes %v, want [N H W]", sizes))
	}
	lsizes, l, err := ReadIDX(labels)
	if err != nil {
		return nil, fmt.Errorf("labels: %w", err)
	}
	if len(lsizes) != 1 || lsizes[0] != sizes[0] {
		return nil, fmt.Errorf("labels: %w", idxError(nil, "sizes %v, want [%d], one label for each image", lsizes, sizes[0]))
	}
	shape := sizes[1:]
	if len(shape) == 2 {
		shape = append(shape, 1)
	}
	s := &Set{Shape: shape, X: x, Labels: make([]int32, len(l))}
	for i, v := range l {
		s.Labels[i] = int32(v)
	}
	return s, nil
}
