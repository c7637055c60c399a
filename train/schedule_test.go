package train_test

import (
	"math"
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
	"github.com/narrow-ml/narrow/train"
)

// TestScheduleMatchesTorch runs the PyTorch schedules that Schedule offers; the other kinds of the file are not offered.
func TestScheduleMatchesTorch(t *testing.T) {
	notOffered := map[string]bool{"MultiStepLR": true, "ExponentialLR": true, "LinearLR": true, "OneCycleLR": true}
	passed := 0
	cases := qtest.Cases(t, "lr_schedule")
	for _, c := range cases {
		kind := c.Str("kind")
		if notOffered[kind] {
			continue
		}
		s := train.Schedule{Base: c.Float("lr", 0)}
		switch kind {
		case "StepLR":
			s.Kind, s.Every, s.Gamma = "step", c.Int("step_size", 0), c.Float("gamma", 0)
		case "CosineAnnealingLR":
			s.Kind, s.Total, s.Min = "cosine", c.Int("T_max", 0), c.Float("eta_min", 0)
		default:
			t.Fatalf("%s: unknown schedule %s", c.Name, kind)
		}
		for step, want := range c.Outputs["lr"].Data {
			got, err := s.At(step)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(got-want) > 1e-5*want+1e-7 {
				t.Errorf("%s %s: step %d is %g, want %g", c.Name, kind, step, got, want)
			}
		}
		passed++
	}
	t.Logf("%d of %d schedules", passed, len(cases))
	if passed != 8 {
		t.Errorf("%d cases ran, want 8", passed)
	}
}

func TestScheduleWarmup(t *testing.T) {
	s := train.Schedule{Kind: "constant", Base: 1, Warmup: 4}
	for step, want := range []float64{0.25, 0.5, 0.75, 1, 1, 1} {
		if got, err := s.At(step); err != nil || got != want {
			t.Errorf("step %d: %v, %v; want %v", step, got, err, want)
		}
	}
}

func TestScheduleCosineIsAccurate(t *testing.T) {
	s := train.Schedule{Kind: "cosine", Base: 2, Min: 0, Total: 1000}
	for step := range 3000 {
		got, err := s.At(step)
		if want := 1 + math.Cos(math.Pi*float64(step)/1000); err != nil || math.Abs(got-want) > 1e-14 {
			t.Fatalf("step %d: %v, want %v (%v)", step, got, want, err)
		}
	}
}

func TestScheduleRefuses(t *testing.T) {
	for _, s := range []train.Schedule{{Kind: "linear"}, {Kind: "step"}, {}} {
		if _, err := s.At(0); err == nil {
			t.Errorf("%+v was accepted", s)
		}
	}
}
