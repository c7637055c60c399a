package layers

import (
	"bufio"
	"fmt"
	"io"
	"slices"

	G "gorgonia.org/gorgonia"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/qat"
)

// writeDot draws a graph from inputs to results, in the order in which its nodes were made.
func writeDot(w io.Writer, g *G.ExprGraph) error {
	nodes := slices.Clone(g.AllNodes())
	slices.SortFunc(nodes, func(a, b *G.Node) int { return int(a.ID() - b.ID()) })
	out := bufio.NewWriter(w)
	fmt.Fprintln(out, "digraph narrow {\n  rankdir=TB;\n  node [shape=box, fontname=monospace, fontsize=10];")
	for _, n := range nodes {
		style := ""
		switch {
		case qat.IsQuantizer(n):
			style = ", style=filled, fillcolor=gold"
		case n.Op() == nil:
			style = ", shape=ellipse"
		}
		fmt.Fprintf(out, "  n%d [label=\"%s\\n%v\"%s];\n", n.ID(), escape(gx.Name(n)), n.Shape(), style)
	}
	for _, n := range nodes {
		from := g.From(n.ID()) // the edges of an ExprGraph lead from a node to its inputs
		var inputs []int64
		for from.Next() {
			inputs = append(inputs, from.Node().ID())
		}
		slices.Sort(inputs)
		for _, in := range inputs {
			fmt.Fprintf(out, "  n%d -> n%d;\n", in, n.ID())
		}
	}
	fmt.Fprintln(out, "}")
	return out.Flush()
}

func escape(s string) string {
	var b []byte
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return string(b)
}
