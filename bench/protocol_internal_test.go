package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// counter is a runner of known results.
type counter struct {
	batches []int
	fail    error
}

func (c *counter) Run(batch int, d time.Duration) (Sample, error) {
	c.batches = append(c.batches, batch)
	return Sample{Count: 10 * batch, Wall: d.Seconds(), CPU: d.Seconds() / 2, P50Micros: 12.5}, c.fail
}

// TestMain lets the test binary be a worker, so that the driver's side is tested on a real process.
func TestMain(m *testing.M) {
	switch os.Getenv("BENCH_TEST_WORKER") {
	case "":
		os.Exit(m.Run())
	case "good":
		_ = serve(os.Stdin, os.Stdout, func() (runner, Ready, error) { return &counter{}, Ready{Version: "1"}, nil })
	case "failing":
		_ = serve(os.Stdin, os.Stdout, func() (runner, Ready, error) { return &counter{fail: errors.New("out of\nbolts")}, Ready{}, nil })
	case "missing":
		_ = serve(os.Stdin, os.Stdout, func() (runner, Ready, error) {
			return nil, Ready{}, fmt.Errorf("loading: %w", &Missing{Reason: "no library", Install: "make it"})
		})
	case "broken":
		_ = serve(os.Stdin, os.Stdout, func() (runner, Ready, error) { return nil, Ready{}, errors.New("no such net") })
	case "dying":
		fmt.Fprintln(os.Stderr, "Illegal instruction")
	case "garbled":
		fmt.Println("ready {}")
		fmt.Println("done many 1 1 1")
		time.Sleep(time.Minute)
	}
}

func startTest(t *testing.T, kind string) (*process, Ready, error) {
	t.Helper()
	p, ready, err := start(t.Context(), "", []string{os.Args[0]}, []string{"BENCH_TEST_WORKER=" + kind})
	if p != nil {
		t.Cleanup(p.stop)
	}
	return p, ready, err
}

func TestWorkerAnswers(t *testing.T) {
	p, ready, err := startTest(t, "good")
	if err != nil {
		t.Fatal(err)
	}
	if ready.Version != "1" {
		t.Errorf("version %q, want 1", ready.Version)
	}
	for _, batch := range []int{1, 64} {
		s, err := p.run(t.Context(), batch, 250*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if want := (Sample{Count: 10 * batch, Wall: 0.25, CPU: 0.125, P50Micros: 12.5}); s != want {
			t.Errorf("batch %d: %+v, want %+v", batch, s, want)
		}
	}
}

func TestWorkerThatCannotStart(t *testing.T) {
	_, _, err := startTest(t, "missing")
	var missing *Missing
	if !errors.As(err, &missing) || missing.Reason != "no library" || missing.Install != "make it" {
		t.Errorf("missing: %v, want the reason and how to install", err)
	}
	if _, _, err = startTest(t, "broken"); err == nil || errors.As(err, &missing) || !strings.Contains(err.Error(), "no such net") {
		t.Errorf("broken: %v, want the worker's message and not a missing peer", err)
	}
	if _, _, err = startTest(t, "dying"); err == nil || !strings.Contains(err.Error(), "Illegal instruction") {
		t.Errorf("dying: %v, want what it wrote to stderr", err)
	}
}

func TestWorkerThatFails(t *testing.T) {
	for kind, want := range map[string]string{"failing": "out of; bolts", "garbled": "done many"} {
		p, _, err := startTest(t, kind)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.run(t.Context(), 1, time.Millisecond); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", kind, err, want)
		}
	}
}

func TestRunEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p, _, err := start(ctx, "", []string{os.Args[0]}, []string{"BENCH_TEST_WORKER=garbled"})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	began := time.Now()
	p.stop()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("stopping a worker that does not listen took %s", took)
	}
}

func TestParseSample(t *testing.T) {
	s := Sample{Count: 640, Wall: 1.25, CPU: 1.125, P50Micros: 97.5}
	if got, err := parseSample(s.line()); err != nil || got != s {
		t.Errorf("%+v, %v; want %+v back", got, err, s)
	}
	for _, line := range []string{"", "done", "done 1 1 1", "done 1 1 1 1 1", "ran 1 1 1 1", "done x 1 1 1", "done 1 NaN 1 1", "done 1 1 -1 1", "done 0 1 1 1", "done 1 0 1 1", "done 1 1 1 0"} {
		if _, err := parseSample(line); err == nil {
			t.Errorf("%q was accepted", line)
		}
	}
}

func TestParseRun(t *testing.T) {
	batch, d, err := parseRun("run 64 0.5")
	if batch != 64 || d != 500*time.Millisecond || err != nil {
		t.Errorf("%d, %s, %v", batch, d, err)
	}
	for _, line := range []string{"", "run", "run 1", "run 0 1", "run 1 0", "run 1 NaN", "run 1 1e9", "walk 1 1", "run 1.5 1"} {
		if _, _, err := parseRun(line); err == nil {
			t.Errorf("%q was accepted", line)
		}
	}
}

func TestCalls(t *testing.T) {
	n := 0
	s, err := calls(4, 20*time.Millisecond, func() error {
		n++
		time.Sleep(time.Millisecond)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if counted := s.Count / 4; s.Count%4 != 0 || counted < 1 || counted > n-warmCalls {
		t.Errorf("%d examples from %d calls of 4, %d of them to warm up", s.Count, n, warmCalls)
	}
	if s.Wall < 0.02 || s.P50Micros < 1000 {
		t.Errorf("%.4f s and a median of %.0f us for calls of 1 ms in 20 ms", s.Wall, s.P50Micros)
	}
	if s.CPU > s.Wall {
		t.Errorf("%.4f s of CPU in %.4f s of sleep", s.CPU, s.Wall)
	}
	want := errors.New("stop")
	if _, err := calls(1, time.Millisecond, func() error { return want }); !errors.Is(err, want) {
		t.Errorf("%v, want the call's error", err)
	}
}
