package study

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// WriteJSON writes compare.json.
func (res *Result) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(res)
}

// column is one column of the table, on a terminal and in the report.
type column struct {
	Title string
	Text  func(*Row) string
	Left  bool
}

const notMeasured = "-"

func columns() []column {
	difference := func(v *float64) string {
		if v == nil {
			return notMeasured
		}
		return signed(*v)
	}
	return []column{
		{"precision", func(r *Row) string {
			if r.Rules {
				return r.Precision + "*"
			}
			return r.Precision
		}, true},
		{"method", func(r *Row) string {
			if r.Method == MethodNone {
				return notMeasured
			}
			return r.name()
		}, true},
		{"accuracy %", func(r *Row) string {
			if r.Std == nil {
				return fmt.Sprintf("%.2f", r.Mean)
			}
			return fmt.Sprintf("%.2f ± %.2f", r.Mean, *r.Std)
		}, false},
		{"Δfp32", func(r *Row) string { return difference(r.DeltaFP32) }, false},
		{"Δfp32+", func(r *Row) string { return difference(r.DeltaFP32Plus) }, false},
		{"qat-ptq", func(r *Row) string { return difference(r.PairedDeltaPTQ) }, false},
		{"weights", func(r *Row) string { return byteSize(r.WeightBytes) }, false},
		{"file", func(r *Row) string { return byteSize(r.FileBytes) }, false},
		{"latency", func(r *Row) string { return micros(r.LatencyMicros) }, false},
		{"ex/s", func(r *Row) string { return thousands(r.Throughput) }, false},
		{"train", func(r *Row) string { return seconds(r.TrainSeconds) }, false},
	}
}

// footnotes explain the table in a line each.
func (res *Result) footnotes() []string {
	out := []string{fmt.Sprintf("accuracy: %s, %s, mean ± standard deviation; Δ in points", count(res.Examples, res.Split+" example"), count(len(res.Seeds), "seed"))}
	out = append(out, fmt.Sprintf("latency: one example; ex/s: batches of %d; %s, %s", speedBatch, res.Tier, count(res.Workers, "worker")))
	out = append(out, "train: time that the row adds per model")
	for i := range res.Rows {
		if res.Rows[i].Rules {
			return append(out, "*: rules of the config give some layers other formats")
		}
	}
	return out
}

// WriteTable writes the table for a terminal of 100 columns, its footnotes and the verdict.
func (res *Result) WriteTable(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s on %s\n\n", res.Config, res.Dataset)
	b.Write(res.aligned())
	b.WriteByte('\n')
	for _, s := range res.footnotes() {
		b.WriteString(s + "\n")
	}
	if len(res.Seeds) > 1 {
		b.WriteString("[a, b] after a difference: its 95 % interval over the seeds\n")
	}
	b.WriteByte('\n')
	for _, s := range res.Verdict {
		b.WriteString(wrapped("- ", "  ", s, 98) + "\n")
	}
	_, err := w.Write(b.Bytes())
	return err
}

// aligned is the table: numbers to the right, names to the left, a rule under the titles.
func (res *Result) aligned() []byte {
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	cols := columns()
	names := map[int]int{} // widths of the left columns: the tabwriter aligns all columns alike
	for i, c := range cols {
		if c.Left {
			names[i] = utf8.RuneCountInString(c.Title)
			for r := range res.Rows {
				names[i] = max(names[i], utf8.RuneCountInString(c.Text(&res.Rows[r])))
			}
		}
	}
	line := func(text func(column) string) {
		for i, c := range cols {
			s := text(c)
			fmt.Fprintf(t, "%s%s\t", s, strings.Repeat(" ", max(0, names[i]-utf8.RuneCountInString(s))))
		}
		fmt.Fprintln(t)
	}
	line(func(c column) string { return c.Title })
	for r := range res.Rows {
		line(func(c column) string { return c.Text(&res.Rows[r]) })
	}
	t.Flush()                                                          // into a buffer: it cannot fail
	lines := bytes.ReplaceAll(b.Bytes(), []byte("\n  "), []byte("\n")) // the padding before the first column
	head, body, _ := bytes.Cut(lines[2:], []byte("\n"))
	return bytes.Join([][]byte{head, bytes.Repeat([]byte("-"), utf8.RuneCount(head)), body}, []byte("\n"))
}

// wrapped breaks a sentence into lines of at most limit runes.
func wrapped(first, next, s string, limit int) string {
	var b strings.Builder
	b.WriteString(first)
	at := utf8.RuneCountInString(first)
	for i, word := range strings.Fields(s) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case at+1+n > limit:
			b.WriteString("\n" + next)
			at = utf8.RuneCountInString(next)
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += n
	}
	return b.String()
}
