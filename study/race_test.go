package study_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/study"
)

func TestRace(t *testing.T) {
	m := model.New("race", model.Input{Name: "x", Shape: model.Shape{4}, Scale: 1})
	m.Append(model.Node{Name: "fc", Layer: "fc", Op: model.Dense, Attr: model.Attr{Units: 2}})
	m, err := model.Shapes(m)
	if err != nil {
		t.Fatal(err)
	}
	e, err := infer.Compile(m, infer.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	laps, err := study.Race(t.Context(), []*infer.Engine{e, e}, make([]uint8, 64*4), 4, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range laps {
		if len(l) != study.RaceRounds || slices.Min(l) <= 0 {
			t.Errorf("engine %d: %v, want a positive time in each of %d rounds", i, l, study.RaceRounds)
		}
	}
	if _, err := study.Race(t.Context(), []*infer.Engine{e}, make([]uint8, 4), 1, time.Millisecond); err != nil {
		t.Errorf("one example is enough: %v", err)
	}
	done, stop := context.WithCancel(t.Context())
	stop()
	if _, err := study.Race(done, []*infer.Engine{e}, make([]uint8, 4), 1, time.Hour); !errors.Is(err, done.Err()) {
		t.Errorf("%v, want the end of the context", err)
	}
}
