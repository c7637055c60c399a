package datasets_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/datasets"
)

func TestDescribe(t *testing.T) {
	loaded, err := datasets.Load(t.Context(), "digits", datasets.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := datasets.Describe("digits")
	if err != nil {
		t.Fatal(err)
	}
	if d.Name != loaded.Name || !slices.Equal(d.Classes, loaded.Classes) || d.Scale != loaded.Scale || d.Zero != loaded.Zero ||
		d.MaxCode != loaded.MaxCode || !slices.Equal(d.Train.Shape, loaded.Train.Shape) || d.Train.Len()+d.Test.Len() != 0 {
		t.Errorf("described as %+v, loaded as %+v", d, loaded)
	}
	for _, name := range datasets.Names() {
		if _, err := datasets.Describe(name); err != nil {
			t.Error(err)
		}
	}
	var unknown *datasets.UnknownError
	if _, err := datasets.Describe("digit"); !errors.As(err, &unknown) {
		t.Errorf("an unknown name: %v", err)
	}
}
