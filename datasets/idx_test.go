package datasets_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/narrow-ml/narrow/datasets"
)

// idx builds a file with an honest or a lying header.
func idx(kind byte, data []byte, sizes ...uint32) []byte {
	b := []byte{0, 0, kind, byte(len(sizes))}
	for _, s := range sizes {
		b = binary.BigEndian.AppendUint32(b, s)
	}
	return append(b, data...)
}

func TestReadIDX(t *testing.T) {
	data := []byte{1, 2, 3, 4, 5, 6}
	for _, sizes := range [][]uint32{{6}, {2, 3}, {1, 3, 2}, {1, 2, 3, 1}} {
		got, x, err := datasets.ReadIDX(iotest.OneByteReader(bytes.NewReader(idx(8, data, sizes...))))
		if err != nil {
			t.Fatalf("sizes %v: %v", sizes, err)
		}
		want := make([]int, len(sizes))
		for i, s := range sizes {
			want[i] = int(s)
		}
		if !slices.Equal(got, want) || !bytes.Equal(x, data) {
			t.Errorf("sizes %v: read %v, %v", sizes, got, x)
		}
	}
}

func TestReadIDXRefuses(t *testing.T) {
	good := idx(8, []byte{1, 2, 3, 4}, 2, 2)
	broken := errors.New("disk on fire")
	tests := []struct {
		name string
		in   io.Reader
		want string
		is   error
	}{
		{"empty", strings.NewReader(""), "the 4-byte header is cut short", io.ErrUnexpectedEOF},
		{"half a header", bytes.NewReader(good[:3]), "the 4-byte header is cut short", io.ErrUnexpectedEOF},
		{"no idx", strings.NewReader("PK\x03\x04"), "it starts with bytes 50 4b", nil},
		{"floats", bytes.NewReader(idx(0x0d, make([]byte, 16), 2, 2)), "element type 0x0d", nil},
		{"no sizes", bytes.NewReader(idx(8, nil)), "0 sizes, want 1 to 4", nil},
		{"five sizes", bytes.NewReader(idx(8, []byte{1}, 1, 1, 1, 1, 1)), "5 sizes, want 1 to 4", nil},
		{"a size cut short", bytes.NewReader(good[:10]), "size 2 of 2 is cut short", io.ErrUnexpectedEOF},
		{"size zero", bytes.NewReader(idx(8, nil, 3, 0)), "size 2 of 2 is 0", nil},
		{"too large", bytes.NewReader(idx(8, nil, 1<<30+1)), "size 1 of 1 is 1073741825", nil},
		{"product too large", bytes.NewReader(idx(8, nil, 1<<20, 1<<20)), "size 2 of 2 is 1048576", nil},
		{"product over 64 bits", bytes.NewReader(idx(8, nil, 1<<31, 1<<31, 1<<31)), "size 1 of 3 is 2147483648", nil},
		{"data cut short", bytes.NewReader(good[:len(good)-1]), "3 of 4 elements", io.ErrUnexpectedEOF},
		{"huge header, no data", bytes.NewReader(idx(8, []byte{1}, 1<<30)), "1 of 1073741824 elements", io.ErrUnexpectedEOF},
		{"data too long", bytes.NewReader(append(slices.Clone(good), 9)), "there are bytes after the last of 4", nil},
		{"read error", io.MultiReader(bytes.NewReader(good[:13]), iotest.ErrReader(broken)), "after 1 of 4 elements", broken},
	}
	for _, tt := range tests {
		_, _, err := datasets.ReadIDX(tt.in)
		var format *datasets.FormatError
		if !errors.As(err, &format) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want a *FormatError with %q", tt.name, err, tt.want)
		}
		if tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%s: error %v does not wrap %v", tt.name, err, tt.is)
		}
	}
}

func FuzzReadIDX(f *testing.F) {
	f.Add(idx(8, []byte{1, 2, 3, 4}, 2, 2))
	f.Add(idx(8, nil, 1<<31, 1<<31, 2))
	f.Add(idx(8, []byte{7}, 1<<30))
	f.Add(idx(0x0c, []byte{7}, 1))
	f.Fuzz(func(t *testing.T, in []byte) {
		sizes, data, err := datasets.ReadIDX(bytes.NewReader(in))
		if err != nil {
			return
		}
		words := make([]uint32, len(sizes))
		n := 1
		for i, s := range sizes {
			words[i] = uint32(s)
			n *= s
		}
		if n != len(data) {
			t.Fatalf("sizes %v, %d elements", sizes, len(data))
		}
		if !bytes.Equal(idx(8, data, words...), in) {
			t.Fatal("what was read does not write the same file")
		}
	})
}
