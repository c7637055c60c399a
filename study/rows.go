package study

import (
	"fmt"
	"math"
	"slices"

	"github.com/narrow-ml/narrow/quant"
)

// rows summarises the cells of every arm.
func (p *plan) rows(outcomes map[cell]*outcome, speeds map[arm]speed) ([]Row, error) {
	values := map[arm][]float64{}
	var rows []Row
	for _, a := range p.arms {
		row := Row{
			Precision: a.precision.String(), Method: a.method, Variant: a.variant, Metric: accuracyMetric, Seeds: slices.Clone(p.seeds),
			WeightBits: a.precision.Weight.Bits(), ActBits: a.precision.Act.Bits(),
			LatencyMicros: rounded(speeds[a].latencyMicros), Throughput: math.Round(speeds[a].throughput),
			Rules: len(p.quant(a).Rules) > 0, EvenLevels: p.quant(a).Weight.Even,
		}
		for i, seed := range p.seeds {
			out := outcomes[cell{a, seed}]
			if out == nil {
				return nil, fmt.Errorf("%s, seed %d is missing", a, seed)
			}
			row.Values = append(row.Values, out.accuracy())
			row.TrainSeconds += out.Seconds / float64(len(p.seeds))
			if out.Ranges != "" {
				row.PTQMethods = append(row.PTQMethods, out.Ranges)
			}
			if i == 0 { // the same for every seed but for the last bytes of a file's header
				row.WeightBytes, row.FileBytes = out.WeightBytes, out.FileBytes
			}
		}
		row.TrainSeconds = rounded(row.TrainSeconds)
		values[a] = row.Values
		ptq, ok := values[arm{a.precision, MethodPTQ, a.variant}]
		if !ok { // the variant is not about calibration
			ptq = values[arm{a.precision, MethodPTQ, ""}]
		}
		rows = append(rows, row.compared(values[arm{quant.Full, MethodNone, ""}], values[arm{quant.Full, MethodExtra, p.control[a.variant]}], ptq))
	}
	return rows, nil
}

// compared fills the statistics of a row whose values are set. fp32plus and ptq are nil where there is no such row.
func (r Row) compared(fp32, fp32plus, ptq []float64) Row {
	s := summarize(r.Values)
	r.Mean, r.Std, r.CI95 = rounded(s.Mean), roundedPtr(s.Std), roundedPtr(s.Half)
	r.DeltaFP32 = meanDifference(r.Values, fp32)
	r.DeltaFP32Plus = meanDifference(r.Values, fp32plus)
	if r.Method == MethodQAT && ptq != nil {
		d := summarize(differences(r.Values, ptq))
		r.PairedDeltaPTQ, r.PairedCI95PTQ = roundedPtr(&d.Mean), roundedPtr(d.Half)
	}
	return r
}

func meanDifference(a, b []float64) *float64 {
	if b == nil {
		return nil
	}
	d := summarize(differences(a, b)).Mean
	return roundedPtr(&d)
}

// rounded is v to six decimals: what lies beyond is the noise of floating-point sums, which differs between CPUs.
func rounded(v float64) float64 { return math.Round(v*1e6) / 1e6 }

func roundedPtr(v *float64) *float64 {
	if v == nil {
		return nil
	}
	r := rounded(*v)
	return &r
}
