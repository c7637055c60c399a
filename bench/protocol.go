package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What is measured.
const (
	taskTrain = "train"
	taskInfer = "infer"

	precFloat = "fp32"
	precInt8  = "int8"
)

// Spec is what a worker is to run.
type Spec struct {
	Net       string  `json:"net"`
	Task      string  `json:"task"`      // train or infer
	Precision string  `json:"precision"` // fp32 or int8
	Threads   int     `json:"threads"`
	Batches   []int   `json:"batches"`
	Config    string  `json:"config"`            // preset or file that describes the net for Narrow
	Data      Data    `json:"data"`              // examples
	Model     string  `json:"model,omitempty"`   // file of the net, for inference by Narrow and ONNX Runtime
	Library   string  `json:"library,omitempty"` // libonnxruntime
	Exact     bool    `json:"exact,omitempty"`   // ONNX Runtime: no products that saturate
	LR        float64 `json:"lr"`                // of Adam
}

// Data says where the prepared examples are and what their bytes mean.
type Data struct {
	Name    string  `json:"name"`
	Codes   string  `json:"codes"`  // file of N*H*W*C bytes
	Labels  string  `json:"labels"` // file of N bytes
	N       int     `json:"n"`
	Shape   [3]int  `json:"shape"` // H, W, C
	Classes int     `json:"classes"`
	Scale   float32 `json:"scale"` // value = scale * (code - zero)
	Zero    int32   `json:"zero"`
}

// Elems is the number of bytes of one example.
func (d Data) Elems() int { return d.Shape[0] * d.Shape[1] * d.Shape[2] }

// Ready is what a loaded worker says about itself.
type Ready struct {
	Version string `json:"version"`           // of the framework
	Detail  string `json:"detail"`            // kernels, layout, variant: what a reader needs to judge the number
	Classes []int  `json:"classes,omitempty"` // of the first examples, of workers that run the prepared weights
	Masters string `json:"masters,omitempty"` // digest of what Narrow's first steps have trained
	Memory  Memory `json:"memory,omitzero"`   // of workers that measure it
}

// Missing says why a contestant cannot run, and how to install it.
type Missing struct {
	Reason  string `json:"reason"`
	Install string `json:"install,omitempty"`
}

func (m *Missing) Error() string { return m.Reason }

// Sample is one answer to run.
type Sample struct {
	Count     int     `json:"count"` // examples
	Wall      float64 `json:"wall_seconds"`
	CPU       float64 `json:"cpu_seconds"`
	P50Micros float64 `json:"p50_us"`
}

func (s Sample) line() string {
	return fmt.Sprintf("done %d %.9f %.9f %.4f", s.Count, s.Wall, s.CPU, s.P50Micros)
}

// parseSample reads what line writes.
func parseSample(line string) (Sample, error) {
	var s Sample
	fields := strings.Fields(line)
	if len(fields) != 5 || fields[0] != "done" {
		return s, fmt.Errorf("worker said %q, want done COUNT WALL CPU P50", line)
	}
	var errs [4]error
	s.Count, errs[0] = strconv.Atoi(fields[1])
	s.Wall, errs[1] = strconv.ParseFloat(fields[2], 64)
	s.CPU, errs[2] = strconv.ParseFloat(fields[3], 64)
	s.P50Micros, errs[3] = strconv.ParseFloat(fields[4], 64)
	if err := errors.Join(errs[:]...); err != nil {
		return s, fmt.Errorf("worker said %q: %w", line, err)
	}
	// CPU time may be 0 where the clock is coarse, never the others. !(x > 0) refuses NaN as well.
	if s.Count < 1 || !(s.Wall > 0) || !(s.CPU >= 0) || !(s.P50Micros > 0) {
		return s, fmt.Errorf("worker said %q: counts and times must be positive", line)
	}
	return s, nil
}

// runner does the work of a worker: about so many seconds of it.
type runner interface {
	Run(batch int, d time.Duration) (Sample, error)
}

// serve is the worker's side of the protocol.
func serve(in io.Reader, out io.Writer, load func() (runner, Ready, error)) error {
	work, ready, err := load()
	if err != nil {
		var missing *Missing
		if errors.As(err, &missing) {
			return say(out, "missing", missing)
		}
		return failed(out, err)
	}
	if err := say(out, "ready", ready); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		batch, d, err := parseRun(lines.Text())
		if err != nil {
			return failed(out, err)
		}
		s, err := work.Run(batch, d)
		if err != nil {
			return failed(out, err)
		}
		if _, err := fmt.Fprintln(out, s.line()); err != nil {
			return err
		}
	}
	return lines.Err()
}

func say(out io.Writer, word string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s %s\n", word, text)
	return err
}

// failed reports err to the driver and returns it.
func failed(out io.Writer, err error) error {
	_, werr := fmt.Fprintf(out, "failed %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
	return errors.Join(err, werr)
}

func parseRun(line string) (batch int, d time.Duration, err error) {
	fields := strings.Fields(line)
	if len(fields) != 3 || fields[0] != "run" {
		return 0, 0, fmt.Errorf("the driver said %q, want run BATCH SECONDS", line)
	}
	batch, err = strconv.Atoi(fields[1])
	if err != nil || batch < 1 {
		return 0, 0, fmt.Errorf("the driver said %q: the batch must be a whole number of at least 1", line)
	}
	seconds, err := strconv.ParseFloat(fields[2], 64)
	if err != nil || !(seconds > 0) || seconds > 3600 {
		return 0, 0, fmt.Errorf("the driver said %q: seconds must be above 0 and at most 3600", line)
	}
	return batch, time.Duration(seconds * float64(time.Second)), nil
}

// A turn begins with warmCalls calls, and at least 1/warmShare of its time, that do not count.
const (
	warmCalls = 3
	warmShare = 20
)

// parseReady reads a worker's first line.
func parseReady(line string) (Ready, error) {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "ready":
		var r Ready
		if err := json.Unmarshal([]byte(rest), &r); err != nil {
			return r, fmt.Errorf("worker said %q: %w", line, err)
		}
		return r, nil
	case "missing":
		var m Missing
		if err := json.Unmarshal([]byte(rest), &m); err != nil {
			return Ready{}, fmt.Errorf("worker said %q: %w", line, err)
		}
		return Ready{}, &m
	case "failed":
		return Ready{}, errors.New(rest)
	}
	return Ready{}, fmt.Errorf("worker said %q, want ready, missing or failed", line)
}

// calls runs call until about d has passed and says how long the calls took. Each call works on batch examples. Before that
// come a few calls that do not count: another process had the caches.
func calls(batch int, d time.Duration, call func() error) (Sample, error) {
	for i, end := 0, time.Now().Add(d/warmShare); i < warmCalls || time.Now().Before(end); i++ {
		if err := call(); err != nil {
			return Sample{}, err
		}
	}
	var each []float64
	cpu, err := cpuTime()
	if err != nil {
		return Sample{}, err
	}
	began := time.Now()
	for before := began; ; {
		if err := call(); err != nil {
			return Sample{}, err
		}
		now := time.Now()
		each = append(each, now.Sub(before).Seconds())
		before = now
		if now.Sub(began) >= d {
			break
		}
	}
	wall := time.Since(began)
	after, err := cpuTime()
	if err != nil {
		return Sample{}, err
	}
	slices.Sort(each)
	return Sample{Count: batch * len(each), Wall: wall.Seconds(), CPU: (after - cpu).Seconds(), P50Micros: 1e6 * middle(each)}, nil
}
