package layers

import (
	"encoding/binary"
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat"
	"github.com/narrow-ml/narrow/quant"
)

// dropout sets elements of a layer's input to zero while training, each with probability p, and makes up for it: the others
// count 1/(1-p) times (Srivastava et al. 2014). Of codes a dropped one becomes the zero point, and the scale s/(1-p). What is
// dropped depends on the seed, the layer, the step and the shard; p is rounded to a multiple of 2^-16.
type dropout struct {
	st     *qat.Step
	name   string
	seed   uint64
	layer  int
	step   uint64 // of training, counted from 1
	off    bool
	drop   uint32  // of 65536 words, how many drop
	keep   float32 // 1-p
	needDX bool
	row    int
	mask   []uint8 // of what stays; examples start at a byte

	from *quant.Params // of the input, as the model has it
	out  *qat.Codes    // of codes
	x    *qat.Codes
	y    *tensor.Dense // of values
	xs   []float32
	each func(shard, lo, hi int)
}

// dropout adds the node between x and the layer n, and tells the layer's weight what it reads.
func (b *builder) dropout(n *model.Node, x edge, weight *qat.Weight) (edge, error) {
	shape := x.node.Shape()
	k := &dropout{
		st: b.st, name: n.Layer, seed: b.o.Seed, drop: uint32(float64(n.Attr.Dropout*65536) + 0.5), keep: 1 - n.Attr.Dropout,
		needDX: x.grad, row: shape.TotalSize() / shape[0],
	}
	for i := range b.m.Nodes {
		if b.m.Nodes[i].Name == n.Name {
			k.layer = i
		}
	}
	k.mask = make([]uint8, shape[0]*kernel.MaskLen(k.row))
	var out G.Value
	if x.kind == onCodes {
		k.from = b.m.Quant[n.In[0]]
		p := k.from.Clone()
		k.out = qat.NewActCodes(p, shape)
		k.each, out = k.codes, k.out
		if weight != nil {
			weight.Reads(p)
		}
	} else {
		k.y = gx.NewTensor(shape...)
		k.each, out = k.values, k.y
	}
	b.drops = append(b.drops, k)
	var err error
	x.node, err = gx.Apply(k, "dropout "+n.Layer, out, x.node)
	return x, err
}

// begin takes over the input's scale, which moves between steps; the layer's weight reads it before this node runs.
func (k *dropout) begin() {
	if k.out == nil {
		return
	}
	s, z := k.from.At(0)
	if !k.off {
		s /= k.keep
	}
	k.out.Params.Scale[0], k.out.Params.Zero[0] = s, z
}

func (k *dropout) Run(in []G.Value) (G.Value, error) {
	if k.off {
		return in[0], nil
	}
	if k.out != nil {
		codes, ok := in[0].(*qat.Codes)
		if !ok {
			return nil, fmt.Errorf("needs codes, has %T", in[0])
		}
		k.x = codes
		return k.out, k.st.EachRow(k.each)
	}
	var err error
	if k.xs, err = gx.Floats(in[0]); err != nil {
		return nil, err
	}
	return k.y, k.st.EachRow(k.each)
}

// choose fills the masks of the examples [lo, hi) of a shard, 64 elements at a time: bit i of word after word are the
// binary digits, highest first, of a number that is below drop where element i drops. Words are drawn until all 64
// comparisons are decided, 7 or 8 on average.
func (k *dropout) choose(s, lo, hi int) {
	m := kernel.MaskLen(k.row)
	stream := rng.New(k.seed, rng.Dropout, uint64(k.layer), k.step-1, uint64(s))
	for i := lo; i < hi; i++ {
		for mask := k.mask[i*m : (i+1)*m]; len(mask) > 0; mask = mask[min(8, len(mask)):] {
			var stay uint64
			open := ^uint64(0)
			for digit := uint32(1) << 15; digit > 0 && open != 0; digit >>= 1 {
				w := stream.Uint64()
				if k.drop&digit != 0 {
					open &= w // a 0 here makes the number smaller: dropped
				} else {
					stay |= open & w
					open &^= w
				}
			}
			stay |= open // equal to drop, which is not below
			if len(mask) >= 8 {
				binary.LittleEndian.PutUint64(mask, stay)
				continue
			}
			for j := range mask {
				mask[j] = uint8(stay >> (8 * j))
			}
		}
	}
}

// codes lets eight codes through at a time.
func (k *dropout) codes(s, lo, hi int) {
	k.choose(s, lo, hi)
	z, m := uint8(k.out.Params.Zero[0]), kernel.MaskLen(k.row)
	zeros := uint64(z) * ones
	for i := lo; i < hi; i++ {
		mask := k.mask[i*m : (i+1)*m]
		x, y := k.x.U8[i*k.row:(i+1)*k.row], k.out.U8[i*k.row:(i+1)*k.row]
		whole := k.row / 8
		for j, bits := range mask[:whole] {
			q := binary.LittleEndian.Uint64(x[8*j:])
			binary.LittleEndian.PutUint64(y[8*j:], zeros^(q^zeros)&spread(bits))
		}
		for j := 8 * whole; j < k.row; j++ {
			y[j] = z ^ (z^x[j])&-(mask[j>>3]>>(j&7)&1)
		}
	}
}

// ones has a 1 in each byte.
const ones = 0x0101010101010101

// spread makes of each bit a byte, 0 or 255, the lowest first.
func spread(bits uint8) uint64 {
	at := uint64(bits) * ones & 0x8040201008040201 // each byte keeps its own bit
	return (at + 0x7f7f7f7f7f7f7f7f | at) >> 7 & ones * 255
}

func (k *dropout) values(s, lo, hi int) {
	k.choose(s, lo, hi)
	k.through(k.y.Data().([]float32), k.xs, lo, hi)
}

// through writes what the masks let through of the examples [lo, hi), divided by what stays.
func (k *dropout) through(to, from []float32, lo, hi int) {
	m := kernel.MaskLen(k.row)
	for i := lo; i < hi; i++ {
		y := to[i*k.row : (i+1)*k.row]
		kernel.MaskGrad(y, from[i*k.row:(i+1)*k.row], k.mask[i*m:(i+1)*m])
		for j, v := range y {
			y[j] = v / k.keep
		}
	}
}

func (k *dropout) Needs() []bool { return []bool{k.needDX} }

func (k *dropout) Backward(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	if !k.needDX {
		return G.Nodes{nil}, nil
	}
	b := &dropoutGrad{f: k, dx: gx.NewTensor(in[0].Shape()...)}
	b.each = func(_, lo, hi int) { k.through(b.dx.Data().([]float32), b.dy, lo, hi) }
	n, err := gx.Apply(b, "gradient(dropout "+k.name+")", b.dx, out, grad)
	return G.Nodes{n}, err
}

type dropoutGrad struct {
	f    *dropout
	dx   *tensor.Dense
	dy   []float32
	each func(shard, lo, hi int)
}

func (b *dropoutGrad) Run(in []G.Value) (G.Value, error) {
	var err error
	if b.dy, err = gx.Floats(in[1]); err != nil {
		return nil, err
	}
	if b.f.off {
		copy(b.dx.Data().([]float32), b.dy)
		return b.dx, nil
	}
	return b.dx, b.f.st.EachRow(b.each)
}
