package train

import (
	"context"
	"fmt"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/layers"
)

// reestimate makes batch norm's running statistics anew: the means of those of so many training batches, each batch counting
// by its examples, with weights, scales and ranges as they are. What ships then belongs to the weights that ship and not to
// those on the way there.
func (f *fit) reestimate(ctx context.Context) error {
	order := rng.New(f.Seed, rng.Shuffle, 1<<33+f.Phase.Order)
	seed := order.Uint64()
	left, seen := f.Phase.BNReestimate, 0
	for epoch := 0; left > 0; epoch++ {
		opts := datasets.BatchOptions{Size: f.Phase.Batch, Seed: seed, Epoch: epoch, Shuffle: true, Prefetch: prefetch}
		for b, err := range f.Data.Train.Batches(ctx, opts) {
			if err != nil {
				return err
			}
			seen += b.N
			f.net.SetPhase(layers.Phase{FreezeRanges: true, NoDropout: true, NormWeight: float64(b.N) / float64(seen)})
			if err := f.teach(b); err != nil {
				return err
			}
			if _, err := f.net.Run(b.X, b.Labels, b.N); err != nil {
				return fmt.Errorf("batch norm's statistics: %w", err)
			}
			if left--; left == 0 {
				break
			}
		}
	}
	return nil
}
