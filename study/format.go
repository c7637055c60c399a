package study

import (
	"fmt"
	"strconv"
)

// minus is the sign of negative numbers in sentences and tables.
const minus = "\u2212"

// signed is a number with sign and two decimals; what rounds to zero has no sign.
func signed(v float64) string {
	s := strconv.FormatFloat(v, 'f', 2, 64)
	switch {
	case s == "0.00" || s == "-0.00":
		return "0.00"
	case v < 0:
		return minus + s[1:]
	default:
		return "+" + s
	}
}

func points(v float64) string { return signed(v) + " points" }

// withInterval is a mean difference and, if there is a spread, its 95 % interval.
func withInterval(s summary) string {
	if s.Half == nil {
		return points(s.Mean)
	}
	return fmt.Sprintf("%s [%s, %s]", points(s.Mean), signed(s.Mean-*s.Half), signed(s.Mean+*s.Half))
}

// byteSize uses powers of 1000, like ls --si and disk makers.
func byteSize(n int) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1e6:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	default:
		return fmt.Sprintf("%.2f MB", float64(n)/1e6)
	}
}

func micros(v float64) string {
	switch {
	case v < 10:
		return fmt.Sprintf("%.2f µs", v)
	case v < 100:
		return fmt.Sprintf("%.1f µs", v)
	case v < 10e3:
		return fmt.Sprintf("%.0f µs", v)
	default:
		return fmt.Sprintf("%.1f ms", v/1e3)
	}
}

func thousands(v float64) string {
	switch {
	case v < 1e3:
		return fmt.Sprintf("%.0f", v)
	case v < 1e5:
		return fmt.Sprintf("%.1fk", v/1e3)
	case v < 1e6:
		return fmt.Sprintf("%.0fk", v/1e3)
	default:
		return fmt.Sprintf("%.2fM", v/1e6)
	}
}

func seconds(v float64) string {
	switch {
	case v < 0.1:
		return fmt.Sprintf("%.0f ms", v*1e3)
	case v < 100:
		return fmt.Sprintf("%.1f s", v)
	default:
		return fmt.Sprintf("%.1f min", v/60)
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
