package study

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// cellProgress writes one line for each cell and guesses the time that is left from the cells of the same method.
type cellProgress struct {
	w     io.Writer
	cells []cell
	done  int
	began time.Time
	spent map[string]time.Duration // by method, of cells that were run
	count map[string]int
}

func newCellProgress(w io.Writer, cells []cell) *cellProgress {
	return &cellProgress{w: w, cells: cells, spent: map[string]time.Duration{}, count: map[string]int{}}
}

func (p *cellProgress) begin(cell) { p.began = time.Now() }

func (p *cellProgress) end(c cell, out *outcome, cached bool) {
	p.done++
	took := time.Since(p.began)
	how := "from the folder"
	if !cached {
		p.spent[c.method] += took
		p.count[c.method]++
		how = "in " + short(took)
	}
	line := fmt.Sprintf("[%d/%d] seed %d  %-6s %-5s  %6.2f %%  %s", p.done, len(p.cells), c.seed, c.precision, strings.TrimSpace(c.method+" "+c.variant), out.accuracy(), how)
	if left, ok := p.left(); ok {
		line += ", about " + short(left) + " left"
	}
	fmt.Fprintln(p.w, line)
}

// left is the estimate; ok is false before the first cell that was run and after the last cell.
func (p *cellProgress) left() (time.Duration, bool) {
	var all time.Duration
	runs := 0
	for m, d := range p.spent {
		all += d
		runs += p.count[m]
	}
	rest := p.cells[p.done:]
	if runs == 0 || len(rest) == 0 {
		return 0, false
	}
	var left time.Duration
	for _, c := range rest {
		if n := p.count[c.method]; n > 0 {
			left += p.spent[c.method] / time.Duration(n)
		} else {
			left += all / time.Duration(runs)
		}
	}
	return left, true
}

// short is a duration with the precision that matters: 90 ms, 1.2 s, 3m10s.
func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	default:
		return d.Round(time.Second).String()
	}
}
