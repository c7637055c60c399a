package eval

import "fmt"

// window is the geometry of a convolution or pool over the spatial axes of an N, C, spatial... tensor.
type window struct {
	in, out, kernel, stride, dilation []int
	padBegin, padEnd                  []int
}

// maxExtent bounds kernels, strides, pads and dilations, so that products of them stay far from overflow.
const maxExtent = 1 << 20

// newWindow reads kernel_shape, strides, pads, dilations, auto_pad and ceil_mode. A nil kernel means the attribute.
func newWindow(c *call, in, kernel []int) (*window, error) {
	r := len(in)
	w := &window{in: in, kernel: kernel}
	var err error
	list := func(name string, n int, def int) []int {
		v, ok := c.ints(name)
		out := make([]int, n)
		for i := range out {
			out[i] = def
			if ok && i < len(v) {
				out[i] = int(v[i])
			}
		}
		if ok && len(v) != n && err == nil {
			err = fmt.Errorf("%w: %s has %d values for %d spatial axes", ErrModel, name, len(v), r)
		}
		for _, x := range out {
			if (x < 0 || x > maxExtent) && err == nil {
				err = fmt.Errorf("%w: %s = %v", ErrModel, name, out)
			}
		}
		return out
	}
	if kernel == nil {
		w.kernel = list("kernel_shape", r, 0)
	}
	w.stride, w.dilation = list("strides", r, 1), list("dilations", r, 1)
	pads := list("pads", 2*r, 0)
	if err != nil {
		return nil, err
	}
	w.padBegin, w.padEnd = pads[:r], pads[r:]
	auto := c.str("auto_pad", "NOTSET")
	ceil := c.int("ceil_mode", 0) != 0
	w.out = make([]int, r)
	for i := range w.out {
		if w.kernel[i] < 1 || w.kernel[i] > maxExtent || w.stride[i] < 1 || w.dilation[i] < 1 {
			return nil, fmt.Errorf("%w: kernel %v, strides %v, dilations %v", ErrModel, w.kernel, w.stride, w.dilation)
		}
		span := (w.kernel[i]-1)*w.dilation[i] + 1
		switch auto {
		case "NOTSET", "VALID":
			if auto == "VALID" {
				w.padBegin[i], w.padEnd[i] = 0, 0
			}
			room := in[i] + w.padBegin[i] + w.padEnd[i] - span
			if room < 0 {
				return nil, fmt.Errorf("%w: a window of %d over %d cells with padding %d+%d",
					ErrModel, span, in[i], w.padBegin[i], w.padEnd[i])
			}
			w.out[i] = room/w.stride[i] + 1
			if ceil && room%w.stride[i] != 0 && w.out[i]*w.stride[i] < in[i]+w.padBegin[i] {
				w.out[i]++ // a last window counts only if it starts inside the input or its left padding
			}
		case "SAME_UPPER", "SAME_LOWER":
			w.out[i] = (in[i] + w.stride[i] - 1) / w.stride[i]
			total := max(0, (w.out[i]-1)*w.stride[i]+span-in[i])
			w.padBegin[i] = total / 2
			if auto == "SAME_LOWER" {
				w.padBegin[i] = total - total/2
			}
			w.padEnd[i] = total - w.padBegin[i]
		default:
			return nil, fmt.Errorf("%w: auto_pad %q", ErrModel, auto)
		}
	}
	return w, nil
}

// cells calls visit for each kernel tap of each output position: out is the position's index, in that of the input
// cell or -1 where the tap falls on padding inside the padded extent. Taps beyond the padded extent (ceil_mode) are
// not visited.
func (w *window) cells(visit func(out, in int)) {
	r := len(w.in)
	src := strides(w.in)
	at, tap := make([]int, r), make([]int, r)
	for o := range count(w.out) {
		rest := o
		for a := r - 1; a >= 0; a-- {
			at[a] = rest % w.out[a]
			rest /= w.out[a]
		}
		for k := range count(w.kernel) {
			rest := k
			for a := r - 1; a >= 0; a-- {
				tap[a] = rest % w.kernel[a]
				rest /= w.kernel[a]
			}
			in, beyond := 0, false
			for a := range r {
				p := at[a]*w.stride[a] + tap[a]*w.dilation[a] - w.padBegin[a]
				if p >= w.in[a]+w.padEnd[a] {
					beyond = true
				}
				if in >= 0 && p >= 0 && p < w.in[a] {
					in += p * src[a]
				} else {
					in = -1
				}
			}
			if !beyond {
				visit(o, in)
			}
		}
	}
}
