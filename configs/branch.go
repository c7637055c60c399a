package configs

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// reference is the name of another layer; "" is left out.
type reference struct{ p *string }

func (v reference) text() text { return text{v.p, layerForm, "the name of a layer above, or input"} }

func (v reference) allowed() string { return v.text().allowed() }

func (v reference) decode(d *decoder, path string, n *yaml.Node) {
	if n.Kind == yaml.SequenceNode {
		d.report(n, path, "is a list, and this layer reads one tensor").Hint = "only add reads two"
		return
	}
	v.text().decode(d, path, n)
}

func (v reference) encode() *yaml.Node {
	if *v.p == "" {
		return nil
	}
	return v.text().encode()
}

// references are the names of the two layers that an addition reads.
type references struct{ p *[]string }

func (v references) allowed() string { return "the names of two layers above: [a, b]" }

func (v references) decode(d *decoder, path string, n *yaml.Node) {
	if n.Kind != yaml.SequenceNode || len(n.Content) != 2 {
		p := d.report(n, path, "is %s", describe(n))
		if n.Kind == yaml.SequenceNode {
			p.Message = fmt.Sprintf("is a list of %d", len(n.Content))
		}
		p.Allowed = v.allowed()
		return
	}
	out := make([]string, len(n.Content))
	for i, item := range n.Content {
		item = resolve(item)
		at := path + "[" + strconv.Itoa(i) + "]"
		d.at[at] = item
		reference{&out[i]}.text().decode(d, at, item)
	}
	*v.p = out
}

func (v references) encode() *yaml.Node { return words{p: v.p}.encode() }

// groupCount is a number of channel groups, or the word depthwise.
type groupCount struct{ p *int }

func (v groupCount) number() whole { return whole{v.p, 1, maxUnits} }

func (v groupCount) allowed() string { return "depthwise, " + v.number().allowed() }

func (v groupCount) decode(d *decoder, path string, n *yaml.Node) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" || n.Style != 0 {
		v.number().decode(d, path, n)
		return
	}
	if n.Value == "depthwise" {
		*v.p = Depthwise
		return
	}
	p := d.report(n, path, "unknown value %q", n.Value)
	p.Allowed = v.allowed()
	if near := nearest(n.Value, []string{"depthwise"}); near != "" {
		p.Hint = fmt.Sprintf("did you mean %q?", near)
	}
}

func (v groupCount) encode() *yaml.Node {
	if *v.p == Depthwise {
		return scalar("!!str", "depthwise")
	}
	return v.number().encode()
}

// limit is a number that is left out when it is 0.
type limit struct{ number }

func (v limit) encode() *yaml.Node {
	if *v.p == 0 {
		return nil
	}
	return v.number.encode()
}

// branches checks what layers say they read: layers above them, and every layer but the last is read by another.
func (d *decoder) branches(layers []Layer) {
	if d.failed("model") {
		return
	}
	at := map[string]int{}
	for i := range layers {
		at[layers[i].Name()] = i
	}
	read := make([]bool, len(layers))
	for i := range layers {
		l := &layers[i]
		path := fmt.Sprintf("model[%d].%s.from", i, l.Kind())
		from := l.sources()
		if len(from) == 0 && i > 0 {
			read[i-1] = true
		}
		for k, name := range from {
			field := path
			if l.Add != nil {
				field = fmt.Sprintf("%s[%d]", path, k)
			}
			if j, ok := d.source(field, name, i, at, layers); ok && j >= 0 {
				read[j] = true
			}
		}
		if len(from) == 2 && from[0] == from[1] {
			d.reportAt(path, "adds %q to itself", from[0]).Hint = "name two different layers"
		}
	}
	for i := range layers[:len(layers)-1] {
		if !read[i] && !d.failed("model") {
			d.reportAt(fmt.Sprintf("model[%d].%s", i, layers[i].Kind()), "nothing reads layer %q", layers[i].Name()).Hint =
				"name it in the from of a later layer, or remove it"
		}
	}
}

// source finds the layer that layer i names; -1 is the model's input.
func (d *decoder) source(field, name string, i int, at map[string]int, layers []Layer) (int, bool) {
	j, ok := at[name]
	switch {
	case !ok && name == inputName:
		return -1, true
	case ok && j < i:
		return j, true
	case ok && j == i:
		d.reportAt(field, "layer %q reads itself", name)
	case ok:
		d.reportAt(field, "layer %q comes later, at %s", name, layers[j].Origin()).Hint = "a layer reads what is above it"
	default:
		above := []string{inputName}
		for k := range layers[:i] {
			above = append(above, layers[k].Name())
		}
		p := d.reportAt(field, "no layer is called %q", name)
		p.Allowed = strings.Join(above, ", ")
		if near := nearest(name, above); near != "" {
			p.Hint = fmt.Sprintf("did you mean %q?", near)
		}
	}
	return 0, false
}
