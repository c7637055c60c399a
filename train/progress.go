package train

import (
	"fmt"
	"io"
	"math"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows the course of a phase: a bar with rate and remaining time on a terminal, a line per epoch elsewhere.
type progress struct {
	w     io.Writer
	bar   *progressbar.ProgressBar
	name  string
	began time.Time
	seen  int // examples
}

func newProgress(w io.Writer, name string, step, total int) *progress {
	p := &progress{w: w, name: name, began: time.Now()}
	if w == nil {
		return p
	}
	if f, ok := w.(interface{ Fd() uintptr }); ok && term.IsTerminal(int(f.Fd())) {
		p.bar = progressbar.NewOptions(total,
			progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(name), progressbar.OptionShowCount(),
			progressbar.OptionShowElapsedTimeOnFinish(), progressbar.OptionSetPredictTime(true),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(20))
		_ = p.bar.Set(step) // a bar that cannot be drawn must not stop a training
	}
	return p
}

// step tells of one more step.
func (p *progress) step(examples int, loss, accuracy float64) {
	p.seen += examples
	if p.bar == nil {
		return
	}
	p.bar.Describe(fmt.Sprintf("%s loss %.4f acc %.2f%% %.0f img/s", p.name, loss, accuracy, p.rate()))
	_ = p.bar.Add(1)
}

func (p *progress) rate() float64 {
	s := time.Since(p.began).Seconds()
	if s <= 0 {
		return 0
	}
	return float64(p.seen) / s
}

// epoch tells of a finished epoch.
func (p *progress) epoch(m metric, last bool) {
	if p.w == nil {
		return
	}
	if p.bar != nil {
		if last {
			_ = p.bar.Finish()
		} else {
			_ = p.bar.Clear()
		}
	}
	validation := ""
	if m.Val != nil {
		validation = fmt.Sprintf("  validation %.2f%%", *m.Val)
	}
	if m.Test != nil {
		validation += fmt.Sprintf("  test %.2f%%", *m.Test)
	}
	if m.Precision != "" {
		validation += "  " + m.Precision
	}
	if o := m.Oscillation; o != nil {
		all := float64(o.Weights)
		validation += fmt.Sprintf("  oscillating %.2f%%", 100*float64(o.Oscillating)/all)
		if o.Frozen > 0 {
			validation += fmt.Sprintf("  frozen %.2f%%", 100*float64(o.Frozen)/all)
		}
	}
	fmt.Fprintf(p.w, "%-6s epoch %-4v loss %.4f  train %.2f%%%s  %.0f img/s\n", p.name, math.Round(m.Epoch*1000)/1000, m.Loss, m.Train, validation, p.rate())
}
