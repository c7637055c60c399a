package study

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"regexp"
	"strings"
)

//go:embed report.html
var reportText string

// svgSize matches the fixed size in the first line of an SVG; the report scales the drawing instead.
var svgSize = regexp.MustCompile(`^(<svg) width="[^"]*" height="[^"]*"`)

// WriteHTML writes report.html: one file without scripts, fonts or pictures from elsewhere.
func (res *Result) WriteHTML(w io.Writer) error {
	t, err := template.New("report").Parse(reportText)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	svg, err := res.accuracyPlot()
	if err != nil {
		return err
	}
	type cellText struct {
		Text string
		Left bool
	}
	type line struct {
		Method string
		Cells  []cellText
	}
	data := struct {
		*Result
		Columns   []column
		Lines     []line
		Footnotes []string
		Plot      template.HTML
		Bars      bool
	}{Result: res, Columns: columns(), Footnotes: res.footnotes(), Plot: inlineSVG(svg), Bars: len(res.Seeds) > 1}
	for i := range res.Rows {
		l := line{Method: res.Rows[i].Method}
		for _, c := range data.Columns {
			l.Cells = append(l.Cells, cellText{c.Text(&res.Rows[i]), c.Left})
		}
		data.Lines = append(data.Lines, l)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	_, err = w.Write(b.Bytes())
	return err
}

// inlineSVG makes an SVG file part of a page: no XML prologue, no fixed size, ink in the page's text colour. Its texts
// are precision names and numbers written by this package, escaped by the SVG writer.
func inlineSVG(svg []byte) template.HTML {
	s := string(svg)
	if i := strings.Index(s, "<svg"); i >= 0 {
		s = s[i:]
	}
	s = svgSize.ReplaceAllString(s, `$1 role="img" aria-label="test accuracy against precision"`)
	return template.HTML(strings.ReplaceAll(s, inkHex, "currentColor"))
}
