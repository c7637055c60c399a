package study

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The plot is drawn without background. Its ink is a colour that no curve has, which the report turns into the page's
// text colour, so that it reads on light and on dark pages; the curves' colours have contrast on both.
var (
	ink       = color.RGBA{R: 1, G: 2, B: 3, A: 255}
	faint     = color.RGBA{R: 140, G: 140, B: 140, A: 255}
	ptqColour = color.RGBA{R: 214, G: 111, B: 18, A: 255}
	qatColour = color.RGBA{R: 36, G: 130, B: 214, A: 255}
)

const inkHex = "#010203"

// series is one curve: accuracies at places on the axis of precisions.
type series struct {
	plotter.XYs
	plotter.YErrors
}

// accuracyPlot draws accuracy against precision, fewest bits first: the fp32 line, PTQ and QAT with bars of one
// standard deviation. Without a quantized row there is nothing to draw and the result is empty.
func (res *Result) accuracyPlot() ([]byte, error) {
	names := res.precisions()
	if len(names) == 0 {
		return nil, nil
	}
	slices.SortStableFunc(names, func(a, b string) int {
		ra, rb := res.quantized(a), res.quantized(b)
		if d := ra.WeightBits - rb.WeightBits; d != 0 {
			return d
		}
		return ra.ActBits - rb.ActBits
	})
	p := plot.New()
	p.BackgroundColor = color.Transparent
	p.Y.Label.Text = res.Split + " accuracy (%)"
	p.X.Label.Text = "precision, fewest bits first"
	p.NominalX(names...)
	p.X.Min, p.X.Max = -0.4, float64(len(names)-1)+0.4
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Color, a.Label.TextStyle.Color, a.Tick.Color, a.Tick.Label.Color = ink, ink, ink, ink
		a.Label.TextStyle.Font, a.Tick.Label.Font = sans(12), sans(11)
		a.Label.Padding = vg.Points(4)
	}
	p.X.Width, p.X.Tick.Width = 0, 0
	p.Legend.TextStyle.Color, p.Legend.TextStyle.Font = ink, sans(11)
	p.Legend.Padding = vg.Points(2)
	p.Legend.Left, p.Legend.Top, p.Legend.XOffs = false, false, vg.Points(-6)
	p.Legend.YOffs = vg.Points(6)

	grid := plotter.NewGrid()
	grid.Vertical.Color = nil
	grid.Horizontal.Color, grid.Horizontal.Width, grid.Horizontal.Dashes = faint, vg.Points(0.4), []vg.Length{vg.Points(2), vg.Points(3)}
	p.Add(grid)

	base := res.baseline()
	line := plotter.NewFunction(func(float64) float64 { return base.Mean })
	line.XMin, line.XMax, line.Samples = p.X.Min, p.X.Max, 2
	line.Color, line.Width, line.Dashes = ink, vg.Points(1.2), []vg.Length{vg.Points(5), vg.Points(3)}
	p.Add(line)
	p.Legend.Add("fp32", line)
	low, high := base.Mean, base.Mean
	for _, m := range []struct {
		method string
		colour color.Color
		shape  draw.GlyphDrawer
		shift  float64 // keeps the bars of two methods apart
	}{{MethodPTQ, ptqColour, draw.BoxGlyph{}, -0.05}, {MethodQAT, qatColour, draw.CircleGlyph{}, 0.05}} {
		s := res.series(names, m.method, m.shift)
		if len(s.XYs) == 0 {
			continue
		}
		curve, dots, err := plotter.NewLinePoints(s.XYs)
		if err != nil {
			return nil, fmt.Errorf("plot: %w", err)
		}
		bars, err := plotter.NewYErrorBars(s)
		if err != nil {
			return nil, fmt.Errorf("plot: %w", err)
		}
		curve.Color, curve.Width = m.colour, vg.Points(1.6)
		dots.Color, dots.Shape, dots.Radius = m.colour, m.shape, vg.Points(3.5)
		bars.Color, bars.Width, bars.CapWidth = m.colour, vg.Points(1.2), vg.Points(7)
		p.Add(curve, bars, dots)
		p.Legend.Add(m.method, curve, dots)
		for i, xy := range s.XYs {
			low, high = min(low, xy.Y-s.YErrors[i].Low), max(high, xy.Y+s.YErrors[i].High)
		}
	}
	margin := max(0.05*(high-low), 0.05)
	p.Y.Min, p.Y.Max = max(0, low-margin), min(100+margin, high+margin)
	p.Y.Tick.Marker = plot.TickerFunc(roundTicks)

	c := vgsvg.NewWith(vgsvg.UseWH(8*vg.Inch, 4.2*vg.Inch))
	p.Draw(draw.New(c))
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("plot: %w", err)
	}
	return b.Bytes(), nil
}

// roundTicks puts four to eight labels on multiples of 1, 2 or 5 times a power of ten.
func roundTicks(low, high float64) []plot.Tick {
	step, digits := 10.0, 0
	for _, c := range []struct {
		step   float64
		digits int
	}{{20, 0}, {10, 0}, {5, 0}, {2, 0}, {1, 0}, {0.5, 1}, {0.2, 1}, {0.1, 1}, {0.05, 2}, {0.02, 2}, {0.01, 2}} {
		if step, digits = c.step, c.digits; (high-low)/step >= 4 {
			break
		}
	}
	var ticks []plot.Tick
	last := min(high, 100) + step/1000 // i*step may be one rounding above a bound that is itself a multiple
	for i := max(0, math.Ceil(low/step)); i*step <= last; i++ {
		ticks = append(ticks, plot.Tick{Value: i * step, Label: strconv.FormatFloat(i*step, 'f', digits, 64)})
	}
	return ticks
}

// sans is the font that the page uses too where the reader has no other.
func sans(points float64) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: vg.Points(points)}
}

// series collects the rows of a method in the order of names.
func (res *Result) series(names []string, method string, shift float64) series {
	var s series
	for i, name := range names {
		r := res.row(name, method)
		if r == nil {
			continue
		}
		bar := 0.0
		if r.Std != nil {
			bar = *r.Std
		}
		s.XYs = append(s.XYs, plotter.XY{X: float64(i) + shift, Y: r.Mean})
		s.YErrors = append(s.YErrors, struct{ Low, High float64 }{bar, bar})
	}
	return s
}
