package main

import (
	"strings"
	"testing"
)

func TestExplainSchedule(t *testing.T) {
	set := []string{
		"qat.delay=0.1", "qat.lower=[{at: 0.1, precision: int8}, {at: 0.5, precision: w2a4}]", "qat.distill={weight: 0.25}", "qat.ema=0.99",
		"qat.bn_reestimate=20", "qat.oscillation={damping: 2, freeze_above: 0.02}",
	}
	args := []string{"explain", "digits-cnn"}
	for _, s := range set {
		args = append(args, "--set", s)
	}
	var e explanation
	goodJSON(t, &e, append(args, "-p", "w2a4")...)
	want := `starts at fp32
after 10 % of the steps: calibration, then int8
after 50 % of the steps: w2a4, activations with the same ranges
after 50 % of the steps: batch norm keeps its statistics
loss: 0.75 of the labels, 0.25 of the float32 model's answers at temperature 4
oscillating weights are counted
damping loss, its weight growing to 2
weights that turn back in more than 2 % of the steps freeze
ships the average of the masters and scales, decay 0.99
at the end: batch norm's statistics anew, over 20 training batches`
	if got := strings.Join(e.Schedule, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if out := good(t, append(args, "-p", "w2a4")...); !strings.Contains(out, "\nqat: starts at fp32\n") {
		t.Errorf("%s", out)
	}
	if _, text, code := narrow(t, append(args, "-p", "w4a4")...); code == exitGood || !strings.Contains(text, "qat.lower ends at w2a4") {
		t.Errorf("exit code %d, %s", code, text)
	}
	var full explanation
	goodJSON(t, &full, append(args, "-p", "fp32")...)
	if len(full.Schedule) != 0 {
		t.Errorf("the schedule of float training is %q", full.Schedule)
	}
}
