package configs

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Variant is one more way to quantize that the compare command runs beside the config's own: the same network and the
// same float training under other settings of the sections quant and qat.
type Variant struct {
	Name       string
	Set        []string // assignments as of --set
	Precisions []string // empty: all of Compare.Precisions
	Methods    []string // empty: all of Compare.Methods
}

// Variant is the configuration with the settings of a variant.
func (c *Config) Variant(v Variant) (*Config, error) {
	if c.src == nil {
		return nil, fmt.Errorf("config %q was not read from YAML, and variant %q is written as settings of a file", c.Name, v.Name)
	}
	out, _, err := parse(c.src.name, c.src.data, slices.Concat(c.src.sets, []string{"compare.variants=[]"}, v.Set))
	return out, err
}

func (v *Variant) fields() []field {
	return []field{
		{key: "name", value: text{&v.Name, nameForm, nameSays}, required: true},
		{key: "set", value: words{&v.Set, 64, checkAssignment, "a list such as [qat.epochs=1, quant.weight.range=lsq]"}, required: true},
		{key: "precisions", value: someWords{words{&v.Precisions, 64, checkPrecision, "a list such as [w4a4, w2a4]"}}},
		{key: "methods", value: someWords{words{&v.Methods, 8, checkMethod, "a list of ptq, qat"}}},
	}
}

func (v *Variant) later() map[string]string {
	const set = "write it as an assignment: set: [quant.weight.range=lsq, qat.epochs=1]"
	return map[string]string{"quant": set, "qat": set, "train": "variants share the float model: change the config for another one"}
}

// checkAssignment admits what leaves the data, the network and its float training alone.
func checkAssignment(s string) (problem, allowed, hint string) {
	where, _, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Sprintf("%q has no =", s), "path=value", "for example qat.epochs=1"
	}
	section, _, _ := strings.Cut(strings.TrimSpace(where), ".")
	if section != "quant" && section != "qat" {
		return fmt.Sprintf("%q changes more than how the network is quantized", s), "settings of quant and qat", "variants share the float model: change the config for another one"
	}
	return "", "", ""
}

// someWords are words that may be left out.
type someWords struct{ words }

func (v someWords) encode() *yaml.Node {
	if len(*v.p) == 0 {
		return nil
	}
	return v.words.encode()
}

// variants is the list of them.
type variants struct{ p *[]Variant }

// maxVariants bounds the list.
const maxVariants = 100

func (v variants) allowed() string { return "a list of {name: NAME, set: [path=value, ...]}" }

func (v variants) decode(d *decoder, path string, n *yaml.Node) {
	if n.Kind != yaml.SequenceNode || len(n.Content) > maxVariants {
		d.report(n, path, "is %s", describe(n)).Allowed = v.allowed()
		return
	}
	out := make([]Variant, len(n.Content))
	for i, item := range n.Content {
		item = resolve(item)
		at := fmt.Sprintf("%s[%d]", path, i)
		d.at[at] = item
		d.section(at, item, item, &out[i])
	}
	*v.p = out
}

func (v variants) encode() *yaml.Node {
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

// variants reads the configuration again with the settings of each variant: what they break is reported at its line.
func (d *decoder) variants(c *Config) {
	names := map[string]int{}
	for i, v := range c.Compare.Variants {
		at := fmt.Sprintf("compare.variants[%d]", i)
		if j, ok := names[v.Name]; ok {
			d.reportAt(at+".name", "%q is used twice, first by variants[%d]", v.Name, j)
		}
		names[v.Name] = i
		var broken *Errors
		if _, err := c.Variant(v); errors.As(err, &broken) {
			for _, b := range broken.Problems {
				p := d.reportAt(at+".set", "%s: %s", b.Field, b.Message)
				p.Allowed, p.Hint = b.Allowed, b.Hint
			}
		} else if err != nil {
			d.reportAt(at, "%v", err)
		}
	}
}
