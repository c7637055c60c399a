package layers

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/internal/par"
)

func (k *norm) Backward(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	b := newNormGrad(k)
	b.dv = gx.NewTensor(in[0].Shape()...)
	b.eachSum, b.eachDV = b.sumShard, b.dvShard
	dv, err := gx.Apply(b, "gradient(batchnorm "+k.node.Layer+")", b.dv, out, grad)
	if err != nil {
		return nil, err
	}
	sides, err := b.sides(dv)
	return append(G.Nodes{dv}, sides...), err
}

// normGrad computes the gradients of a norm. Frozen, the map is affine: dv = F*dy, and the bias gets F*sum(dy); while
// training, the bias cancels and gets nothing.
type normGrad struct {
	f                        *norm
	dv, dgamma, dbeta, dbias *tensor.Dense
	dy                       []float32
	mul                      []float32
	params                   kernel.NormParams
	pooled                   [par.Shards][2][]float32 // dy and v of one example, where they meet in a pooling
	eachSum, eachDV          func(shard, lo, hi int)
}

func newNormGrad(k *norm) *normGrad {
	c := k.channels
	b := &normGrad{f: k, dgamma: gx.NewTensor(c), dbeta: gx.NewTensor(c), mul: make([]float32, k.units)}
	if k.bias {
		b.dbias = gx.NewTensor(c)
	}
	return b
}

// sides are the nodes of the gradients of gamma, beta and the bias.
func (b *normGrad) sides(of *G.Node) (G.Nodes, error) {
	values := []*tensor.Dense{b.dgamma, b.dbeta}
	if b.dbias != nil {
		values = append(values, b.dbias)
	}
	var nodes G.Nodes
	for i, v := range values {
		n, err := gx.Side(fmt.Sprintf("gradient(%s of %s)", []string{"gamma", "beta", "bias"}[i], b.f.node.Layer), v, of)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

func (b *normGrad) Run(in []G.Value) (G.Value, error) {
	k := b.f
	var err error
	if b.dy, err = gx.Floats(in[1]); err != nil {
		return nil, err
	}
	if err := k.st.EachRow(b.eachSum); err != nil {
		return nil, err
	}
	b.join()
	return b.dv, k.st.EachRow(b.eachDV)
}

// join makes the gradients of gamma, beta and bias of the shards' sums.
func (b *normGrad) join() {
	k := b.f
	c, shards := k.channels, par.Count(k.st.Rows)
	half := par.Shards * c
	kernel.Combine(k.sums[:c], k.parts[:shards*c], c)
	kernel.Combine(k.sums[c:], k.parts[half:half+shards*c], c)
	kernel.Round32(b.dgamma.Data().([]float32), k.sums[:c])
	kernel.Round32(b.dbeta.Data().([]float32), k.sums[c:])
	if b.dbias != nil {
		dbias := b.dbias.Data().([]float32)
		clear(dbias)
		if !k.st.NormTrains() {
			for i, v := range k.sums[c:] {
				dbias[i] = float32(v * k.f[i])
			}
		}
	}
	if k.st.NormTrains() {
		b.params.SetGrad(k.mean, k.invStd, k.gamma, k.sums[:c], k.sums[c:], b.elements())
		return
	}
	for i, f := range k.f {
		b.mul[i] = float32(f)
	}
}

// elements is how many values of a channel the batch has.
func (b *normGrad) elements() int { return b.f.st.Rows * b.f.row / b.f.channels }

func (b *normGrad) sumShard(s, lo, hi int) {
	k := b.f
	step := k.group(lo, hi)
	b.clearSums(s)
	for i := lo; i < hi; i += step {
		from, to := i*k.row, (i+step)*k.row
		dy, v := b.dy[from:to], k.v[from:to]
		if k.pool != nil {
			dy, v = b.meet(s, dy, v)
		}
		b.sumGroup(s, dy, nil, v)
	}
}

func (b *normGrad) clearSums(s int) {
	k := b.f
	c, half := k.channels, par.Shards*k.channels
	clear(k.parts[s*c : (s+1)*c])
	clear(k.parts[half+s*c : half+(s+1)*c])
}

// sumGroup adds a group of rows to a shard's sums; mask says where dy counts, nil: everywhere. Behind a pooling at most one cell of each window has a gradient, and
// the sums run over windows: dy and v are those of that cell.
func (b *normGrad) sumGroup(s int, dy []float32, mask []uint8, v []float32) {
	k := b.f
	c, half := k.channels, par.Shards*k.channels
	kernel.AddNormalizeGradSums(k.parts[s*c:(s+1)*c], k.parts[half+s*c:half+(s+1)*c], dy, mask, v, k.mean, k.invStd, c)
}

// meet picks from each window of an image the cell that has a gradient.
func (b *normGrad) meet(s int, dy, v []float32) (d, x []float32) {
	g := b.f.pool
	n := g.OutH() * g.OutW() * g.C
	if b.pooled[s][0] == nil {
		b.pooled[s] = [2][]float32{make([]float32, n), make([]float32, n)}
	}
	d, x = b.pooled[s][0], b.pooled[s][1]
	clear(d)
	line, out := g.W*g.C, 0
	for oy := range g.OutH() {
		for ox := range g.OutW() {
			dw, xw := d[out:out+g.C], x[out:out+g.C]
			for i := range g.KH * g.KW {
				at := (oy*g.KH+i/g.KW)*line + (ox*g.KW+i%g.KW)*g.C
				cell := v[at:][:len(dw)]
				if i == 0 {
					copy(xw, cell)
				}
				for c, up := range dy[at:][:len(dw)] {
					if up != 0 {
						dw[c], xw[c] = up, cell[c]
					}
				}
			}
			out += g.C
		}
	}
	return d, x
}

func (b *normGrad) dvShard(_, lo, hi int) {
	k := b.f
	from, to := lo*k.row, hi*k.row
	b.example(b.dv.Data().([]float32)[from:to], b.dy[from:to], k.v[from:to])
}

// example writes the gradient of values v. dv may be dy.
func (b *normGrad) example(dv, dy, v []float32) {
	k := b.f
	if k.st.NormTrains() {
		kernel.NormalizeGrad(dv, dy, nil, v, &b.params)
		return
	}
	kernel.Normalize(dv, dy, k.zeros, k.ones, b.mul, k.zeros, k.units)
}
