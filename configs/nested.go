package configs

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/narrow-ml/narrow/quant"
	"go.yaml.in/yaml/v3"
)

// version is the number of the schema.
type version struct{ p *int }

// schemaVersion is the only version there has been.
const schemaVersion = 1

func (v version) allowed() string { return "1" }

func (v version) decode(d *decoder, path string, n *yaml.Node) {
	var x int
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || n.Decode(&x) != nil {
		d.report(n, path, "is %s", describe(n)).Allowed = v.allowed()
		return
	}
	if x != schemaVersion {
		p := d.report(n, path, "is %d", x)
		p.Allowed, p.Hint = v.allowed(), "it is the version of the file's format, not of your experiment"
		return
	}
	*v.p = x
}

func (v version) encode() *yaml.Node { return scalar("!!int", fmt.Sprint(*v.p)) }

// nested is a section inside a section.
type nested struct {
	s       section
	example string // for a section that must be there
}

func (v nested) allowed() string { return v.example }

func (v nested) decode(d *decoder, path string, n *yaml.Node) { d.section(path, d.keys[path], n, v.s) }

func (v nested) encode() *yaml.Node {
	n := mapping(v.s.fields())
	if _, ok := v.s.(*tensorSection); ok {
		n.Style = yaml.FlowStyle
	}
	if _, ok := v.s.(*calibrationSection); ok {
		n.Style = yaml.FlowStyle
	}
	return n
}

// optional is a section whose presence means something.
type optional[T any, P interface {
	*T
	section
}] struct {
	p     **T
	fresh func() *T
}

func (v optional[T, P]) decode(d *decoder, path string, n *yaml.Node) {
	t := v.fresh()
	d.section(path, d.keys[path], n, P(t))
	*v.p = t
}

func (v optional[T, P]) encode() *yaml.Node {
	if *v.p == nil {
		return nil
	}
	return mapping(P(*v.p).fields())
}

// mapping writes fields in the order of their table, without those that have no effect.
func mapping(fields []field) *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for _, f := range fields {
		if f.only != "" {
			continue
		}
		if n := f.value.encode(); n != nil {
			m.Content = append(m.Content, scalar("!!str", f.key), n)
		}
	}
	return m
}

// layers is the model list.
type layers struct{ p *[]Layer }

// maxLayers bounds the list.
const maxLayers = 10000

func (v layers) allowed() string {
	return "a list of layers such as - dense: {units: 10}"
}

func (v layers) decode(d *decoder, path string, n *yaml.Node) {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 || len(n.Content) > maxLayers {
		p := d.report(n, path, "is %s", describe(n))
		if n.Kind == yaml.SequenceNode {
			p.Message = fmt.Sprintf("is a list of %d layers", len(n.Content))
		}
		p.Allowed = v.allowed()
		return
	}
	out := make([]Layer, len(n.Content))
	d.src.layers = make([]*yaml.Node, len(n.Content))
	for i, item := range n.Content {
		d.src.layers[i] = d.layer(fmt.Sprintf("%s[%d]", path, i), resolve(item), &out[i])
	}
	*v.p = out
}

// layerKinds are the keys a layer may have, in the order messages list them.
func layerKinds() []string {
	return []string{"conv", "dense", "maxpool", "flatten", "relu", "add", "gap"}
}

// laterLayers are kinds that this version knows of and refuses.
func laterLayers() map[string]string {
	const branch = "this version joins branches with add only"
	const sequence = "this version has no sequence layers"
	return map[string]string{
		"concat": branch, "mul": branch, "from": "write it inside a layer's braces: {from: NAME}",
		"residual": "write add: {from: [a, b]}", "depthwise": "write a conv with groups: depthwise",
		"separable": "write a conv with groups: depthwise, then a conv of kernel 1",
		"avgpool":   "use maxpool, or gap for the mean of the whole image", "globalavgpool": "write gap: {}",
		"lstm": sequence, "gru": sequence, "embedding": sequence, "attention": sequence,
		"dropout": "write dropout: 0.2 in the conv or dense layer whose input it is", "batchnorm": "write norm: batch in the conv or dense layer before it",
		"layernorm": "use norm: batch", "softmax": "the loss applies it: the model ends in logits",
		"sigmoid": "use act: relu", "tanh": "use act: relu", "gelu": "use act: relu", "relu6": "use act: relu6 of the layer before, or relu: {cap: 6}",
	}
}

// layer reads one layer and returns the node of its kind, or nil.
func (d *decoder) layer(path string, n *yaml.Node, l *Layer) *yaml.Node {
	d.at[path] = n
	l.origin = d.src.origin(n)
	if n.Kind != yaml.MappingNode {
		p := d.report(n, path, "is %s where a layer belongs", describe(n))
		p.Allowed = strings.Join(layerKinds(), ", ")
		if n.Kind == yaml.ScalarNode && slices.Contains(layerKinds(), n.Value) {
			p.Hint = fmt.Sprintf("write %s: {}", n.Value)
		}
		return nil
	}
	pairs := d.pairs(path, n)
	if len(pairs) != 1 {
		if d.failed(path) {
			return nil
		}
		p := d.report(n, path, "has %d keys; a layer is one kind with its settings in braces", len(pairs))
		p.Allowed = strings.Join(layerKinds(), ", ")
		if len(pairs) > 1 {
			p.Hint = fmt.Sprintf("indent the settings below %s:, or write %s: {...}", printable(pairs[0].key.Value), printable(pairs[0].key.Value))
		}
		return nil
	}
	kind, body := pairs[0].key, pairs[0].value
	sub := join(path, kind.Value)
	d.at[sub], d.keys[sub] = body, kind
	l.origin = d.src.origin(kind)
	var s section
	switch kind.Value {
	case "conv":
		l.Conv = &Conv{Stride: [2]int{1, 1}, Groups: 1, Norm: "none", Act: "none"}
		s = l.Conv
	case "dense":
		l.Dense = &Dense{Norm: "none", Act: "none"}
		s = l.Dense
	case "maxpool":
		l.MaxPool = &MaxPool{}
		s = l.MaxPool
	case "flatten":
		l.Flatten = &Flatten{}
		s = l.Flatten
	case "relu":
		l.ReLU = &ReLU{}
		s = l.ReLU
	case "add":
		l.Add = &Add{Act: "none"}
		s = l.Add
	case "gap":
		l.GAP = &GAP{}
		s = l.GAP
	default:
		d.unknownLayer(path, kind)
		return nil
	}
	d.section(sub, kind, body, s)
	l.defaults(d, sub)
	d.unused(sub, s.fields())
	return kind
}

func (d *decoder) unknownLayer(path string, kind *yaml.Node) {
	if hint, ok := laterLayers()[kind.Value]; ok {
		p := d.report(kind, path, "layer kind %q is not supported by this version", kind.Value)
		p.Allowed, p.Hint = strings.Join(layerKinds(), ", "), hint
		return
	}
	p := d.report(kind, path, "unknown layer kind %q", kind.Value)
	p.Allowed = strings.Join(layerKinds(), ", ")
	if near := nearest(kind.Value, layerKinds()); near != "" {
		p.Hint = fmt.Sprintf("did you mean %q?", near)
	}
}

func (v layers) encode() *yaml.Node {
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for i := range *v.p {
		l := &(*v.p)[i]
		body := mapping(l.body().fields())
		body.Style = yaml.FlowStyle
		list.Content = append(list.Content, &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{scalar("!!str", l.Kind()), body}})
	}
	return list
}

// rules is the list of quantization rules.
type rules struct{ p *[]Rule }

// maxRules bounds the list.
const maxRules = 1000

func (v rules) allowed() string { return "a list of {layer: pattern, weight: {...}, act: {...}}" }

func (v rules) decode(d *decoder, path string, n *yaml.Node) {
	if n.Kind != yaml.SequenceNode || len(n.Content) > maxRules {
		p := d.report(n, path, "is %s", describe(n))
		if n.Kind == yaml.SequenceNode {
			p.Message = fmt.Sprintf("is a list of %d", len(n.Content))
		}
		p.Allowed = v.allowed()
		return
	}
	out := make([]Rule, len(n.Content))
	for i, item := range n.Content {
		item = resolve(item)
		at := fmt.Sprintf("%s[%d]", path, i)
		d.at[at] = item
		out[i].origin = d.src.origin(item)
		before := len(d.problems)
		d.section(at, item, item, &out[i])
		r := &out[i]
		if len(d.problems) == before && r.Weight == nil && r.Act == nil {
			d.report(item, at, "changes nothing").Hint = "give it weight: {...} or act: {...}"
		}
	}
	*v.p = out
}

func (v rules) encode() *yaml.Node {
	if len(*v.p) == 0 {
		return nil
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for i := range *v.p {
		m := mapping((*v.p)[i].fields())
		m.Style = yaml.FlowStyle
		list.Content = append(list.Content, m)
	}
	return list
}

func (r *Rule) fields() []field {
	return []field{
		{key: "layer", value: glob{text{&r.Layer, globForm, "a layer's name or a pattern such as fc*"}}, required: true},
		{key: "weight", value: tensorRule{&r.Weight, weightRole}},
		{key: "act", value: tensorRule{&r.Act, actRole}},
	}
}

func (r *Rule) later() map[string]string {
	const side = "say of what: weight: {...}, act: {...} or both"
	return map[string]string{"format": side, "bits": side, "range": side, "skip": "every layer is quantized; a wider format such as int8 spares a sensitive one"}
}

// glob is a pattern of path.Match.
type glob struct{ text }

func (v glob) decode(d *decoder, at string, n *yaml.Node) {
	before := len(d.problems)
	v.text.decode(d, at, n)
	if len(d.problems) > before {
		return
	}
	if _, err := path.Match(*v.p, "x"); err != nil {
		d.report(n, at, "is a pattern that cannot be read: %q", *v.p).Allowed = "* any letters, ? one letter, [abc] one of them"
	}
}

// tensorRule is the part of a TensorQuant that a rule overrides.
type tensorRule struct {
	p    **TensorQuant
	role role
}

func (v tensorRule) decode(d *decoder, path string, n *yaml.Node) {
	t := &TensorQuant{}
	before := len(d.problems)
	s := &tensorSection{t, v.role, true}
	d.section(path, d.keys[path], n, s)
	if len(d.problems) == before && *t == (TensorQuant{}) {
		d.report(n, path, "is empty").Allowed = "format, scheme, per, range, max, levels, estimator"
	}
	*v.p = t
}

func (v tensorRule) encode() *yaml.Node {
	if *v.p == nil {
		return nil
	}
	m := mapping((&tensorSection{*v.p, v.role, true}).fields())
	m.Style = yaml.FlowStyle
	return m
}

func checkPrecision(s string) (problem, allowed, hint string) {
	if _, err := quant.ParsePrecision(s); err != nil {
		return err.Error(), "", ""
	}
	return "", "", ""
}

func checkMethod(s string) (problem, allowed, hint string) {
	methods := []string{"ptq", "qat"}
	if slices.Contains(methods, s) {
		return "", "", ""
	}
	if s == "none" || s == "fp32" || s == "fp32+" {
		return fmt.Sprintf("unknown value %q", s), "ptq, qat", "the rows fp32 and fp32+ are always there"
	}
	if near := nearest(s, methods); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	return fmt.Sprintf("unknown value %q", s), "ptq, qat", hint
}
