package datasets

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Options says where to look and what to keep. The zero value loads whole splits found on this machine.
type Options struct {
	Dir         string  // folder that holds one folder per data set; empty: $NARROW_DATA
	ValFraction float64 // part of the training examples that becomes Dataset.Val, in [0, 1)
	Seed        uint64  // of the validation split
	// Limit keeps the first Limit examples of the train and of the test split, before the validation split; 0 keeps all.
	// Scores on a limited test split cannot be compared with published ones.
	Limit    int
	Download bool           // may fetch missing files from their official addresses
	Progress func(Progress) // called while fetching, from one goroutine at a time; nil: silent
}

// Progress is the state of one download.
type Progress struct {
	File  string
	Done  int64 // bytes so far
	Total int64 // bytes in all, or -1 when the server does not say
}

// ChecksumError says that a file is not the published one.
type ChecksumError struct {
	File   string // path or address
	Want   string // SHA-256 of the unpacked bytes
	Got    string
	Packed bool // the sums are those of the archive as it is, not unpacked
	Advice string
}

func (e *ChecksumError) Error() string {
	what := "the unpacked bytes"
	if e.Packed {
		what = "the archive"
	}
	return fmt.Sprintf("%s: the SHA-256 of %s is %s, want %s; %s", e.File, what, e.Got, e.Want, e.Advice)
}

// Load finds a data set, checks its files and returns its splits. A data set that is not on this machine is a
// *MissingError that says how to get it, or is fetched first when opt.Download is set. A damaged file is a
// *ChecksumError.
func Load(ctx context.Context, name string, opt Options) (*Dataset, error) {
	return thisMachine().load(ctx, name, opt)
}

func (m *machine) load(ctx context.Context, name string, opt Options) (*Dataset, error) {
	if opt.Limit < 0 {
		return nil, fmt.Errorf("data set %s: limit %d, want 0 (all) or more", name, opt.Limit)
	}
	e, err := find(m.entries, name)
	if err != nil {
		return nil, err
	}
	where, err := m.place(ctx, e, opt)
	if err != nil {
		return nil, err
	}
	d := &Dataset{
		Name: e.name, Classes: e.classes, Scale: e.scale, MaxCode: e.maxCode,
		Source: where, Licence: e.licence,
	}
	if e.pictures(where) {
		d.Source += " (pictures, not the published files)"
	}
	if d.Train, d.Test, err = e.read(ctx, where); err != nil {
		return nil, fmt.Errorf("data set %s: %w", name, err)
	}
	if err := d.Validate(); err != nil {
		return nil, err
	}
	d.Train, d.Test = d.Train.head(opt.Limit), d.Test.head(opt.Limit)
	if d.Train, d.Val, err = Split(d.Train, opt.ValFraction, opt.Seed); err != nil {
		return nil, fmt.Errorf("data set %s: %w", name, err)
	}
	return d, nil
}

// read returns the splits of a data set that is inside the program or in the folder where.
func (e *entry) read(ctx context.Context, where string) (train, test *Set, err error) {
	if len(e.files) == 0 {
		if train, err = embeddedDigits(digitsTrain, e.train); err != nil {
			return nil, nil, fmt.Errorf("train: %w", err)
		}
		if test, err = embeddedDigits(digitsTest, e.test); err != nil {
			return nil, nil, fmt.Errorf("test: %w", err)
		}
		return train, test, nil
	}
	if e.pictures(where) {
		if train, err = e.pictureSet(ctx, filepath.Join(where, "train")); err != nil {
			return nil, nil, err
		}
		test, err = e.pictureSet(ctx, filepath.Join(where, "test"))
		return train, test, err
	}
	content := make([][]byte, len(e.files))
	for i, f := range e.files {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		path, ok := fileIn(where, f)
		if !ok {
			return nil, nil, fmt.Errorf("%s was in %s a moment ago and is gone", f.name, where)
		}
		if content[i], err = f.open(path); err != nil {
			return nil, nil, err
		}
	}
	if e.format == cifarArchive {
		if train, test, err = cifarSets(content[0], e.train, e.test); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", e.files[0].name, err)
		}
		return train, test, nil
	}
	sets := [2]*Set{}
	for i, rows := range []int{e.train, e.test} {
		s, err := idxSet(bytes.NewReader(content[2*i]), bytes.NewReader(content[2*i+1]))
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", e.files[2*i].name, err)
		}
		if s.Len() != rows || !slices.Equal(s.Shape, e.shape) {
			return nil, nil, fmt.Errorf("%s: %d examples of shape %v, want %d of %v", e.files[2*i].name, s.Len(), s.Shape, rows, e.shape)
		}
		sets[i] = s
	}
	return sets[0], sets[1], nil
}

// open returns the unpacked, checked bytes of a file. No more than its published size is ever unpacked.
func (f file) open(path string) ([]byte, error) {
	packed, err := readAtMost(path, f.bytes+maxPackedExtra)
	if err != nil {
		return nil, err
	}
	if err := f.checkPacked(path, packed, "delete it and get it again"); err != nil {
		return nil, err
	}
	raw := packed
	if strings.HasSuffix(path, ".gz") {
		if raw, err = f.unpack(packed); err != nil {
			return nil, fmt.Errorf("%s: %w; delete it and get it again", path, err)
		}
		if f.gz != "" && f.gz == sum(packed) { // the published archive: its content is known
			return raw, nil
		}
	}
	if got := sum(raw); got != f.raw {
		return nil, &ChecksumError{File: path, Want: f.raw, Got: got, Advice: "delete it and get it again"}
	}
	return raw, nil
}

// checkPacked holds a file to the sum of its .gz where no other is published.
func (f file) checkPacked(path string, packed []byte, advice string) error {
	if f.raw != "" {
		return nil
	}
	if got := sum(packed); got != f.gz {
		return &ChecksumError{File: path, Want: f.gz, Got: got, Packed: true, Advice: advice}
	}
	return nil
}

// maxPackedExtra is how much longer than its content a .gz may be: gzip adds little to bytes it cannot compress.
const maxPackedExtra = 1 << 20

func (f file) unpack(packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("it is not a gzip file: %w", err)
	}
	var raw bytes.Buffer
	n, err := io.Copy(&raw, io.LimitReader(z, f.bytes+1))
	if err != nil {
		return nil, fmt.Errorf("unpacking: %w", err)
	}
	if n > f.bytes {
		return nil, fmt.Errorf("it unpacks to more than the %d bytes published", f.bytes)
	}
	return raw.Bytes(), nil
}

func readAtMost(path string, limit int64) ([]byte, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	b, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes, it cannot be the published file", path, limit)
	}
	return b, nil
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// head is the first n examples, sharing memory; 0 means all.
func (s *Set) head(n int) *Set {
	if n == 0 || n >= s.Len() {
		return s
	}
	return &Set{Shape: s.Shape, X: s.X[:n*s.Elems()], Labels: s.Labels[:n]}
}
