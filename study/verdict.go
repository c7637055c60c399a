package study

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// sameSpeed is the ratio within which two speeds are called equal: repeated measurements on a busy machine vary that much.
const sameSpeed = 1.1

// judge puts the table into sentences. Every number in them is one of the table's, or a ratio of two.
func (res *Result) judge() []string {
	var out []string
	for _, part := range [][]string{res.judgeMemory(), res.judgePTQ(), res.judgeExtra(), res.judgeQAT(), res.judgeVariants(), res.judgeSpeed(), res.notes()} {
		out = append(out, part...)
	}
	return out
}

// row finds a row of the config itself; nil if it was not run.
func (res *Result) row(precision, method string) *Row {
	for i := range res.Rows {
		if r := &res.Rows[i]; r.Precision == precision && r.Method == method && r.Variant == "" {
			return r
		}
	}
	return nil
}

func (res *Result) baseline() *Row { return res.row("fp32", MethodNone) }

// precisions lists what was quantized to, in the order of the rows.
func (res *Result) precisions() []string {
	var out []string
	for _, r := range res.Rows {
		if (r.Method == MethodPTQ || r.Method == MethodQAT) && (len(out) == 0 || out[len(out)-1] != r.Precision) {
			out = append(out, r.Precision)
		}
	}
	return out
}

// quantized is the ptq row of a precision, or else the qat row: they have the same formats.
func (res *Result) quantized(precision string) *Row {
	if r := res.row(precision, MethodPTQ); r != nil {
		return r
	}
	return res.row(precision, MethodQAT)
}

// judgeMemory says what the weights and the file take.
func (res *Result) judgeMemory() []string {
	base := res.baseline()
	var list []string
	for _, p := range res.precisions() {
		r := res.quantized(p)
		list = append(list, fmt.Sprintf("%s saves %.1f %% (file %.1f %%)", p, saved(base.WeightBytes, r.WeightBytes), saved(base.FileBytes, r.FileBytes)))
	}
	if len(list) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("Memory: fp32 weights take %s (file %s); %s.", byteSize(base.WeightBytes), byteSize(base.FileBytes), strings.Join(list, ", "))}
}

// saved is by how many percent b is smaller than a.
func saved(a, b int) float64 { return 100 * (1 - float64(b)/float64(a)) }

// judgePTQ says at which precisions calibration alone loses accuracy.
func (res *Result) judgePTQ() []string {
	base := res.baseline()
	groups := map[string][]string{}
	for _, p := range res.precisions() {
		r := res.row(p, MethodPTQ)
		if r == nil {
			continue
		}
		f, d := judged(differences(r.Values, base.Values))
		lead := ptqLeads[f]
		if f == worse && d.Mean > -smallPoints {
			lead = "PTQ costs a small but real part of the accuracy at"
		}
		groups[lead] = append(groups[lead], fmt.Sprintf("%s (%s)", p, withInterval(d)))
	}
	var out []string
	for _, p := range res.precisions() { // in the order of the precisions, each group once
		for _, lead := range slices.Sorted(maps.Keys(groups)) {
			if strings.HasPrefix(groups[lead][0], p+" (") {
				out = append(out, fmt.Sprintf("%s %s.", lead, strings.Join(groups[lead], ", ")))
			}
		}
	}
	return out
}

// ptqLeads open the sentences about PTQ against fp32.
var ptqLeads = map[finding]string{
	unknown:     "PTQ against fp32 with one seed, so without error bar:",
	better:      "PTQ keeps the accuracy (it came out above fp32, which is no gain to rely on) at",
	worse:       "PTQ hurts at",
	leansBetter: "PTQ keeps the accuracy, or more, at",
	leansWorse:  "PTQ hurts in every seed, though too few seeds are run to prove it, at",
	close:       "PTQ keeps the accuracy of fp32 within its error bars at",
	open:        "PTQ against fp32 is not settled by these seeds at",
}

// judgeExtra says what the same extra training gives without quantizers.
func (res *Result) judgeExtra() []string {
	plus := res.row("fp32", MethodExtra)
	if plus == nil {
		return nil
	}
	f, d := judged(differences(plus.Values, res.baseline().Values))
	how := map[finding]string{
		unknown:     "one seed, no error bar",
		better:      "a real gain, so QAT must be measured against fp32+ and not against fp32",
		worse:       "a real loss: the extra epochs themselves do harm here",
		leansBetter: "a likely gain, so QAT must be measured against fp32+ and not against fp32",
		leansWorse:  "a likely loss: the extra epochs themselves seem to do harm here",
		close:       "no real difference",
		open:        "not settled by these seeds",
	}[f]
	return []string{fmt.Sprintf("Training fp32 for the extra epochs of QAT without quantizers (fp32+) changes it by %s: %s.", withInterval(d), how)}
}

// judgeQAT says at each precision whether training for it was worth it, and then overall.
func (res *Result) judgeQAT() []string {
	var out []string
	var pays, enough, longer []string // longer: the gain is that of training longer
	asked, verb := 0, "pays"
	for _, p := range res.precisions() {
		q, base := res.row(p, MethodQAT), res.row(p, MethodPTQ)
		if q == nil || base == nil {
			continue
		}
		asked++
		f, d := judged(differences(q.Values, base.Values))
		what := map[finding]string{
			unknown:     "one seed, so nobody can tell it from chance",
			better:      "worth it",
			worse:       "it does harm; use PTQ, or another learning rate",
			leansBetter: "looks worth it: every seed gains, but too few seeds are run to prove it",
			leansWorse:  "looks harmful: every seed loses, but too few seeds are run to prove it",
			close:       "not worth it",
			open:        "not settled: the seeds differ too much; run more of them",
		}[f]
		gain, alone := res.extraGain(q, base)
		switch {
		case (f == better || f == leansBetter) && alone:
			what = fmt.Sprintf("the extra training pays, not the quantizers: fp32 gains %s from it too", points(gain))
			longer = append(longer, p)
		case f == better && d.Mean < smallPoints:
			what = "real, but hardly worth it"
			enough = append(enough, p)
		case f == better || f == leansBetter:
			pays = append(pays, p)
			if f == leansBetter {
				verb = "seems to pay"
			}
		case f != unknown && f != open:
			enough = append(enough, p)
		}
		out = append(out, fmt.Sprintf("QAT at %s: %s. %s against PTQ%s, for %s more training.", p, what, withInterval(d), res.control(q), seconds(q.TrainSeconds)))
	}
	switch {
	case len(enough)+len(longer) == 0:
	case len(enough)+len(longer) == asked:
		out = append(out, "Overall, QAT is not worth it here: use PTQ at the precision whose loss you can accept.")
	case len(pays) > 0:
		overall := fmt.Sprintf("Overall, QAT %s at %s", verb, strings.Join(pays, ", "))
		if len(enough) > 0 {
			overall += fmt.Sprintf("; at %s PTQ is enough", strings.Join(enough, ", "))
		}
		if len(longer) > 0 {
			overall += fmt.Sprintf("; at %s train fp32 longer, then PTQ should do", strings.Join(longer, ", "))
		}
		out = append(out, overall+".")
	}
	return out
}

// judgeVariants compares each variant with the config itself, seed by seed.
func (res *Result) judgeVariants() []string {
	var out []string
	for i := range res.Rows {
		r := &res.Rows[i]
		base := res.row(r.Precision, r.Method)
		if r.Variant == "" || base == nil {
			continue
		}
		f, d := judged(differences(r.Values, base.Values))
		what := map[finding]string{
			unknown:     "one seed, so nobody can tell it from chance",
			better:      "better",
			worse:       "worse",
			leansBetter: "better in every seed, though too few are run to prove it",
			leansWorse:  "worse in every seed, though too few are run to prove it",
			close:       "no real difference",
			open:        "not settled by these seeds",
		}[f]
		out = append(out, fmt.Sprintf("Variant %s at %s, against the config's own %s: %s. %s.", r.Variant, r.Precision, r.Method, what, withInterval(d)))
	}
	return out
}

// extraGain is what the extra training of QAT gives fp32, and whether it accounts for what QAT gains over PTQ: for most
// of it, and for all but less than smallPoints.
func (res *Result) extraGain(q, ptq *Row) (gain float64, alone bool) {
	plus, base := res.row("fp32", MethodExtra), res.baseline()
	if plus == nil || base == nil {
		return 0, false
	}
	gain = summarize(differences(plus.Values, base.Values)).Mean
	own := summarize(differences(q.Values, ptq.Values)).Mean - gain
	return gain, own < smallPoints && own < gain
}

// control compares a qat row with fp32+, which had the same training without quantizers.
func (res *Result) control(q *Row) string {
	plus := res.row("fp32", MethodExtra)
	if plus == nil {
		return ""
	}
	return ", " + withInterval(summarize(differences(q.Values, plus.Values))) + " against fp32+"
}

// judgeSpeed compares engines on this machine.
func (res *Result) judgeSpeed() []string {
	base := res.baseline()
	var out []string
	for _, p := range res.precisions() {
		r := res.quantized(p)
		if r.ActBits == 16 {
			what := "values rounded to 16 bits"
			if r.WeightBits < 16 {
				what = "integer weights and activations rounded to 16 bits"
			}
			out = append(out, fmt.Sprintf("%s is %s and computed in float32: %s (%s against %s).",
				p, what, compareSpeed(base.LatencyMicros/r.LatencyMicros, "fp32 for one example"), micros(r.LatencyMicros), micros(base.LatencyMicros)))
		}
	}
	int8 := res.quantized("int8")
	if int8 == nil {
		return out
	}
	out = append(out, fmt.Sprintf("Speed of int8 on this CPU (%s, %s): %s (%s against %s), %s (%s against %s examples/s).",
		res.Tier, count(res.Workers, "worker"),
		compareSpeed(base.LatencyMicros/int8.LatencyMicros, "fp32 for one example"), micros(int8.LatencyMicros), micros(base.LatencyMicros),
		compareSpeed(int8.Throughput/base.Throughput, fmt.Sprintf("fp32 in batches of %d", speedBatch)), thousands(int8.Throughput), thousands(base.Throughput)))
	var same []string
	for _, p := range res.precisions() {
		if r := res.quantized(p); r.ActBits <= 8 && r.WeightBits < 8 && int8.LatencyMicros <= sameSpeed*r.LatencyMicros {
			same = append(same, p)
		}
	}
	if len(same) > 0 {
		out = append(out, fmt.Sprintf("No faster than int8: %s. Fewer bits make the file smaller, not this engine faster.", strings.Join(same, ", ")))
	}
	return out
}

func within(ratio, factor float64) bool { return ratio <= factor && ratio >= 1/factor }

func compareSpeed(ratio float64, than string) string {
	switch {
	case within(ratio, sameSpeed):
		return fmt.Sprintf("as fast as %s", than)
	case ratio > 1:
		return fmt.Sprintf("%.1f times as fast as %s", ratio, than)
	default:
		return fmt.Sprintf("%.1f times slower than %s", 1/ratio, than)
	}
}

// notes says what the names in the table mean where that is easily misread.
func (res *Result) notes() []string {
	var out []string
	var two, four, marked []string
	for _, p := range res.precisions() {
		r := res.quantized(p)
		if r.WeightBits == 2 && r.EvenLevels {
			four = append(four, p)
		} else if r.WeightBits == 2 {
			two = append(two, p)
		}
		if r.Rules {
			marked = append(marked, p)
		}
	}
	if len(two) > 0 {
		out = append(out, fmt.Sprintf("%s: 2-bit weights are ternary here, {-1, 0, 1} times a scale.", strings.Join(two, ", ")))
	}
	if len(four) > 0 {
		out = append(out, fmt.Sprintf("%s: 2-bit weights have even levels here, {-3, -1, 1, 3} times half a step.", strings.Join(four, ", ")))
	}
	if len(marked) > 0 {
		out = append(out, fmt.Sprintf("%s: rules of the config give some layers other formats than the name says.", strings.Join(marked, ", ")))
	}
	if len(res.Seeds) == 1 {
		out = append(out, "One seed has no error bar: run at least 3 before relying on a difference.")
	}
	return out
}
