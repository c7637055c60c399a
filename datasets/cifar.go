package datasets

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// CIFAR-10 (https://www.cs.toronto.edu/~kriz/cifar.html): an archive of five training files and one test file. A record
// is the label and 32 x 32 red, then green, then blue bytes.
const (
	cifarSide    = 32
	cifarPlane   = cifarSide * cifarSide
	cifarRecord  = 1 + 3*cifarPlane
	cifarTest    = "test_batch.bin"
	cifarTrain   = "data_batch_%d.bin" // 1 to 5
	cifarBatches = 5
)

// cifarSets reads the archive, unpacked but for the tar around its files.
func cifarSets(archive []byte, train, test int) (*Set, *Set, error) {
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, &FormatError{Format: "cifar tar", Problem: "the archive cannot be read", Err: err}
		}
		name := path.Base(h.Name)
		if !strings.HasSuffix(name, ".bin") || h.Typeflag != tar.TypeReg {
			continue
		}
		if files[name], err = io.ReadAll(r); err != nil { // no longer than the archive in memory
			return nil, nil, &FormatError{Format: "cifar tar", Problem: name, Err: err}
		}
	}
	names := make([]string, cifarBatches)
	for i := range names {
		names[i] = fmt.Sprintf(cifarTrain, i+1)
	}
	a, err := cifarSet(files, names, train)
	if err != nil {
		return nil, nil, err
	}
	b, err := cifarSet(files, []string{cifarTest}, test)
	return a, b, err
}

// cifarSet joins record files in order, each colour's plane made the last axis.
func cifarSet(files map[string][]byte, names []string, rows int) (*Set, error) {
	s := &Set{Shape: []int{cifarSide, cifarSide, 3}, X: make([]uint8, 0, rows*(cifarRecord-1))}
	for _, name := range names {
		data, ok := files[name]
		if !ok {
			return nil, &FormatError{Format: "cifar tar", Problem: fmt.Sprintf("it has no file %s", name)}
		}
		if len(data)%cifarRecord != 0 {
			return nil, &FormatError{Format: "cifar tar", Problem: fmt.Sprintf("%s has %d bytes, not a whole number of records of %d", name, len(data), cifarRecord)}
		}
		for ; len(data) > 0; data = data[cifarRecord:] {
			s.Labels = append(s.Labels, int32(data[0]))
			red, green, blue := data[1:][:cifarPlane], data[1+cifarPlane:][:cifarPlane], data[1+2*cifarPlane:][:cifarPlane]
			for i := range red {
				s.X = append(s.X, red[i], green[i], blue[i])
			}
		}
	}
	if s.Len() != rows {
		return nil, &FormatError{Format: "cifar tar", Problem: fmt.Sprintf("%d examples in %s, want %d", s.Len(), strings.Join(names, ", "), rows)}
	}
	return s, nil
}

// hasPictures reports whether dir holds a data set as pictures: train/CLASS/*.jpg and test/CLASS/*.jpg.
func hasPictures(dir string) bool {
	for _, split := range []string{"train", "test"} {
		if info, err := os.Stat(filepath.Join(dir, split)); err != nil || !info.IsDir() {
			return false
		}
	}
	return true
}

// pictureSet reads one split of pictures, one folder for each class. Examples come in turn from the classes, by file
// name, so that the first n of them are balanced.
func (e *entry) pictureSet(ctx context.Context, dir string) (*Set, error) {
	byClass := make([][]string, len(e.classes))
	folders, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range folders {
		class := slices.Index(e.classes, f.Name())
		if !f.IsDir() || class < 0 {
			return nil, fmt.Errorf("%s: %q is not the folder of a class (%s)", dir, f.Name(), strings.Join(e.classes, ", "))
		}
		files, err := os.ReadDir(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		for _, file := range files { // sorted by name
			byClass[class] = append(byClass[class], filepath.Join(dir, f.Name(), file.Name()))
		}
	}
	s := &Set{Shape: e.shape}
	for turn, more := 0, true; more; turn++ {
		more = false
		for class, files := range byClass {
			if turn >= len(files) {
				continue
			}
			more = true
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			codes, err := picture(files[turn], e.shape)
			if err != nil {
				return nil, err
			}
			s.X, s.Labels = append(s.X, codes...), append(s.Labels, int32(class))
		}
	}
	if s.Len() == 0 {
		return nil, fmt.Errorf("%s: no pictures", dir)
	}
	return s, nil
}

// picture reads a picture of exactly the data set's size.
func picture(file string, shape []int) ([]uint8, error) {
	data, err := readAtMost(file, maxImageBytes)
	if err != nil {
		return nil, err
	}
	img, err := decodePicture(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	codes, w, h := pixels(img, shape[2])
	if h != shape[0] || w != shape[1] {
		return nil, fmt.Errorf("%s: %d x %d pixels, want %d x %d", file, h, w, shape[0], shape[1])
	}
	return codes, nil
}
