package datasets_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"math/big"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/internal/rng"
)

func encodePNG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDecodeImageKeepsPixels(t *testing.T) {
	grey := image.NewGray(image.Rect(3, 5, 5, 8)) // the origin need not be 0
	copy(grey.Pix, []uint8{0, 1, 2, 253, 254, 255})
	colour := image.NewNRGBA(image.Rect(0, 0, 2, 1))
	colour.SetNRGBA(0, 0, color.NRGBA{10, 20, 30, 255})
	colour.SetNRGBA(1, 0, color.NRGBA{200, 100, 50, 0}) // transparent: black

	check := func(name string, file []byte, shape []int, want []uint8, tol int) {
		t.Helper()
		got, err := datasets.DecodeImage(bytes.NewReader(file), shape)
		if err != nil || len(got) != len(want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, want)
			return
		}
		for i := range got {
			if d := int(got[i]) - int(want[i]); d > tol || d < -tol {
				t.Errorf("%s: %v, want %v within %d", name, got, want, tol)
				return
			}
		}
	}
	check("grey png", encodePNG(t, grey), []int{3, 2, 1}, grey.Pix, 0)
	check("grey png as colour", encodePNG(t, grey), []int{3, 2, 3},
		[]uint8{0, 0, 0, 1, 1, 1, 2, 2, 2, 253, 253, 253, 254, 254, 254, 255, 255, 255}, 0)
	check("colour png", encodePNG(t, colour), []int{1, 2, 3}, []uint8{10, 20, 30, 0, 0, 0}, 0)
	// BT.601: 0.299*10 + 0.587*20 + 0.114*30 = 18.15.
	check("colour png as grey", encodePNG(t, colour), []int{1, 2, 1}, []uint8{18, 0}, 0)

	flat := image.NewGray(image.Rect(0, 0, 8, 8))
	for i := range flat.Pix {
		flat.Pix[i] = 100
	}
	var j bytes.Buffer
	if err := jpeg.Encode(&j, flat, nil); err != nil {
		t.Fatal(err)
	}
	check("jpeg", j.Bytes(), []int{8, 8, 1}, flat.Pix, 2)

	pal := image.NewPaletted(image.Rect(0, 0, 2, 1), color.Palette{color.Gray{Y: 40}, color.Gray{Y: 90}})
	pal.Pix[1] = 1
	var g bytes.Buffer
	if err := gif.Encode(&g, pal, nil); err != nil {
		t.Fatal(err)
	}
	check("gif", g.Bytes(), []int{1, 2, 1}, []uint8{40, 90}, 0)
}

// Resizing is the mean over the area a pixel covers: compared with exact fractions.
func TestDecodeImageResizesByArea(t *testing.T) {
	r := rng.New(1, rng.Test)
	for _, size := range [][4]int{{4, 4, 2, 2}, {5, 7, 3, 2}, {3, 3, 7, 4}, {1, 1, 3, 3}, {28, 28, 8, 8}, {9, 2, 2, 9}} {
		h, w, H, W := size[0], size[1], size[2], size[3]
		src := image.NewGray(image.Rect(0, 0, w, h))
		for i := range src.Pix {
			src.Pix[i] = uint8(r.Uint32())
		}
		got, err := datasets.DecodeImage(bytes.NewReader(encodePNG(t, src)), []int{H, W, 1})
		if err != nil {
			t.Fatal(err)
		}
		overlap := func(i, n, I, N int) *big.Rat { // of source cell i of n and destination cell I of N
			lo, hi := big.NewRat(int64(i), int64(n)), big.NewRat(int64(i+1), int64(n))
			if l := big.NewRat(int64(I), int64(N)); l.Cmp(lo) > 0 {
				lo = l
			}
			if u := big.NewRat(int64(I+1), int64(N)); u.Cmp(hi) < 0 {
				hi = u
			}
			if hi.Cmp(lo) < 0 {
				return new(big.Rat)
			}
			return new(big.Rat).Sub(hi, lo)
		}
		for Y := range H {
			for X := range W {
				sum := new(big.Rat)
				for y := range h {
					for x := range w {
						v := new(big.Rat).Mul(overlap(y, h, Y, H), overlap(x, w, X, W))
						sum.Add(sum, v.Mul(v, big.NewRat(int64(src.Pix[y*w+x]), 1)))
					}
				}
				sum.Mul(sum, big.NewRat(int64(H*W), 1)) // the mean
				diff := new(big.Rat).Sub(sum, big.NewRat(int64(got[Y*W+X]), 1))
				if diff.Abs(diff).Cmp(big.NewRat(1, 2)) > 0 {
					t.Fatalf("%dx%d to %dx%d: code %d at (%d, %d), exact mean %s", h, w, H, W, got[Y*W+X], Y, X, sum.FloatString(4))
				}
			}
		}
	}
}

// hugePNG claims 100,000 x 100,000 pixels and has none.
func hugePNG() []byte {
	header := append([]byte("IHDR"), 0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0, 8, 0, 0, 0, 0)
	b := []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d")
	b = append(b, header...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(header))
}

func TestDecodeImageRefuses(t *testing.T) {
	good := encodePNG(t, image.NewGray(image.Rect(0, 0, 4, 4)))
	tests := []struct {
		name  string
		in    io.Reader
		shape []int
		want  string
	}{
		{"no picture", strings.NewReader("hello"), []int{4, 4, 1}, "neither PNG, JPEG nor GIF"},
		{"empty", strings.NewReader(""), []int{4, 4, 1}, "neither PNG, JPEG nor GIF"},
		{"cut short", bytes.NewReader(good[:len(good)-20]), []int{4, 4, 1}, "png: the picture cannot be read"},
		{"header only", bytes.NewReader(good[:10]), []int{4, 4, 1}, "png: the header cannot be read"},
		{"huge", bytes.NewReader(hugePNG()), []int{4, 4, 1}, "100000 x 100000 pixels"},
		{"two channels", bytes.NewReader(good), []int{4, 4, 2}, "want [H W 1] for grey or [H W 3] for colour"},
		{"flat shape", bytes.NewReader(good), []int{16}, "want [H W 1]"},
		{"empty shape", bytes.NewReader(good), nil, "shape is empty"},
		{"zero shape", bytes.NewReader(good), []int{4, 0, 1}, "size 0 at axis 1"},
	}
	for _, tt := range tests {
		if _, err := datasets.DecodeImage(tt.in, tt.shape); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
	var format *datasets.FormatError
	if _, err := datasets.DecodeImage(bytes.NewReader(good[:10]), []int{4, 4, 1}); !errors.As(err, &format) || format.Format != "png" || format.Err == nil {
		t.Errorf("a cut header gives %v, want a *FormatError of format png that wraps the reader's error", err)
	}
}

func TestRescale(t *testing.T) {
	for _, maxCode := range []uint8{0, 1, 16, 255} {
		for q := range 256 {
			codes := []uint8{uint8(q)}
			datasets.Rescale(codes, maxCode)
			exact := float64(q) * float64(maxCode) / 255
			if d := float64(codes[0]) - exact; d > 0.5 || d < -0.5 {
				t.Fatalf("code %d of 255 became %d of %d, exactly %v", q, codes[0], maxCode, exact)
			}
		}
	}
}
