package datasets

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// cifarTar is an archive with the given number of records per file; record r of file f has label (f+r)%10 and the bytes
// f, r and the colour's number in turn.
func cifarTar(t *testing.T, records int, edit func(name string, data []byte) []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name string, data []byte) {
		if err := w.WriteHeader(&tar.Header{Name: "cifar-10-batches-bin/" + name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	add("readme.html", []byte("not data"))
	for f, name := range []string{"data_batch_2.bin", "data_batch_1.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin", "test_batch.bin"} {
		var data []byte
		for r := range records {
			data = append(data, byte((f+r)%10))
			for plane := range 3 {
				for i := range cifarPlane {
					data = append(data, byte(100*plane+10*f+r+i%7))
				}
			}
		}
		if data = edit(name, data); data != nil {
			add(name, data)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unedited(_ string, data []byte) []byte { return data }

func TestCifarSets(t *testing.T) {
	train, test, err := cifarSets(cifarTar(t, 2, unedited), 10, 2)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(train.Shape, []int{32, 32, 3}) || train.Validate() != nil || test.Validate() != nil {
		t.Errorf("shapes %v, %v", train.Shape, test.Shape)
	}
	// The files come in the order of their numbers, whatever their order in the archive.
	if got := train.Labels; !slices.Equal(got, []int32{1, 2, 0, 1, 2, 3, 3, 4, 4, 5}) || !slices.Equal(test.Labels, []int32{5, 6}) {
		t.Errorf("labels %v, %v", got, test.Labels)
	}
	// Record 1 of data_batch_1 (second in the archive), pixel 8: three planes become one pixel.
	if got := train.Row(1)[3*8:][:3]; !slices.Equal(got, []uint8{12, 112, 212}) {
		t.Errorf("pixel %v", got)
	}
}

func TestCifarRefuses(t *testing.T) {
	for _, c := range []struct {
		want string
		data []byte
	}{
		{"cifar tar: it has no file data_batch_4.bin", cifarTar(t, 1, func(name string, data []byte) []byte {
			if name == "data_batch_4.bin" {
				return nil
			}
			return data
		})},
		{"cifar tar: data_batch_1.bin has 3072 bytes, not a whole number of records of 3073", cifarTar(t, 1, func(name string, data []byte) []byte {
			if name == "data_batch_1.bin" {
				return data[1:]
			}
			return data
		})},
		{"cifar tar: 10 examples in data_batch_1.bin", cifarTar(t, 2, unedited)},
		{"cifar tar: the archive cannot be read", []byte(strings.Repeat("not a tar", 100))},
	} {
		_, _, err := cifarSets(c.data, 5, 1)
		var bad *FormatError
		if !errors.As(err, &bad) || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v\nwant %s", err, c.want)
		}
	}
}

// cifarMachine knows cifar10 alone, with a small archive.
func cifarMachine(t *testing.T) (*machine, string) {
	t.Helper()
	root := t.TempDir()
	var e entry
	for _, known := range catalog() {
		if known.name == "cifar10" {
			e = known
		}
	}
	e.train, e.test = 10, 2
	e.files = []file{{e.files[0].name, 1 << 20, "", sum(packed(t, cifarTar(t, 2, unedited), gzip.BestSpeed))}}
	return &machine{
		entries:  []entry{e},
		getenv:   func(string) string { return "" },
		cacheDir: func() (string, error) { return root, nil },
		homeDir:  func() (string, error) { return root, nil },
	}, filepath.Join(root, "narrow", "cifar10")
}

func TestCifarArchive(t *testing.T) {
	m, dir := cifarMachine(t)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(dir, "cifar-10-binary.tar.gz")
	if err := os.WriteFile(archive, packed(t, cifarTar(t, 2, unedited), gzip.BestSpeed), 0o666); err != nil {
		t.Fatal(err)
	}
	d, err := m.load(t.Context(), "cifar10", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d.Train.Len() != 10 || d.Test.Len() != 2 || d.Source != dir || d.Zero != 0 || d.Scale != float32(1/255.0) {
		t.Errorf("%d + %d examples from %s, scale %v", d.Train.Len(), d.Test.Len(), d.Source, d.Scale)
	}
	// Another archive, even a readable one, is not the published one.
	if err := os.WriteFile(archive, packed(t, cifarTar(t, 2, unedited), gzip.BestCompression), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err = m.load(t.Context(), "cifar10", Options{})
	var bad *ChecksumError
	if !errors.As(err, &bad) || !bad.Packed || !strings.Contains(err.Error(), "the SHA-256 of the archive is") {
		t.Error(err)
	}
}

func writePicture(t *testing.T, path string, side int, c color.Color) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	img := image.NewRGBA(image.Rect(0, 0, side, side))
	for i := range side * side {
		img.Set(i%side, i/side, c)
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
}

func TestCifarPictures(t *testing.T) {
	m, dir := cifarMachine(t)
	for i := range 3 {
		writePicture(t, filepath.Join(dir, "train", "cat", fmt.Sprintf("%d.png", i)), 32, color.RGBA{uint8(i), 1, 2, 255})
	}
	writePicture(t, filepath.Join(dir, "train", "airplane", "0.png"), 32, color.RGBA{9, 8, 7, 255})
	writePicture(t, filepath.Join(dir, "test", "ship", "0.png"), 32, color.RGBA{3, 2, 1, 255})
	d, err := m.load(t.Context(), "cifar10", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(d.Train.Labels, []int32{0, 3, 3, 3}) || !slices.Equal(d.Test.Labels, []int32{8}) {
		t.Errorf("labels %v and %v", d.Train.Labels, d.Test.Labels)
	}
	if got := d.Train.Row(2)[:3]; !slices.Equal(got, []uint8{1, 1, 2}) || !strings.Contains(d.Source, "not the published files") {
		t.Errorf("first pixel %v, source %q", got, d.Source)
	}
	writePicture(t, filepath.Join(dir, "test", "ship", "1.png"), 16, color.Black)
	if _, err := m.load(t.Context(), "cifar10", Options{}); err == nil || !strings.Contains(err.Error(), "16 x 16 pixels, want 32 x 32") {
		t.Error(err)
	}
	if err := os.Rename(filepath.Join(dir, "test", "ship"), filepath.Join(dir, "test", "boat")); err != nil {
		t.Fatal(err)
	}
	if _, err := m.load(t.Context(), "cifar10", Options{}); err == nil || !strings.Contains(err.Error(), `"boat" is not the folder of a class`) {
		t.Error(err)
	}
}

// TestCifarStandIn reads a part of the JPEG copy of the shared material.
func TestCifarStandIn(t *testing.T) {
	shared := os.Getenv("NARROW_SHARED")
	if shared == "" {
		t.Skip("NARROW_SHARED is not set: no JPEG copy of CIFAR-10")
	}
	m, dir := cifarMachine(t)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	tarball := filepath.Join(shared, "data", "cifar10-jpeg", "cifar10-jpeg-q75.tar.gz")
	if out, err := exec.Command("tar", "xzf", tarball, "-C", dir, "--wildcards", "train/*/000*.jpg", "test/*/000*.jpg").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	d, err := m.load(t.Context(), "cifar10", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d.Train.Len() != 100 || d.Test.Len() != 100 {
		t.Errorf("%d + %d examples, want 100 + 100", d.Train.Len(), d.Test.Len())
	}
	for i, l := range d.Train.Labels { // in turn from the classes
		if int(l) != i%10 {
			t.Fatalf("example %d has label %d", i, l)
		}
	}
}
