package datasets_test

import (
	"bytes"
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/datasets"
)

func TestSubset(t *testing.T) {
	s := numbered(300)
	got, err := s.Subset([]int32{299, 0, 0, 7})
	if err != nil {
		t.Fatal(err)
	}
	if want := []uint8{43, 1, 0, 0, 0, 0, 7, 0}; !bytes.Equal(got.X, want) || !slices.Equal(got.Labels, []int32{9, 0, 0, 7}) {
		t.Errorf("codes %v, labels %v", got.X, got.Labels)
	}
	got.X[0], got.Shape[0] = 99, 99
	if s.Row(299)[0] != 43 || s.Shape[0] != 1 {
		t.Error("a subset shares memory with its set")
	}
	for _, rows := range [][]int32{{300}, {-1}, {0, math.MaxInt32}} {
		if _, err := s.Subset(rows); err == nil || !strings.Contains(err.Error(), "the set has rows 0 to 299") {
			t.Errorf("rows %v: error %v", rows, err)
		}
	}
}

func TestDatasetValidate(t *testing.T) {
	good := func() *datasets.Dataset {
		return &datasets.Dataset{Name: "toy", Classes: make([]string, 10), MaxCode: 9, Train: numbered(10), Test: numbered(5)}
	}
	tests := []struct {
		name  string
		spoil func(*datasets.Dataset)
		want  string
	}{
		{"good", func(*datasets.Dataset) {}, ""},
		{"validation split", func(d *datasets.Dataset) { d.Val = numbered(3) }, ""},
		{"no test", func(d *datasets.Dataset) { d.Test = nil }, "toy: test: set: there is none"},
		{"label high", func(d *datasets.Dataset) { d.Test.Labels[4] = 10 }, "toy: test: example 4: label 10, want 0 to 9"},
		{"label low", func(d *datasets.Dataset) { d.Train.Labels[0] = -1 }, "toy: train: example 0: label -1"},
		{"code high", func(d *datasets.Dataset) { d.Val = numbered(11) }, "toy: val: example 10: code 10 at element 0, want 0 to 9"},
		{"code missing", func(d *datasets.Dataset) { d.Train.X = d.Train.X[1:] }, "10 labels need 2 codes each (shape [1 2 1]), X has 19 codes"},
		{"label missing", func(d *datasets.Dataset) { d.Train.Labels = d.Train.Labels[1:] }, "9 labels need 2 codes each"},
	}
	for _, tt := range tests {
		d := good()
		tt.spoil(d)
		err := d.Validate()
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestSplit(t *testing.T) {
	s := numbered(1000)
	number := func(s *datasets.Set) (out []int) {
		for i := range s.Len() {
			out = append(out, int(s.Row(i)[0])|int(s.Row(i)[1])<<8)
		}
		return out
	}
	rest, val, err := datasets.Split(s, 0.1, 7)
	if err != nil {
		t.Fatal(err)
	}
	r, v := number(rest), number(val)
	if len(v) != 100 || len(r) != 900 {
		t.Fatalf("%d for validation, %d for training", len(v), len(r))
	}
	if !slices.IsSorted(r) || !slices.IsSorted(v) {
		t.Error("the parts do not keep the order")
	}
	all := slices.Concat(r, v)
	slices.Sort(all)
	for i, row := range all {
		if row != i {
			t.Fatalf("row %d is missing or twice", i)
		}
	}
	if err := rest.Validate(); err != nil {
		t.Error(err)
	}
	if _, again, _ := datasets.Split(s, 0.1, 7); !slices.Equal(number(again), v) {
		t.Error("the same seed gives another split")
	}
	if _, other, _ := datasets.Split(s, 0.1, 8); slices.Equal(number(other), v) {
		t.Error("another seed gives the same split")
	}
	// Not simply the first or last rows: the mean row of 100 out of 1000 has standard deviation about 27.
	sum := 0
	for _, row := range v {
		sum += row
	}
	if mean := float64(sum) / 100; math.Abs(mean-499.5) > 5*27 {
		t.Errorf("the mean validation row is %v", mean)
	}
	if whole, none, err := datasets.Split(s, 0, 7); err != nil || none != nil || whole != s {
		t.Errorf("fraction 0: %v, %v, %v", whole, none, err)
	}
	for _, f := range []float64{-0.1, 1, 2, math.NaN(), math.Inf(1), 1e-9, 0.9999} {
		if _, _, err := datasets.Split(s, f, 7); err == nil || !strings.Contains(err.Error(), "validation fraction") {
			t.Errorf("fraction %v: error %v", f, err)
		}
	}
}

func TestDigits(t *testing.T) {
	ctx := context.Background()
	d, err := datasets.Load(ctx, "digits", datasets.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Validate(); err != nil {
		t.Error(err)
	}
	if d.Scale != 1.0/16 || d.Zero != 0 || d.MaxCode != 16 || len(d.Classes) != 10 || d.Val != nil {
		t.Errorf("scale %v, zero %d, codes to %d, %d classes, validation %v", d.Scale, d.Zero, d.MaxCode, len(d.Classes), d.Val)
	}
	// Examples per class as UCI's optdigits.names gives them.
	for _, c := range []struct {
		set  *datasets.Set
		want []int
	}{
		{d.Train, []int{376, 389, 380, 389, 387, 376, 377, 387, 380, 382}},
		{d.Test, []int{178, 182, 177, 183, 181, 182, 181, 179, 174, 180}},
	} {
		got := make([]int, 10)
		for _, l := range c.set.Labels {
			got[l]++
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("examples per class %v, want %v", got, c.want)
		}
	}
	cut, err := datasets.Load(ctx, "digits", datasets.Options{Limit: 100, ValFraction: 0.25, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	if cut.Train.Len() != 75 || cut.Val.Len() != 25 || cut.Test.Len() != 100 {
		t.Errorf("limit 100: %d, %d, %d", cut.Train.Len(), cut.Val.Len(), cut.Test.Len())
	}
	if !bytes.Equal(cut.Test.X, d.Test.X[:6400]) {
		t.Error("the limited test split is not the first 100 examples")
	}
	for name, opt := range map[string]datasets.Options{"limit -1": {Limit: -1}, "validation fraction 2": {ValFraction: 2}} {
		if _, err := datasets.Load(ctx, "digits", opt); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
