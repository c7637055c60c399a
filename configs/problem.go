package configs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Problem is one thing wrong with a configuration.
type Problem struct {
	File    string // or "--set path=value" where the value came from the command line
	Line    int    // from 1; 0: the problem has no line
	Column  int    // from 1, in characters; 0: unknown
	Field   string // "model[2].conv.filters"; "" for the file as a whole
	Message string
	Allowed string // what would be right; may be empty
	Hint    string // what to do about it; may be empty

	source string // the line's text
	width  int    // characters to underline
}

// String is "file:line: field: message (allowed: ...); hint", without the excerpt.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	b.WriteString(p.Message)
	if p.Allowed != "" {
		fmt.Fprintf(&b, " (allowed: %s)", p.Allowed)
	}
	if p.Hint != "" {
		b.WriteString("; " + p.Hint)
	}
	return b.String()
}

// Excerpt is the source line with the place marked, or "" if there is none:
//
//	7 | train: {epochs: 3, optimizer: adm}
//	  |                               ^^^
func (p Problem) Excerpt() string {
	if p.Line == 0 || p.Column == 0 || strings.TrimSpace(p.source) == "" {
		return ""
	}
	const longest = 120
	text := []rune(printable(strings.ReplaceAll(p.source, "\t", " ")))
	at := min(p.Column-1, len(text))
	if len(text) > longest { // show the part around the place
		from := max(0, min(at-longest/2, len(text)-longest))
		text, at = text[from:from+longest], at-from
		if from > 0 {
			copy(text, []rune("..."))
		}
	}
	width := max(1, min(p.width, len(text)-at))
	number := fmt.Sprintf("%5d", p.Line)
	return fmt.Sprintf("%s | %s\n%s | %s%s", number, string(text), strings.Repeat(" ", len(number)), strings.Repeat(" ", at), strings.Repeat("^", width))
}

// printable replaces what a terminal would act on: configurations are also read from strangers.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == utf8.RuneError {
			return '.'
		}
		return r
	}, s)
}

// Errors is every problem of one configuration, in the order of its lines.
type Errors struct {
	Problems []Problem
}

// Error lists the problems, each with the line it is on.
func (e *Errors) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.String())
		if x := p.Excerpt(); x != "" {
			b.WriteString("\n" + x)
		}
	}
	return b.String()
}

func (e *Errors) sort() {
	slices.SortStableFunc(e.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
