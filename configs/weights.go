package configs

import (
	"fmt"

	"github.com/narrow-ml/narrow/model"
)

// maxWeights bounds the weights of a model: 2^28 float32 are 1 GiB, and training needs several times that. It turns a
// slip such as units: 65536 on a large image into a message instead of a machine out of memory.
const maxWeights = 1 << 28

// checkSizes counts the weights before anything is allocated, and holds depthwise layers to their word. Layers that do
// not fit together end the count: that is for model.Shapes to say.
func (c *Config) checkSizes(in model.Shape) error {
	total, shape := 0, in
	made := map[string]model.Shape{inputName: in}
	for i := range c.Model {
		l := &c.Model[i]
		if from := l.sources(); len(from) > 0 {
			shape = made[from[0]]
		}
		if l.Conv != nil && l.Conv.Groups == Depthwise && len(shape) == 3 && shape[2] != l.Conv.Filters {
			p := c.problemAt(i)
			p.Message = fmt.Sprintf("groups: depthwise needs as many filters as there are input channels: %d, not %d", shape[2], l.Conv.Filters)
			p.Hint = "follow it with a conv of kernel 1 for another number of channels"
			return &Errors{Problems: []Problem{p}}
		}
		factors, out, ok := l.weightExtents(shape)
		if !ok {
			return nil
		}
		weights := 1
		for _, f := range factors {
			if f < 1 || weights > maxWeights/f {
				weights = maxWeights + 1
				break
			}
			weights *= f
		}
		if len(factors) > 0 {
			total += weights
		}
		if total > maxWeights {
			p := c.problemAt(i)
			p.Message = "the model has too many weights here"
			p.Allowed = fmt.Sprintf("at most %d", maxWeights)
			p.Hint = "use fewer units or filters, or a stride or maxpool before this layer"
			return &Errors{Problems: []Problem{p}}
		}
		shape = out
		made[l.Name()] = out
	}
	return nil
}

// weightExtents is the shape of a layer's weight (nil if it has none) and of its output.
func (l *Layer) weightExtents(in model.Shape) (weight []int, out model.Shape, ok bool) {
	window := func(kernel, stride [2]int, pad [4]int) (h, w int, ok bool) {
		if len(in) != 3 || stride[0] < 1 || stride[1] < 1 {
			return 0, 0, false
		}
		h = (in[0]+pad[0]+pad[2]-kernel[0])/stride[0] + 1
		w = (in[1]+pad[1]+pad[3]-kernel[1])/stride[1] + 1
		return h, w, h > 0 && w > 0
	}
	switch {
	case l.Conv != nil:
		h, w, ok := window(l.Conv.Kernel, l.Conv.Stride, l.Conv.Pad)
		if !ok || l.Conv.groups() < 1 || in[2]%l.Conv.groups() != 0 {
			return nil, nil, false
		}
		return []int{l.Conv.Kernel[0], l.Conv.Kernel[1], in[2] / l.Conv.groups(), l.Conv.Filters}, model.Shape{h, w, l.Conv.Filters}, true
	case l.MaxPool != nil:
		h, w, ok := window(l.MaxPool.Size, l.MaxPool.Stride, l.MaxPool.Pad)
		return nil, model.Shape{h, w, in.Channels()}, ok
	case l.Dense != nil:
		return []int{in.Size(), l.Dense.Units}, model.Shape{l.Dense.Units}, len(in) == 1
	case l.Flatten != nil:
		return nil, model.Shape{in.Size()}, true
	case l.GAP != nil:
		return nil, model.Shape{in.Channels()}, len(in) == 3
	}
	return nil, in, true
}
