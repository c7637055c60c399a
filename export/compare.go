package export

import (
	"fmt"
	"math"
	"slices"

	"github.com/narrow-ml/narrow/model"
)

// Layer is the comparison of one tensor, over all examples.
type Layer struct {
	Name     string `json:"name"`
	Elements int64  `json:"elements"`
	Equal    int64  `json:"equal"`
	// OffByOne counts codes that differ by 1, or float32 values that are neighbours.
	OffByOne int64   `json:"off_by_one"`
	MaxDiff  float64 `json:"max_diff"` // in codes, or in the value's own unit
}

// Identical reports whether every element is equal, and there was one.
func (l Layer) Identical() bool { return l.Elements > 0 && l.Equal == l.Elements }

func (l *Layer) codes(want, got []int32) {
	for i, w := range want {
		d := math.Abs(float64(w) - float64(got[i]))
		l.count(d == 0, d == 1, d)
	}
}

func (l *Layer) values(want, got []float32) {
	for i, w := range want {
		g := got[i]
		same := math.Float32bits(w) == math.Float32bits(g)
		near := math.Nextafter32(w, g) == g
		l.count(same, !same && near, math.Abs(float64(w)-float64(g)))
	}
}

func (l *Layer) count(equal, near bool, diff float64) {
	l.Elements++
	switch {
	case equal:
		l.Equal++
	case near:
		l.OffByOne++
	}
	if diff > l.MaxDiff || math.IsNaN(diff) {
		l.MaxDiff = diff
	}
}

// Difference is one number of a frozen model that is not what its masters, or its own scales, give.
type Difference struct {
	Layer string `json:"layer"`
	What  string `json:"what"` // for example "weight code 17"
	Want  string `json:"want"`
	Got   string `json:"got"`
}

func (d Difference) String() string {
	return fmt.Sprintf("layer %s: %s is %s, must be %s", d.Layer, d.What, d.Got, d.Want)
}

// CompareFrozen lists what differs between two frozen models of the same network: codes, biases, scales, zero points,
// multipliers, limits, and what is read. At most one difference is listed for each kind of number in a layer.
func CompareFrozen(want, got *model.Model) []Difference {
	var out []Difference
	if len(want.Nodes) != len(got.Nodes) {
		return []Difference{{Layer: got.Name, What: "number of nodes", Want: fmt.Sprint(len(want.Nodes)), Got: fmt.Sprint(len(got.Nodes))}}
	}
	for _, name := range want.QuantNames() {
		w, g := want.Quant[name], got.Quant[name]
		if g == nil {
			out = append(out, Difference{Layer: name, What: "quantizer", Want: w.Spec.String(), Got: "none"})
			continue
		}
		out = first(out, name, "scale", w.Scale, g.Scale)
		out = first(out, name, "zero point", w.Zero, g.Zero)
	}
	for i := range want.Nodes {
		w, g := &want.Nodes[i], &got.Nodes[i]
		if w.Name != g.Name || w.Op != g.Op {
			out = append(out, Difference{Layer: w.Name, What: "operation", Want: w.Op.String() + " " + w.Name, Got: g.Op.String() + " " + g.Name})
			continue
		}
		out = first(out, w.Layer, "input", w.In, g.In)
		out = first(out, w.Layer, "upper limit of its ReLU", []float32{w.Attr.Cap}, []float32{g.Attr.Cap})
		for _, role := range []string{model.Weight, model.Bias, model.NormMul, model.NormAdd} {
			wp, gp := want.Params[w.Param(role)], got.Params[w.Param(role)]
			if (wp == nil) != (gp == nil) {
				out = append(out, Difference{Layer: w.Layer, What: role, Want: fmt.Sprint(wp != nil), Got: fmt.Sprint(gp != nil)})
				continue
			}
			if wp == nil {
				continue
			}
			out = first(out, w.Layer, role+" code", wp.Codes, gp.Codes)
			out = first(out, w.Layer, role+" code", wp.Codes16, gp.Codes16)
			out = first(out, w.Layer, role+" code", wp.Int32, gp.Int32)
			out = first(out, w.Layer, role+" code", wp.Half, gp.Half)
			out = first(out, w.Layer, role, wp.Data, gp.Data)
		}
		out = append(out, compareRequant(w, g)...)
	}
	return out
}

func compareRequant(w, g *model.Node) []Difference {
	if w.Requant == nil && g.Requant == nil {
		return nil
	}
	if w.Requant == nil || g.Requant == nil {
		return []Difference{{Layer: w.Layer, What: "requantization", Want: fmt.Sprint(w.Requant != nil), Got: fmt.Sprint(g.Requant != nil)}}
	}
	out := first(nil, w.Layer, "multiplier", w.Requant.M, g.Requant.M)
	limits := func(n *model.Node) string {
		r := n.Requant
		return fmt.Sprintf("zero %d, limits [%d, %d], float %t", r.Zero, r.Lo, r.Hi, r.Float)
	}
	if limits(w) != limits(g) {
		out = append(out, Difference{Layer: w.Layer, What: "requantization", Want: limits(w), Got: limits(g)})
	}
	return out
}

// first appends the first element in which two slices differ.
func first[E comparable](out []Difference, layer, what string, want, got []E) []Difference {
	if len(want) != len(got) {
		return append(out, Difference{Layer: layer, What: "number of " + what + "s", Want: fmt.Sprint(len(want)), Got: fmt.Sprint(len(got))})
	}
	if slices.Equal(want, got) {
		return out
	}
	for i := range want {
		if want[i] != got[i] {
			return append(out, Difference{Layer: layer, What: fmt.Sprintf("%s %d", what, i), Want: fmt.Sprint(want[i]), Got: fmt.Sprint(got[i])})
		}
	}
	return out
}

// selfCheck compares every multiplier and limit of a frozen model with what its own scales give.
func selfCheck(m *model.Model) []Difference {
	var out []Difference
	for i := range m.Nodes {
		n := &m.Nodes[i]
		if n.Requant == nil {
			continue
		}
		want := *n
		want.Requant = m.WantRequant(n)
		out = append(out, compareRequant(&want, n)...)
	}
	return out
}
