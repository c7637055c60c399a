package layers_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/layers"
)

// BenchmarkTwoWorkers compares one training on two workers with two trainings at once on one worker each, which is all
// that two processors give, and with one training on one worker alone. They take turns of eight steps; the metrics are
// medians of the quotients of neighbouring turns. It needs two processors with nothing else to do.
func BenchmarkTwoWorkers(b *testing.B) {
	for _, net := range benchNets {
		x, labels := net.data()
		for _, v := range stepVariants[:2] {
			b.Run(net.name+"/"+v.name, func(b *testing.B) {
				var nets [3]*layers.Net // on two workers, and twice on one
				for i := range nets {
					pool := par.New(1 + (2-i)/2)
					b.Cleanup(pool.Close)
					nets[i] = stepNet(b, net.model(b), v.fuse, v.freeze, v.change, v.backward, pool)
				}
				turn := func(nets ...*layers.Net) time.Duration {
					began := time.Now()
					var wg sync.WaitGroup
					for _, n := range nets {
						wg.Go(func() {
							for range benchTurn {
								run(b, n, x, labels, benchBatch)
							}
						})
					}
					wg.Wait()
					return time.Since(began)
				}
				var ofTwoRuns, ofOne []float64
				for b.Loop() {
					two, runs, one := turn(nets[0]), turn(nets[1:]...), turn(nets[1])
					ofTwoRuns = append(ofTwoRuns, float64(runs)/2/float64(two))
					ofOne = append(ofOne, float64(one)/float64(two))
				}
				b.ReportMetric(0, "ns/op")
				for name, r := range map[string][]float64{"of-two-runs": ofTwoRuns, "of-one": ofOne} {
					slices.Sort(r)
					at := func(p int) float64 { return r[p*(len(r)-1)/100] }
					b.ReportMetric(at(50), name)
					b.Logf("two workers / %s: median %.3f, quartiles %.3f and %.3f", name, at(50), at(25), at(75))
				}
			})
		}
	}
}
