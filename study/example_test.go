package study_test

import (
	"context"
	"fmt"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/study"
)

// A short comparison on some of the embedded digits: one seed, one precision.
func ExampleCompare() {
	c, err := configs.Preset("digits-mlp", "dataset.limit=500", "train.epochs=2", "qat.epochs=1", "compare.seeds=1", "compare.precisions=[int8]")
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	d, err := datasets.Load(ctx, c.Dataset.Name, datasets.Options{ValFraction: c.Dataset.ValFraction, Limit: c.Dataset.Limit, Seed: c.Seed})
	if err != nil {
		fmt.Println(err)
		return
	}
	r, err := study.Compare(ctx, study.Options{Config: c, Data: d})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, row := range r.Rows {
		fmt.Printf("%s %-5s %6d bytes of weights, measured: %v\n", row.Precision, row.Method, row.WeightBytes, row.Mean > 0 && row.LatencyMicros > 0)
	}
	fmt.Println(r.Verdict[len(r.Verdict)-1])
	// Output:
	// fp32 none   68096 bytes of weights, measured: true
	// fp32 fp32+  68096 bytes of weights, measured: true
	// int8 ptq    17832 bytes of weights, measured: true
	// int8 qat    17832 bytes of weights, measured: true
	// One seed has no error bar: run at least 3 before relying on a difference.
}
