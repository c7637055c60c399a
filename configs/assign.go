package configs

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// assign puts the value of "path=value" into the tree. What it adds is checked with the rest of the document.
func (d *decoder) assign(root *yaml.Node, set string) {
	fail := func(field, format string, args ...any) *Problem {
		d.problems = append(d.problems, Problem{File: "--set " + printable(set), Field: field, Message: fmt.Sprintf(format, args...)})
		return &d.problems[len(d.problems)-1]
	}
	where, text, ok := strings.Cut(set, "=")
	if !ok {
		fail("", "has no =").Hint = "write path=value, for example train.lr=0.001"
		return
	}
	where = strings.TrimSpace(where)
	steps, err := parsePath(where)
	if err != nil {
		fail(where, "%v", err).Hint = "write keys joined by dots, for example quant.rules[0].weight.range"
		return
	}
	value, err := parseValue(text)
	if err != nil {
		fail(where, "the value is not valid YAML: %v", err)
		return
	}
	d.mark(value, printable(set))
	at := root
	for i, s := range steps {
		here := strings.Join(renderPath(steps[:i]), "")
		last := i == len(steps)-1
		var slot **yaml.Node
		var problem string
		switch {
		case s.index >= 0 && at.Kind != yaml.SequenceNode:
			problem = fmt.Sprintf("%s is %s, not a list", here, describe(at))
		case s.index >= 0 && s.index >= len(at.Content):
			problem = fmt.Sprintf("%s has %d entries, counted from 0", here, len(at.Content))
		case s.index >= 0:
			slot = &at.Content[s.index]
		case at.Kind == yaml.MappingNode:
			slot = d.slot(at, s.key, last, printable(set))
		case at.Kind == yaml.SequenceNode:
			if at = layerNamed(at, s.key); at == nil {
				problem = fmt.Sprintf("%s has no layer named %q in the file", here, s.key)
			} else if last {
				problem = fmt.Sprintf("names the layer %q but none of its settings", s.key)
			}
		default:
			problem = fmt.Sprintf("%s is %s and has no settings", here, describe(at))
		}
		if problem != "" {
			fail(where, "%s", problem)
			return
		}
		if slot == nil {
			continue // a layer by name: already stepped into
		}
		if last {
			*slot = value
			return
		}
		*slot = own(*slot)
		at = *slot
	}
}

// slot is the place of a key's value in a mapping, made if it is missing: for the value, or for a mapping on the way.
func (d *decoder) slot(m *yaml.Node, key string, last bool, set string) **yaml.Node {
	unmerge(m)
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			if !last && isNull(m.Content[i+1]) {
				m.Content[i+1] = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
				d.src.bySet[m.Content[i+1]] = set
			}
			return &m.Content[i+1]
		}
	}
	k, v := scalar("!!str", key), &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	d.src.bySet[k], d.src.bySet[v] = set, set
	m.Content = append(m.Content, k, v)
	return &m.Content[len(m.Content)-1]
}

// unmerge writes out merged keys (<<), so that one of them can be changed.
func unmerge(m *yaml.Node) {
	for _, n := range m.Content {
		if n.ShortTag() == "!!merge" {
			pairs := newDecoder(newSource("", nil, nil)).pairs("", m)
			m.Content = nil
			for _, kv := range pairs {
				m.Content = append(m.Content, kv.key, kv.value)
			}
			return
		}
	}
}

// own is the node, or a copy of what an alias stands for: a change must not reach the other places that use the anchor.
func own(n *yaml.Node) *yaml.Node {
	if n.Kind != yaml.AliasNode {
		return n
	}
	target := *resolve(n)
	target.Content = append([]*yaml.Node(nil), target.Content...)
	return &target
}

// layerNamed finds the settings of a layer by the name written in the file.
func layerNamed(list *yaml.Node, name string) *yaml.Node {
	for i, item := range list.Content {
		layer := resolve(item)
		if layer.Kind != yaml.MappingNode || len(layer.Content) != 2 {
			continue
		}
		body := resolve(layer.Content[1])
		if body.Kind != yaml.MappingNode {
			continue
		}
		for j := 0; j+1 < len(body.Content); j += 2 {
			if body.Content[j].Value == "name" && resolve(body.Content[j+1]).Value == name {
				list.Content[i] = own(item)
				layer = list.Content[i]
				layer.Content[1] = own(layer.Content[1])
				return layer.Content[1]
			}
		}
	}
	return nil
}

// mark remembers which assignment made the nodes of a value.
func (d *decoder) mark(n *yaml.Node, set string) {
	d.src.bySet[n] = set
	for _, c := range n.Content {
		d.mark(c, set)
	}
}

func parseValue(text string) (*yaml.Node, error) {
	dec := yaml.NewDecoder(strings.NewReader(text))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return scalar("!!null", ""), nil
	} else if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("it holds more than one value")
	}
	if hasAlias(&doc) {
		return nil, errors.New("aliases cannot be used here")
	}
	return doc.Content[0], nil
}

func hasAlias(n *yaml.Node) bool {
	if n.Kind == yaml.AliasNode {
		return true
	}
	for _, c := range n.Content {
		if hasAlias(c) {
			return true
		}
	}
	return false
}

// step is a key, or an index if that is not negative.
type step struct {
	key   string
	index int
}

func parsePath(s string) ([]step, error) {
	var steps []step
	for _, part := range strings.Split(s, ".") {
		key, rest, _ := strings.Cut(part, "[")
		if key == "" {
			return nil, errors.New("the path has an empty key")
		}
		steps = append(steps, step{key, -1})
		if len(key) == len(part) {
			continue
		}
		for _, index := range strings.Split(rest, "[") {
			digits, ok := strings.CutSuffix(index, "]")
			i, err := strconv.Atoi(digits)
			if !ok || err != nil || i < 0 {
				return nil, fmt.Errorf("[%s is not a list position", index)
			}
			steps = append(steps, step{"", i})
		}
	}
	return steps, nil
}

func renderPath(steps []step) []string {
	var out []string
	for i, s := range steps {
		switch {
		case s.index >= 0:
			out = append(out, fmt.Sprintf("[%d]", s.index))
		case i > 0:
			out = append(out, "."+s.key)
		default:
			out = append(out, s.key)
		}
	}
	return out
}
