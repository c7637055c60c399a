package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Row is one contestant in one comparison.
type Row struct {
	Net        string   `json:"net"`
	Task       string   `json:"task"`
	Precision  string   `json:"precision"`
	Batch      int      `json:"batch"`
	Threads    int      `json:"threads"`
	Contestant string   `json:"contestant"`
	Version    string   `json:"version,omitempty"`
	Detail     string   `json:"detail,omitempty"`
	Unit       string   `json:"unit"`                // img/s, or us: the median of single calls
	Wall       *Spread  `json:"wall,omitempty"`      // over the rounds, in Unit
	CPU        *Spread  `json:"cpu,omitempty"`       // the same by CPU time: img per CPU second, or CPU us per call
	Ratio      *Spread  `json:"ratio,omitempty"`     // speed of Narrow / speed of this peer, by wall time
	CPURatio   *Spread  `json:"cpu_ratio,omitempty"` // by CPU time
	Agree      *float64 `json:"agree,omitempty"`     // share of examples with the class that Narrow gives, same weights
	Samples    []Sample `json:"samples,omitempty"`
	Missing    *Missing `json:"missing,omitempty"`
}

// Report is everything one run found.
type Report struct {
	Host  Host     `json:"host"`
	Rows  []Row    `json:"rows"`
	Notes []string `json:"notes"`
}

const (
	unitRate    = "img/s"
	unitLatency = "us"
)

// rows are the results of a group: for each precision and batch Narrow first, then its peers.
func rows(g group, entries []*entry) []Row {
	var out []Row
	for _, precision := range []string{precFloat, precInt8} {
		for _, batch := range g.batches {
			var ours *entry
			for _, e := range entries {
				if e.precision != precision {
					continue
				}
				if e.name == nameNarrow {
					ours = e
				}
				out = append(out, row(g, e, ours, batch))
			}
		}
	}
	return out
}

func row(g group, e, ours *entry, batch int) Row {
	r := Row{Net: g.net.Name, Task: g.task, Precision: e.precision, Batch: batch, Threads: g.threads, Contestant: e.name,
		Version: e.ready.Version, Detail: e.ready.Detail, Unit: unitRate, Missing: e.missing, Samples: e.samples[batch]}
	if latency(g.task, batch) {
		r.Unit = unitLatency
	}
	if len(r.Samples) == 0 {
		return r
	}
	wall, cpu := speeds(r.Samples, r.Unit)
	r.Wall, r.CPU = inUnit(wall, r.Unit), inUnit(cpu, r.Unit)
	if e == ours || ours == nil || len(ours.samples[batch]) == 0 {
		return r
	}
	ourWall, ourCPU := speeds(ours.samples[batch], r.Unit)
	byWall, byCPU := spread(ratios(ourWall, wall)), spread(ratios(ourCPU, cpu))
	r.Ratio, r.CPURatio = &byWall, &byCPU
	r.Agree = agreement(ours.ready.Classes, e.ready.Classes)
	return r
}

// latency reports whether single calls are what matters.
func latency(task string, batch int) bool { return task == taskInfer && batch == 1 }

// speeds are samples as speeds: larger is faster.
func speeds(samples []Sample, unit string) (wall, cpu []float64) {
	for _, s := range samples {
		// A coarse clock may have missed the CPU time of a short run.
		c := max(s.CPU, 1e-6)
		if unit == unitLatency {
			wall, cpu = append(wall, 1/s.P50Micros), append(cpu, float64(s.Count)/c/1e6)
			continue
		}
		wall, cpu = append(wall, float64(s.Count)/s.Wall), append(cpu, float64(s.Count)/c)
	}
	return wall, cpu
}

// inUnit turns speeds into what the unit shows.
func inUnit(speeds []float64, unit string) *Spread {
	if unit == unitLatency {
		times := make([]float64, len(speeds))
		for i, v := range speeds {
			times[i] = 1 / v
		}
		speeds = times
	}
	s := spread(speeds)
	return &s
}

// agreement is the share of equal classes; nil where a contestant has not told its own, having other weights.
func agreement(ours, theirs []int) *float64 {
	n := min(len(ours), len(theirs))
	if n == 0 {
		return nil
	}
	equal := 0
	for i := range n {
		if ours[i] == theirs[i] {
			equal++
		}
	}
	share := float64(equal) / float64(n)
	return &share
}

// WriteJSON writes the report.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

func titles() []string {
	return []string{"net", "task", "precision", "batch", "threads", "contestant", "wall", "by CPU time", "narrow/peer", "by CPU time", "agree"}
}

// cells are the texts of a row.
func (r *Row) cells() []string {
	task := r.Task
	if latency(r.Task, r.Batch) {
		task = "latency"
	}
	out := []string{r.Net, task, r.Precision, fmt.Sprint(r.Batch), fmt.Sprint(r.Threads), r.Contestant}
	if r.Task == "" { // the whole net is missing
		out[3], out[4] = "", ""
	}
	if r.Missing != nil {
		return append(out, "missing", "", "", "", "")
	}
	agree := ""
	if r.Agree != nil {
		agree = fmt.Sprintf("%.0f %%", 100**r.Agree)
	}
	return append(out, around(r.Wall, number)+" "+r.Unit, around(r.CPU, number), around(r.Ratio, ratio), around(r.CPURatio, ratio), agree)
}

// around is a median with its spread.
func around(s *Spread, format func(float64) string) string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("%s (%s-%s)", format(s.Median), format(s.Min), format(s.Max))
}

func number(v float64) string {
	if v < 1000 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func ratio(v float64) string { return fmt.Sprintf("%.2f", v) }

// WriteTable writes the report as aligned text.
func (r *Report) WriteTable(w io.Writer) error {
	table := [][]string{titles()}
	for i := range r.Rows {
		table = append(table, r.Rows[i].cells())
	}
	width := make([]int, len(table[0]))
	for _, line := range table {
		for i, cell := range line {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for i, line := range table {
		if i > 0 && !sameComparison(&r.Rows[i-1], r.Rows[max(i-2, 0)]) {
			b.WriteString("\n")
		}
		var text strings.Builder
		for k, cell := range line {
			text.WriteString(cell + strings.Repeat(" ", width[k]-utf8.RuneCountInString(cell)+2))
		}
		b.WriteString(strings.TrimRight(text.String(), " ") + "\n")
	}
	b.WriteString("\n" + r.footer("", "\n"))
	_, err := io.WriteString(w, b.String())
	return err
}

// sameComparison reports whether two rows are about the same thing done by different contestants.
func sameComparison(a *Row, b Row) bool {
	return a.Net == b.Net && a.Task == b.Task && a.Precision == b.Precision && a.Batch == b.Batch && a.Threads == b.Threads
}

// WriteMarkdown writes the report as a table for docs/results.md.
func (r *Report) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	line := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	line(titles())
	line(strings.Split(strings.Repeat("--- ", len(titles())-1)+"---", " "))
	for i := range r.Rows {
		line(r.Rows[i].cells())
	}
	b.WriteString("\n" + r.footer("- ", "\n"))
	_, err := io.WriteString(w, b.String())
	return err
}

// footer names the machine, the versions, what each contestant ran and what is missing.
func (r *Report) footer(before, after string) string {
	var lines []string
	lines = append(lines, r.Host.lines()...)
	// What a contestant ran is the same for many rows.
	type run struct{ contestant, detail string }
	var order []run
	places := map[run][]string{}
	for i := range r.Rows {
		x := &r.Rows[i]
		k := run{strings.TrimSpace(x.Contestant + " " + x.Version), x.Detail}
		place := strings.Join(strings.Fields(strings.Join([]string{x.Net, x.Task, x.Precision}, " ")), " ")
		if x.Missing != nil {
			k.contestant, k.detail = "missing: "+x.Contestant, fmt.Sprintf("%s (install: %s)", x.Missing.Reason, x.Missing.Install)
		} else {
			place += fmt.Sprintf(" on %d", x.Threads)
		}
		if places[k] == nil {
			order = append(order, k)
		}
		if !slices.Contains(places[k], place) {
			places[k] = append(places[k], place)
		}
	}
	for _, k := range order {
		lines = append(lines, fmt.Sprintf("%s: %s: %s", k.contestant, strings.Join(places[k], ", "), k.detail))
	}
	lines = append(lines, r.Notes...)
	if idle, ok := r.waiting(); ok {
		lines = append(lines, fmt.Sprintf("waiting: one-thread runs were off the CPU for up to %.0f %% of their wall time (a few per cent on an idle machine)", 100*idle))
	}
	return before + strings.Join(lines, after+before) + after
}

// waiting is the largest share of wall time that a one-thread sample did not spend on the CPU.
func (r *Report) waiting() (share float64, ok bool) {
	for i := range r.Rows {
		if r.Rows[i].Threads != 1 {
			continue
		}
		for _, s := range r.Rows[i].Samples {
			share, ok = max(share, 1-s.CPU/s.Wall), true
		}
	}
	return share, ok
}
