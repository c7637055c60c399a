package ptq_test

import (
	"testing"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat/ptq"
	"github.com/narrow-ml/narrow/quant"
)

// TestPassesWeightOnly: learned rounding never makes a layer worse than nearest, per channel and per group, and bias
// correction finds a bias, with weights alone in integers.
func TestPassesWeightOnly(t *testing.T) {
	m := teacher(t)
	set := lesson(t, m, 300, 1)
	for _, per := range []quant.Granularity{quant.PerTensor, quant.PerChannel, quant.PerGroup} {
		q := precision(t, "w2a16")
		if q.Weight.Per = per; per == quant.PerGroup {
			q.Weight.Group = 32
		}
		for _, r := range []ptq.Rounding{ptq.Nearest, ptq.AdaRound, ptq.GPTQ} {
			result, err := ptq.Quantize(t.Context(), m, q, set, nil, ptq.Options{Method: ptq.MSE, Rounding: r, BiasCorrection: true, Iterations: 200, Workers: 2})
			if err != nil {
				t.Fatalf("per %s, %s: %v", per, r, err)
			}
			moved := 0
			for _, l := range result.Rounded {
				moved += l.Moved
				if l.Error > l.Nearest {
					t.Errorf("per %s, %s: %+v is worse than nearest", per, r, l)
				}
			}
			if len(result.Shifted) == 0 || r != ptq.Nearest && moved == 0 {
				t.Errorf("per %s, %s: %d codes moved, %d biases corrected", per, r, moved, len(result.Shifted))
			}
			frozen, err := model.Freeze(result.Model)
			if err != nil {
				t.Fatalf("per %s, %s: %v", per, r, err)
			}
			if err := model.Validate(frozen); err != nil || frozen.Params["c1.weight"].Codes == nil {
				t.Errorf("per %s, %s: %v", per, r, err)
			}
		}
	}
}
