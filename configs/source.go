package configs

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxBytes bounds a configuration. The largest useful one has a few hundred lines.
const maxBytes = 1 << 20

// source is the text a Config came from and the assignments laid over it.
type source struct {
	name  string
	data  []byte
	sets  []string
	lines []string
	bySet map[*yaml.Node]string // nodes that an assignment made, and its text

	layers []*yaml.Node // the kind of each layer, for problems found while building
}

func newSource(name string, data []byte, sets []string) *source {
	return &source{name: name, data: data, sets: sets, lines: strings.Split(string(data), "\n"), bySet: map[*yaml.Node]string{}}
}

// problem is a Problem at a node.
func (s *source) problem(n *yaml.Node, field string) Problem {
	if set, ok := s.bySet[n]; ok {
		return Problem{File: "--set " + set, Field: field}
	}
	p := Problem{File: s.name, Field: field, Line: n.Line, Column: n.Column, width: 1}
	p.source = s.line(n.Line)
	if n.Kind == yaml.ScalarNode && !strings.Contains(n.Value, "\n") {
		p.width = utf8.RuneCountInString(n.Value)
		if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
			p.width += 2
		}
	}
	return p
}

func (s *source) line(number int) string {
	if number < 1 || number > len(s.lines) {
		return ""
	}
	return strings.TrimSuffix(s.lines[number-1], "\r")
}

// origin is where a node was written, as messages name it.
func (s *source) origin(n *yaml.Node) string {
	if set, ok := s.bySet[n]; ok {
		return "--set " + set
	}
	return fmt.Sprintf("%s:%d", s.name, n.Line)
}

// parse reads the one document of the source.
func (s *source) parse() (*yaml.Node, *Problem) {
	if len(s.data) > maxBytes {
		return nil, &Problem{File: s.name, Message: fmt.Sprintf("is %d bytes long", len(s.data)), Allowed: fmt.Sprintf("at most %d bytes", maxBytes)}
	}
	if !utf8.Valid(s.data) {
		return nil, &Problem{File: s.name, Message: "is not text in UTF-8"}
	}
	dec := yaml.NewDecoder(strings.NewReader(string(s.data)))
	var doc, second yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) || err == nil && (len(doc.Content) == 0 || isNull(doc.Content[0])) {
		return nil, &Problem{File: s.name, Message: "the file is empty", Hint: "a configuration needs at least version, dataset, model and train"}
	}
	if err != nil {
		return nil, s.syntax(err)
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		p := s.problem(&second, "")
		p.Message, p.Hint = "a second document starts here", "one file holds one configuration: remove the line --- and what follows, or make a second file of it"
		return nil, &p
	case !errors.Is(err, io.EOF):
		return nil, s.syntax(err)
	}
	root := resolve(doc.Content[0])
	if root.Kind != yaml.MappingNode {
		p := s.problem(root, "")
		p.Message = fmt.Sprintf("a configuration is made of key: value lines, this is %s", describe(root))
		return nil, &p
	}
	return root, nil
}

var (
	yamlLine   = regexp.MustCompile(`^line (\d+): (.*)$`)
	yamlAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
	// The YAML reader counts lines from 0 in the errors of its parser (but not in those of its scanner, and it leaves
	// out line 0 altogether). These are the parser's.
	yamlParser = regexp.MustCompile(`^(did not find expected (node content|'-' indicator|key|',' or|<)|found undefined tag handle|found duplicate %)`)
)

// syntax turns the YAML reader's error into a Problem at its line.
func (s *source) syntax(err error) *Problem {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = m[2]
	}
	p := &Problem{File: s.name, Message: "not valid YAML: " + text}
	if m := yamlAnchor.FindStringSubmatch(text); m != nil {
		for i, l := range s.lines {
			if strings.Contains(l, "*"+m[1]) {
				line = i + 1
				break
			}
		}
		p.Hint = fmt.Sprintf("an alias *%s needs an anchor &%s before it", m[1], m[1])
	} else if line == 0 || yamlParser.MatchString(text) {
		line++
	}
	last := len(s.lines)
	for last > 1 && strings.TrimSpace(s.lines[last-1]) == "" {
		last--
	}
	p.Line = min(line, last)
	if strings.Contains(text, "end of stream") || strings.Contains(text, "',' or") {
		p.Hint = "look for a quote or bracket that is not closed, here or above"
	}
	p.source = s.line(p.Line)
	indent := len(p.source) - len(strings.TrimLeft(p.source, " \t"))
	p.Column, p.width = indent+1, utf8.RuneCountInString(p.source[indent:])
	if strings.Contains(p.source[:indent], "\t") {
		p.Hint = "YAML indents with spaces, this line has a tab"
	}
	return p
}
