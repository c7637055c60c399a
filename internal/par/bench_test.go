package par_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/narrow-ml/narrow/internal/par"
)

// BenchmarkRun is the price of handing a loop to two workers: the wall time of a loop whose shards are 2.5 us long (10 us on
// each), after a pause in the caller as long as the serial parts of a training step.
func BenchmarkRun(b *testing.B) {
	p := par.New(2)
	defer p.Close()
	busy := func(d time.Duration) {
		for began := time.Now(); time.Since(began) < d; {
		}
	}
	var each []time.Duration
	for b.Loop() {
		busy(4 * time.Microsecond)
		began := time.Now()
		if err := p.Run(par.Shards, func(int, int, int) { busy(2500 * time.Nanosecond) }); err != nil {
			b.Fatal(err)
		}
		each = append(each, time.Since(began))
	}
	slices.Sort(each)
	for _, q := range []int{10, 50, 90} {
		b.ReportMetric(float64(each[q*(len(each)-1)/100])/1000, fmt.Sprintf("p%d-us", q))
	}
}
