package configs

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// value is one setting: it reads itself from a node and writes itself into one.
type value interface {
	decode(d *decoder, path string, n *yaml.Node)
	encode() *yaml.Node // nil: leave it out
}

// field is one key of a section. The tables of fields (fields.go) are the schema: reading, checking and writing all walk
// them.
type field struct {
	key      string
	value    value
	required bool
	only     string // if set, the key has no effect as things are, and this says when it would have one
}

// section is a mapping with a fixed set of keys. later holds keys that this version knows of and refuses, with a hint.
type section interface {
	fields() []field
	later() map[string]string
}

// decoder walks a document and collects every problem.
type decoder struct {
	src      *source
	at       map[string]*yaml.Node // value node of every path that was read
	keys     map[string]*yaml.Node // its key node
	problems []Problem
}

func newDecoder(src *source) *decoder {
	return &decoder{src: src, at: map[string]*yaml.Node{}, keys: map[string]*yaml.Node{}}
}

// report adds a problem at a node and returns it for allowed values and hints. The pointer is good until the next report.
func (d *decoder) report(n *yaml.Node, path, format string, args ...any) *Problem {
	p := Problem{File: d.src.name, Field: path}
	if n != nil { // nil: the file as a whole
		p = d.src.problem(n, path)
	}
	p.Message = fmt.Sprintf(format, args...)
	d.problems = append(d.problems, p)
	return &d.problems[len(d.problems)-1]
}

// reportAt adds a problem at what was read for a path, or else at the nearest path above it that was.
func (d *decoder) reportAt(path, format string, args ...any) *Problem {
	for at := path; at != ""; at = parent(at) {
		if n := d.at[at]; n != nil {
			if k := d.keys[at]; k != nil && n.Kind != yaml.ScalarNode || at != path && k != nil {
				n = k
			}
			return d.report(n, path, format, args...)
		}
	}
	return d.report(nil, path, format, args...)
}

// given reports whether the document has the path.
func (d *decoder) given(path string) bool { return d.at[path] != nil }

// failed reports whether a problem was found at the path or below it. Checks between fields are left out then: their
// answers would only be echoes.
func (d *decoder) failed(path string) bool {
	for _, p := range d.problems {
		if p.Field == path || strings.HasPrefix(p.Field, path+".") || strings.HasPrefix(p.Field, path+"[") {
			return true
		}
	}
	return false
}

func parent(path string) string {
	if i := strings.LastIndexAny(path, ".["); i >= 0 {
		return path[:i]
	}
	return ""
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// section reads a mapping. at is the node to blame for what is missing.
func (d *decoder) section(path string, at, n *yaml.Node, s section) {
	if n.Kind != yaml.MappingNode {
		p := d.report(n, path, "is %s where settings (key: value) belong", describe(n))
		if isNull(n) {
			p.Message = "has no value"
		}
		return
	}
	fields := s.fields()
	byKey := map[string]*field{}
	var known []string
	for i := range fields {
		byKey[fields[i].key] = &fields[i]
		known = append(known, fields[i].key)
	}
	given, meant := map[string]pair{}, map[string]bool{}
	for _, kv := range d.pairs(path, n) {
		if byKey[kv.key.Value] == nil {
			meant[d.unknownKey(path, kv.key, known, s.later())] = true
			continue
		}
		given[kv.key.Value] = kv
	}
	for _, f := range fields { // in the table's order, so that a later field may build on an earlier one
		kv, ok := given[f.key]
		sub := join(path, f.key)
		if !ok {
			if f.required && !meant[f.key] {
				p := d.report(at, sub, "is missing")
				p.Allowed = allowed(f.value)
			}
			continue
		}
		d.at[sub], d.keys[sub] = kv.value, kv.key
		if isNull(kv.value) {
			p := d.report(kv.key, sub, "has no value")
			p.Allowed = allowed(f.value)
			if p.Allowed == "" { // a section
				p.Hint = "write {} for the defaults, or remove the key"
			}
			continue
		}
		f.value.decode(d, sub, kv.value)
	}
}

// allowed asks a value what it accepts, for messages.
func allowed(v value) string {
	if a, ok := v.(interface{ allowed() string }); ok {
		return a.allowed()
	}
	return ""
}

// unknownKey reports a key that the section does not have, and returns the one that was probably meant, or "".
func (d *decoder) unknownKey(path string, key *yaml.Node, known []string, later map[string]string) string {
	field := join(path, printable(key.Value))
	if hint, ok := later[key.Value]; ok {
		d.report(key, field, "is not supported by this version").Hint = hint
		return ""
	}
	p := d.report(key, field, "unknown key")
	p.Allowed = strings.Join(known, ", ")
	near := nearest(key.Value, known)
	for _, ours := range synonyms()[key.Value] {
		if near == "" && slices.Contains(known, ours) {
			near = ours
		}
	}
	if near != "" {
		p.Hint = fmt.Sprintf("did you mean %q?", near)
	} else if home := homeOf(key.Value); home != "" && home != path {
		p.Hint = fmt.Sprintf("it belongs under %s:", home)
	}
	return near
}

// pair is one entry of a mapping, aliases resolved.
type pair struct{ key, value *yaml.Node }

// pairs lists the entries of a mapping. Keys given twice are reported; entries of merged mappings (<<) come after, and
// only where the mapping has no such key itself.
func (d *decoder) pairs(path string, n *yaml.Node) []pair {
	var out []pair
	var merged []*yaml.Node
	first := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], resolve(n.Content[i+1])
		switch {
		case k.ShortTag() == "!!merge":
			merged = append(merged, v)
		case k.Kind != yaml.ScalarNode:
			d.report(k, path, "a key must be a word, this is %s", describe(k))
		case first[k.Value] != nil:
			d.report(k, join(path, k.Value), "is given twice, first at %s", d.src.origin(first[k.Value]))
		default:
			first[k.Value] = k
			out = append(out, pair{k, v})
		}
	}
	for _, m := range merged {
		maps := []*yaml.Node{m}
		if m.Kind == yaml.SequenceNode {
			maps = m.Content
		}
		for _, sub := range maps {
			sub = resolve(sub)
			if sub.Kind != yaml.MappingNode {
				d.report(sub, path, "<< takes a mapping or a list of mappings, this is %s", describe(sub))
				continue
			}
			for i := 0; i+1 < len(sub.Content); i += 2 {
				k, v := sub.Content[i], resolve(sub.Content[i+1])
				if k.Kind == yaml.ScalarNode && k.ShortTag() != "!!merge" && first[k.Value] == nil {
					first[k.Value] = k
					out = append(out, pair{k, v})
				}
			}
		}
	}
	return out
}

// resolve follows an alias.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// describe says what a node is, for "is ... where ... belongs".
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	v := n.Value
	if len(v) > 40 {
		v = strings.ToValidUTF8(v[:40], "") + "..."
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!str":
		return fmt.Sprintf("the text %q", v)
	case "!!int", "!!float":
		return "the number " + printable(v)
	case "!!bool":
		return printable(v) + " (true or false)"
	case "!!timestamp":
		return fmt.Sprintf("the date %q", v)
	}
	return fmt.Sprintf("%s (%s)", printable(v), printable(n.ShortTag()))
}
