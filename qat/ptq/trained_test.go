package ptq_test

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat/ptq"
	"github.com/narrow-ml/narrow/train"
)

// digitsNet is a preset on the digits, trained in float32 for a few epochs.
type digitsNet struct {
	model *model.Model
	data  *datasets.Dataset
}

// nets holds each preset's net once for all tests; they do not change it.
var nets sync.Map

func trained(t testing.TB, preset string) digitsNet {
	t.Helper()
	made, _ := nets.LoadOrStore(preset, sync.OnceValues(func() (digitsNet, error) { return train4(t, preset) }))
	n, err := made.(func() (digitsNet, error))()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func train4(t testing.TB, preset string) (n digitsNet, err error) {
	c, err := configs.Preset(preset, "train.epochs=4")
	if err != nil {
		return n, err
	}
	if n.data, err = datasets.Load(t.Context(), c.Dataset.Name, datasets.Options{ValFraction: 0.2, Seed: c.Seed}); err != nil {
		return n, err
	}
	if n.model, err = train.NewModel(c, n.data, c.Seed); err != nil {
		return n, err
	}
	pool := par.New(2)
	defer pool.Close()
	_, err = train.Fit(t.Context(), train.Job{Model: n.model, Data: n.data, Phase: train.FloatPhase(c), Seed: c.Seed, Pool: pool})
	return n, err
}

// options are quick settings for the nets of this file.
func options() ptq.Options {
	return ptq.Options{Method: ptq.MSE, Examples: 512, Seed: 3, Workers: 2, Iterations: 1000}
}

// meanError is the mean square of the difference of two models' logits.
func meanError(t testing.TB, a, b *model.Model, set *datasets.Set) float64 {
	t.Helper()
	x, y := run(t, a, set), run(t, b, set)
	sum := 0.0
	for i := range x {
		d := float64(x[i]) - float64(y[i])
		sum += d * d
	}
	return sum / float64(len(x))
}

func TestScratchTune(t *testing.T) {
	for _, preset := range []string{"digits-mlp", "digits-cnn"} {
		n := trained(t, preset)
		t.Logf("%s float %.2f %%", preset, agreement(t, n.model, n.data.Val))
		for _, p := range []string{"w4a8", "w3a8", "w2a8"} {
			var line strings.Builder
			for _, r := range []ptq.Rounding{ptq.Nearest, ptq.AdaRound, ptq.GPTQ} {
				o := options()
				o.Rounding = r
				res, err := ptq.Quantize(t.Context(), n.model, precision(t, p), n.data.Train, n.data.Val, o)
				if err != nil {
					t.Fatal(err)
				}
				line.WriteString(r.String())
				line.WriteString(" ")
				line.WriteString(trim(agreement(t, res.Model, n.data.Val)) + " err " + trim(meanError(t, n.model, res.Model, n.data.Val)) + "; ")
				for _, l := range res.Rounded {
					line.WriteString(l.Layer + " " + trim(l.Nearest) + "->" + trim(l.Error) + " kept " + trim(float64(l.Kept)) + "; ")
				}
			}
			t.Logf("%s %s: %s", preset, p, line.String())
		}
	}
}

func trim(v float64) string {
	s := strings.TrimRight(strings.TrimRight(strings.Split(strconvF(v), "e")[0], "0"), ".")
	return s
}

func strconvF(v float64) string {
	if math.IsNaN(v) {
		return "NaN"
	}
	return fmt.Sprintf("%.4f", v)
}
