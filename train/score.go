package train

import (
	"context"
	"fmt"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/model"
)

// Score is how many examples of a split a model labels rightly.
type Score struct {
	Correct, N int
	Hits       []bool // by row of the split
}

// Accuracy is in percent.
func (s Score) Accuracy() float64 {
	if s.N == 0 {
		return 0
	}
	return 100 * float64(s.Correct) / float64(s.N)
}

// scoreBatch is how many examples are scored between two looks at the context.
const scoreBatch = 256

// ScoreEngine labels every example of a split with the engine; of equal logits the lowest class wins.
func ScoreEngine(ctx context.Context, e *infer.Engine, set *datasets.Set) (Score, error) {
	classes, size := e.Classes(), set.Elems()
	logits := make([]float32, scoreBatch*classes)
	return score(ctx, set, func(lo, hi int) ([]float32, error) {
		n := hi - lo
		err := e.Run(logits[:n*classes], set.X[lo*size:hi*size], n)
		return logits[:n*classes], err
	})
}

// ScoreModel compiles m, freezing it first if it is quantized, and scores it.
func ScoreModel(ctx context.Context, m *model.Model, set *datasets.Set, workers int) (Score, error) {
	e, err := infer.Compile(m, infer.Options{Workers: workers, MaxBatch: scoreBatch})
	if err != nil {
		return Score{}, err
	}
	return ScoreEngine(ctx, e, set)
}

func score(ctx context.Context, set *datasets.Set, run func(lo, hi int) ([]float32, error)) (Score, error) {
	s := Score{N: set.Len(), Hits: make([]bool, set.Len())}
	for lo := 0; lo < s.N; lo += scoreBatch {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		hi := min(lo+scoreBatch, s.N)
		logits, err := run(lo, hi)
		if err != nil {
			return s, fmt.Errorf("examples %d to %d: %w", lo, hi-1, err)
		}
		classes := len(logits) / (hi - lo)
		for i := lo; i < hi; i++ {
			row := logits[(i-lo)*classes : (i-lo+1)*classes]
			if infer.ArgMax(row) == int(set.Labels[i]) {
				s.Hits[i] = true
				s.Correct++
			}
		}
	}
	return s, nil
}
