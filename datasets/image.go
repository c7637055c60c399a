package datasets

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
)

// Limits on an image given by a user: a small file can claim a picture that fills all memory.
const (
	maxImageBytes  = 64 << 20
	maxImagePixels = 64 << 20
)

// DecodeImage reads a PNG, JPEG or GIF (its first frame) as the codes 0..255 of one example of shape [H W 1] (grey, by
// the weights of ITU-R BT.601) or [H W 3] (red, green, blue). Transparent parts become black. No colour is inverted:
// MNIST and Fashion-MNIST are bright on black.
//
// A picture of another size is resized to H x W without keeping its proportions: each code is the mean over the area its
// pixel covers, in integers, so every CPU gives the same codes.
func DecodeImage(r io.Reader, shape []int) ([]uint8, error) {
	if _, err := elems(shape); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	if len(shape) != 3 || (shape[2] != 1 && shape[2] != 3) {
		return nil, fmt.Errorf("image: shape %v, want [H W 1] for grey or [H W 3] for colour", shape)
	}
	data, err := io.ReadAll(io.LimitReader(r, maxImageBytes+1))
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	if len(data) > maxImageBytes {
		return nil, fmt.Errorf("image: the file has more than %d bytes", maxImageBytes)
	}
	img, err := decodePicture(data)
	if err != nil {
		return nil, err
	}
	src, w, h := pixels(img, shape[2])
	return shrink(src, h, w, shape), nil
}

// Rescale maps codes 0..255 to 0..maxCode, rounding to nearest: what a picture needs before a network whose codes end
// earlier, such as digits with 0..16.
func Rescale(codes []uint8, maxCode uint8) {
	for i, q := range codes {
		codes[i] = uint8((2*int(q)*int(maxCode) + 255) / (2 * 255))
	}
}

// decodePicture tells the format by its first bytes and refuses huge pictures before unpacking them. (The formats are
// called by name: image.Decode knows only what other packages happened to import.)
func decodePicture(data []byte) (image.Image, error) {
	type format struct {
		name, magic string
		config      func(io.Reader) (image.Config, error)
		decode      func(io.Reader) (image.Image, error)
	}
	for _, f := range []format{
		{"png", "\x89PNG\r\n\x1a\n", png.DecodeConfig, png.Decode},
		{"jpeg", "\xff\xd8", jpeg.DecodeConfig, jpeg.Decode},
		{"gif", "GIF8", gif.DecodeConfig, gif.Decode},
	} {
		if !bytes.HasPrefix(data, []byte(f.magic)) {
			continue
		}
		cfg, err := f.config(bytes.NewReader(data))
		if err != nil {
			return nil, &FormatError{Format: f.name, Problem: "the header cannot be read", Err: err}
		}
		if cfg.Width <= 0 || cfg.Height <= 0 || cfg.Width > maxImagePixels/cfg.Height {
			return nil, &FormatError{Format: f.name, Problem: fmt.Sprintf("%d x %d pixels, want 1 to %d in all", cfg.Width, cfg.Height, maxImagePixels)}
		}
		img, err := f.decode(bytes.NewReader(data))
		if err != nil {
			return nil, &FormatError{Format: f.name, Problem: "the picture cannot be read", Err: err}
		}
		if img.Bounds().Empty() {
			return nil, &FormatError{Format: f.name, Problem: "the picture has no pixels"}
		}
		return img, nil
	}
	return nil, &FormatError{Format: "image", Problem: "neither PNG, JPEG nor GIF by its first bytes"}
}

// pixels returns the codes of a whole picture, [h w channels].
func pixels(img image.Image, channels int) (codes []uint8, w, h int) {
	b := img.Bounds()
	w, h = b.Dx(), b.Dy()
	codes = make([]uint8, 0, w*h*channels)
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			c := img.At(x, y)
			if channels == 1 {
				codes = append(codes, color.GrayModel.Convert(c).(color.Gray).Y)
				continue
			}
			r, g, b, _ := c.RGBA() // premultiplied: over black
			codes = append(codes, uint8(r>>8), uint8(g>>8), uint8(b>>8))
		}
	}
	return codes, w, h
}

// shrink resizes src [h w C] to shape [H W C] by area. With lengths counted in 1/H of a source row and 1/W of a source
// column, destination row Y covers [Y*h, (Y+1)*h) and source row y covers [y*H, (y+1)*H): all overlaps are whole, and
// those of one destination pixel add up to h*w.
func shrink(src []uint8, h, w int, shape []int) []uint8 {
	H, W, C := shape[0], shape[1], shape[2]
	if h == H && w == W {
		return src
	}
	dst := make([]uint8, H*W*C)
	area := uint64(h) * uint64(w)
	sums := make([]uint64, C)
	for Y := range H {
		for X := range W {
			clear(sums)
			for y := Y * h / H; y*H < (Y+1)*h; y++ {
				dy := min((y+1)*H, (Y+1)*h) - max(y*H, Y*h)
				for x := X * w / W; x*W < (X+1)*w; x++ {
					dx := min((x+1)*W, (X+1)*w) - max(x*W, X*w)
					for c := range sums {
						sums[c] += uint64(dy) * uint64(dx) * uint64(src[(y*w+x)*C+c])
					}
				}
			}
			for c, sum := range sums {
				dst[(Y*W+X)*C+c] = uint8((2*sum + area) / (2 * area))
			}
		}
	}
	return dst
}
