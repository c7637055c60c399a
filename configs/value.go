package configs

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// whole is an integer from min to max.
type whole struct {
	p        *int
	min, max int
}

func (v whole) allowed() string { return fmt.Sprintf("a whole number from %d to %d", v.min, v.max) }

func (v whole) decode(d *decoder, path string, n *yaml.Node) {
	var x int64
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || n.Decode(&x) != nil {
		p := d.report(n, path, "is %s", describe(n))
		p.Allowed = v.allowed()
		p.Hint = unquote(n)
		return
	}
	if x < int64(v.min) || x > int64(v.max) {
		d.report(n, path, "is %d", x).Allowed = v.allowed()
		return
	}
	*v.p = int(x)
}

func (v whole) encode() *yaml.Node { return scalar("!!int", strconv.Itoa(*v.p)) }

// unquote is the hint for a number in quotes.
func unquote(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && n.Style != 0 {
		if _, err := strconv.ParseFloat(n.Value, 64); err == nil {
			return "remove the quotes"
		}
	}
	return ""
}

// seed is any uint64.
type seed struct{ p *uint64 }

func (v seed) allowed() string { return "a whole number from 0 to 18446744073709551615" }

func (v seed) decode(d *decoder, path string, n *yaml.Node) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || n.Decode(v.p) != nil {
		p := d.report(n, path, "is %s", describe(n))
		p.Allowed = v.allowed()
		p.Hint = unquote(n)
	}
}

func (v seed) encode() *yaml.Node { return scalar("!!int", strconv.FormatUint(*v.p, 10)) }

// number is a finite float64 in an interval; an open end does not belong to it.
type number struct {
	p                *float64
	min, max         float64
	openMin, openMax bool
}

func (v number) allowed() string {
	lo, hi := "at least ", ", at most "
	if v.openMin {
		lo = "above "
	}
	if v.openMax {
		hi = ", below "
	}
	return "a number " + lo + plain(v.min) + hi + plain(v.max)
}

func (v number) decode(d *decoder, path string, n *yaml.Node) {
	var x float64
	tag := n.ShortTag()
	if n.Kind != yaml.ScalarNode || tag != "!!int" && tag != "!!float" || n.Decode(&x) != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		p := d.report(n, path, "is %s", describe(n))
		p.Allowed = v.allowed()
		p.Hint = unquote(n)
		return
	}
	if x < v.min || x > v.max || v.openMin && x == v.min || v.openMax && x == v.max {
		d.report(n, path, "is %s", plain(x)).Allowed = v.allowed()
		return
	}
	*v.p = x
}

func (v number) encode() *yaml.Node {
	text := plain(*v.p)
	if !strings.Contains(text, ".") {
		return scalar("!!int", text) // 1 is a number to every reader
	}
	return scalar("!!float", text)
}

// plain writes a number without an exponent where that is readable: 1e-3 is text to PyYAML, and our files are read by
// scripts too.
func plain(x float64) string {
	if a := math.Abs(x); x != 0 && (a < 1e-12 || a >= 1e15) {
		return strconv.FormatFloat(x, 'e', -1, 64)
	}
	return strconv.FormatFloat(x, 'f', -1, 64)
}

// boolean is true or false.
type boolean struct{ p *bool }

func (v boolean) allowed() string { return "true, false" }

func (v boolean) decode(d *decoder, path string, n *yaml.Node) {
	var x bool
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Decode(&x) != nil {
		p := d.report(n, path, "is %s", describe(n))
		p.Allowed = v.allowed()
		switch strings.ToLower(n.Value) {
		case "yes", "on", "y", "1":
			p.Hint = "write true"
		case "no", "off", "n", "0":
			p.Hint = "write false"
		}
		return
	}
	*v.p = x
}

func (v boolean) encode() *yaml.Node { return scalar("!!bool", strconv.FormatBool(*v.p)) }

// text is a string of a given form.
type text struct {
	p    *string
	form *regexp.Regexp
	says string // the form in words
}

func (v text) allowed() string { return v.says }

func (v text) decode(d *decoder, path string, n *yaml.Node) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		p := d.report(n, path, "is %s", describe(n))
		p.Allowed = v.says
		if n.Kind == yaml.ScalarNode && v.form.MatchString(n.Value) {
			p.Hint = fmt.Sprintf("to use it as text, put it in quotes: %q", n.Value)
		}
		return
	}
	if !v.form.MatchString(n.Value) {
		d.report(n, path, "is %s", describe(n)).Allowed = v.says
		return
	}
	*v.p = n.Value
}

func (v text) encode() *yaml.Node { return scalar("!!str", *v.p) }

// choice is one of a list. refused holds values with an own answer: not supported yet, or never right in this place.
type choice[T comparable] struct {
	p       *T
	options []T
	refused map[string]string
}

func oneOf[T comparable](p *T, refused map[string]string, options ...T) choice[T] {
	return choice[T]{p, options, refused}
}

func (v choice[T]) names() []string {
	var names []string
	for _, o := range v.options {
		names = append(names, fmt.Sprint(o))
	}
	return names
}

func (v choice[T]) allowed() string { return strings.Join(v.names(), ", ") }

func (v choice[T]) decode(d *decoder, path string, n *yaml.Node) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		d.report(n, path, "is %s", describe(n)).Allowed = v.allowed()
		return
	}
	for _, o := range v.options {
		if fmt.Sprint(o) == n.Value {
			*v.p = o
			return
		}
	}
	if why, ok := v.refused[n.Value]; ok {
		p := d.report(n, path, "%q is not supported here", n.Value)
		p.Allowed, p.Hint = v.allowed(), why
		return
	}
	p := d.report(n, path, "unknown value %q", n.Value)
	p.Allowed = v.allowed()
	if near := nearest(n.Value, v.names()); near != "" {
		p.Hint = fmt.Sprintf("did you mean %q?", near)
	}
}

func (v choice[T]) encode() *yaml.Node {
	var none T
	if *v.p == none {
		return nil // a rule that keeps the default
	}
	tag := "!!str"
	if _, number := any(none).(int); number {
		tag = "!!int"
	}
	return scalar(tag, fmt.Sprint(*v.p))
}

// extent2 is height and width: one number for both, or a list of two.
type extent2 struct {
	p   *[2]int
	max int
}

func (v extent2) allowed() string {
	return fmt.Sprintf("a whole number from 1 to %d, or [height, width]", v.max)
}

func (v extent2) decode(d *decoder, path string, n *yaml.Node) {
	var x [2]int
	if wholes(d, path, n, x[:], 1, v.max, v.allowed()) {
		*v.p = x
	}
}

func (v extent2) encode() *yaml.Node { return wholesNode(v.p[:]) }

// padding is same, valid, one number for all sides, or top, left, bottom, right. It is resolved against the window.
type padding struct {
	p      *[4]int
	window *[2]int
}

const maxPad = 1024

func (v padding) allowed() string {
	return fmt.Sprintf("same, valid, a whole number from 0 to %d, or [top, left, bottom, right]", maxPad)
}

func (v padding) decode(d *decoder, path string, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
		switch n.Value {
		case "same":
			*v.p = samePad(*v.window)
		case "valid":
			*v.p = [4]int{}
		default:
			p := d.report(n, path, "unknown value %q", n.Value)
			p.Allowed = v.allowed()
			if near := nearest(n.Value, []string{"same", "valid"}); near != "" {
				p.Hint = fmt.Sprintf("did you mean %q?", near)
			}
		}
		return
	}
	var x [4]int
	if wholes(d, path, n, x[:], 0, maxPad, v.allowed()) {
		*v.p = x
	}
}

func (v padding) encode() *yaml.Node { return wholesNode(v.p[:]) }

// samePad adds window-1 cells along each axis, the smaller half before.
func samePad(window [2]int) [4]int {
	h, w := window[0]-1, window[1]-1
	return [4]int{h / 2, w / 2, h - h/2, w - w/2}
}

// wholes reads one integer for all of x, or a list with one for each.
func wholes(d *decoder, path string, n *yaml.Node, x []int, lo, hi int, allowed string) bool {
	items := make([]*yaml.Node, len(x))
	switch {
	case n.Kind == yaml.ScalarNode:
		for i := range items {
			items[i] = n
		}
	case n.Kind == yaml.SequenceNode && len(n.Content) == len(x):
		copy(items, n.Content)
	case n.Kind == yaml.SequenceNode:
		d.report(n, path, "is a list of %d", len(n.Content)).Allowed = allowed
		return false
	default:
		d.report(n, path, "is %s", describe(n)).Allowed = allowed
		return false
	}
	before := len(d.problems)
	for i, item := range items {
		at := path
		if n.Kind == yaml.SequenceNode {
			at = fmt.Sprintf("%s[%d]", path, i)
		}
		whole{&x[i], lo, hi}.decode(d, at, resolve(item))
		if len(d.problems) > before {
			if n.Kind == yaml.ScalarNode {
				d.problems[before].Allowed = allowed
			}
			return false
		}
	}
	return true
}

func wholesNode(x []int) *yaml.Node {
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
	same := true
	for _, v := range x {
		same = same && v == x[0]
		list.Content = append(list.Content, scalar("!!int", strconv.Itoa(v)))
	}
	if same {
		return list.Content[0]
	}
	return list
}

func scalar(tag, value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
}

// words is a list of strings; each is checked by check, which returns what is wrong, what is allowed and a hint.
type words struct {
	p     *[]string
	max   int
	check func(string) (problem, allowed, hint string)
	says  string
}

func (v words) allowed() string { return v.says }

func (v words) decode(d *decoder, path string, n *yaml.Node) {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 || len(n.Content) > v.max {
		p := d.report(n, path, "is %s", describe(n))
		if n.Kind == yaml.SequenceNode {
			p.Message = fmt.Sprintf("is a list of %d", len(n.Content))
		}
		p.Allowed = v.says
		if n.Kind == yaml.ScalarNode && !isNull(n) {
			p.Hint = fmt.Sprintf("write [%s]", printable(n.Value))
		}
		return
	}
	var out []string
	for i, item := range n.Content {
		item = resolve(item)
		at := fmt.Sprintf("%s[%d]", path, i)
		d.at[at] = item
		if item.Kind != yaml.ScalarNode || isNull(item) {
			d.report(item, at, "is %s", describe(item)).Allowed = v.says
			continue
		}
		if problem, allowed, hint := v.check(item.Value); problem != "" {
			p := d.report(item, at, "%s", problem)
			p.Allowed, p.Hint = allowed, hint
			continue
		}
		out = append(out, item.Value)
	}
	*v.p = out
}

func (v words) encode() *yaml.Node {
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
	for _, w := range *v.p {
		list.Content = append(list.Content, scalar("!!str", w))
	}
	return list
}
