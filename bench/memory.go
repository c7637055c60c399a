package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/narrow-ml/narrow/model"
)

// Memory is what training took.
type Memory struct {
	LoadedMiB float64 `json:"loaded_mib"` // resident with the data loaded, before anything else
	PeakMiB   float64 `json:"peak_mib"`   // the most resident from there on
	StepBytes float64 `json:"step_bytes"` // allocated by a step on average
}

const memoryTitle = "net\tprecision\tloaded, MiB\tpeak above that, MiB\tallocated per step, kB"

// memory lets a worker train on one thread and say what that took.
func (d *driver) memory(ctx context.Context, p *prepared, precision string) ([]string, error) {
	c := d.narrow("memory", precision, 1)
	text, err := d.spec(group{net: p, task: taskTrain, threads: 1, batches: []int{d.trainBatch}}, c).encode()
	if err != nil {
		return nil, err
	}
	w, ready, err := start(ctx, "", append(c.argv, text), c.env)
	if err != nil {
		return nil, err
	}
	w.stop()
	m := ready.Memory
	return []string{fmt.Sprintf("%.1f", m.LoadedMiB), fmt.Sprintf("%.1f", m.PeakMiB-m.LoadedMiB), fmt.Sprintf("%.1f", m.StepBytes/1000)}, nil
}

// Steps of a training whose memory is measured: enough that the collector has run many times.
const (
	memorySteps     = 400
	memoryFewSteps  = 50
	memoryManySteps = memoryFewSteps + memorySteps
)

// loadMemory trains with all that belongs to it (model, calibration, graph, optimizer) and measures. It has nothing to run.
func loadMemory(ctx context.Context, s Spec) (runner, Ready, error) {
	d, err := s.Data.load()
	if err != nil {
		return nil, Ready{}, err
	}
	var m Memory
	debug.FreeOSMemory()
	if m.LoadedMiB, err = statusMiB("VmRSS"); err != nil {
		return nil, Ready{}, err
	}
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // the peak begins here
		return nil, Ready{}, err
	}
	t, ready, err := newNarrowTrain(ctx, s, d)
	if err != nil {
		return nil, Ready{}, err
	}
	var allocated [2]uint64
	for i, steps := range []int{memoryFewSteps, memoryManySteps} { // the difference has no building of graphs in it
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := t.steps(steps); err != nil {
			return nil, Ready{}, err
		}
		runtime.ReadMemStats(&after)
		allocated[i] = after.TotalAlloc - before.TotalAlloc
	}
	m.StepBytes = (float64(allocated[1]) - float64(allocated[0])) / memorySteps
	if m.PeakMiB, err = statusMiB("VmHWM"); err != nil {
		return nil, Ready{}, err
	}
	ready.Memory = m
	return nil, ready, nil
}

// statusMiB is a size of /proc/self/status.
func statusMiB(name string) (float64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			fields := strings.Fields(rest)
			if len(fields) == 2 && fields[1] == "kB" {
				kb, err := strconv.Atoi(fields[0])
				return float64(kb) / 1024, err
			}
		}
	}
	return 0, errors.New("/proc/self/status has no " + name)
}

// mastersDigest is a hash of all parameters of a model.
func mastersDigest(m *model.Model) string {
	h := sha256.New()
	var word [4]byte
	for _, name := range slices.Sorted(maps.Keys(m.Params)) {
		h.Write([]byte(name))
		for _, v := range m.Params[name].Data {
			binary.LittleEndian.PutUint32(word[:], math.Float32bits(v))
			h.Write(word[:])
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}
