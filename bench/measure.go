package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/cpu"
)

// The names of contestants in the tables.
const (
	nameNarrow  = "narrow"
	nameTorch   = "pytorch"
	nameORT     = "onnxruntime"
	nameORTOurs = "onnxruntime, our file"
)

// contestant is one program that can do a task at a precision.
type contestant struct {
	name      string
	precision string
	argv      []string // without the Spec
	env       []string
	model     string   // file, for inference
	missing   *Missing // why it cannot start
}

// group is a set of contestants that take turns: one net, one task, one number of threads.
type group struct {
	net     *prepared
	task    string
	threads int
	batches []int
}

// driver measures groups.
type driver struct {
	options
	self  string // this program
	torch string // torch_worker.py
	ort   string // libonnxruntime, "" if there is none
	blas  *blas
	noPy  *Missing // why PyTorch cannot run
	log   func(format string, args ...any)
}

// narrow is this program as a contestant.
func (d *driver) narrow(kind, precision string, threads int) contestant {
	return contestant{name: nameNarrow, precision: precision, argv: []string{d.self, "worker", kind}, env: []string{"GOMAXPROCS=" + strconv.Itoa(threads)}}
}

// contestants are all that can take part in a group, installed or not.
func (d *driver) contestants(g group) []contestant {
	threads := strconv.Itoa(g.threads)
	ours := func(name, precision, kind, file string) contestant {
		c := d.narrow(kind, precision, g.threads)
		c.name, c.model = name, file
		return c
	}
	torch := func(precision string) contestant {
		c := contestant{name: nameTorch, precision: precision, argv: []string{d.python, d.torch}, missing: d.noPy,
			env: []string{"OMP_NUM_THREADS=" + threads, "OPENBLAS_NUM_THREADS=" + threads}}
		if d.blas != nil && d.blas.Setting != "" {
			c.env = append(c.env, "OPENBLAS_CORETYPE="+d.blas.Setting)
		}
		return c
	}
	if g.task == taskTrain {
		return []contestant{
			ours(nameNarrow, precFloat, "narrow", ""), torch(precFloat),
			ours(nameNarrow, precInt8, "narrow", ""), torch(precInt8),
		}
	}
	own := ours(nameORT, precInt8, "ort", g.net.own)
	own.missing = g.net.ownErr
	return []contestant{
		ours(nameNarrow, precFloat, "narrow", g.net.frozen[precFloat]), torch(precFloat), ours(nameORT, precFloat, "ort", g.net.onnx[precFloat]),
		ours(nameNarrow, precInt8, "narrow", g.net.frozen[precInt8]), torch(precInt8), own, ours(nameORTOurs, precInt8, "ort", g.net.onnx[precInt8]),
	}
}

// entry is a contestant in a running group.
type entry struct {
	contestant
	proc    *process
	ready   Ready
	samples map[int][]Sample // by batch
}

// measure runs a group: all workers loaded, then rounds in which they take turns.
func (d *driver) measure(ctx context.Context, g group) ([]Row, error) {
	var entries []*entry
	defer func() {
		for _, e := range entries {
			if e.proc != nil {
				e.proc.stop()
			}
		}
	}()
	var running []*entry
	for _, c := range d.contestants(g) {
		e := &entry{contestant: c, samples: map[int][]Sample{}}
		entries = append(entries, e)
		if err := d.begin(ctx, g, e); err != nil {
			return nil, err
		}
		if e.missing != nil {
			d.log("%s %s %s: %s: %s", g.net.Name, g.task, e.precision, e.name, e.missing.Reason)
			continue
		}
		running = append(running, e)
	}
	for round := range d.rounds {
		for _, batch := range g.batches {
			for _, i := range turn(round, len(running)) {
				if err := rest(ctx, g.threads); err != nil {
					return nil, err
				}
				e := running[i]
				s, err := e.proc.run(ctx, batch, d.seconds)
				if err != nil {
					return nil, fmt.Errorf("%s %s %s, %s: %w", g.net.Name, g.task, e.precision, e.name, err)
				}
				e.samples[batch] = append(e.samples[batch], s)
			}
		}
	}
	return rows(g, entries), nil
}

// rest lets the threads of the last contestant go to sleep: those of OpenMP and ONNX Runtime spin for a while.
func rest(ctx context.Context, threads int) error {
	d := 20 * time.Millisecond
	if threads > 1 {
		d = 200 * time.Millisecond
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin starts the worker of an entry. What is not installed sets e.missing.
func (d *driver) begin(ctx context.Context, g group, e *entry) error {
	if e.missing != nil {
		return nil
	}
	text, err := d.spec(g, e.contestant).encode()
	if err != nil {
		return err
	}
	began := time.Now()
	e.proc, e.ready, err = start(ctx, d.coreList(g.threads), append(append([]string(nil), e.argv...), text), e.env)
	if errors.As(err, &e.missing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s %s %s, %s: %w", g.net.Name, g.task, e.precision, e.name, err)
	}
	d.log("%s %s %s on %d: %s ready in %.1f s", g.net.Name, g.task, e.precision, g.threads, e.name, time.Since(began).Seconds())
	return nil
}

// spec is what the worker of a contestant gets.
func (d *driver) spec(g group, c contestant) Spec {
	s := g.net.Spec
	s.Task, s.Precision, s.Threads, s.Batches, s.Model, s.Library = g.task, c.precision, g.threads, g.batches, c.model, d.ort
	s.Exact = c.name == nameORTOurs && saturates()
	return s
}

// saturates reports that ONNX Runtime's products of 8-bit codes are not exact on this CPU unless it is told so, which
// costs time: on x86 without VNNI.
func saturates() bool { return cpu.X86.HasAVX2 && !cpu.X86.HasAVX512VNNI && !cpu.X86.HasAVXVNNI }

// coreList are the cores of a number of threads: the last of the machine's, since the first serve most interrupts.
func (d *driver) coreList(threads int) string {
	if len(d.cores) < threads {
		return ""
	}
	out := ""
	for i, core := range d.cores[len(d.cores)-threads:] {
		if i > 0 {
			out += ","
		}
		out += strconv.Itoa(core)
	}
	return out
}

// serveWorker is this program as a worker.
func serveWorker(ctx context.Context, kind, spec string) error {
	s, err := decodeSpec(spec)
	return serve(os.Stdin, os.Stdout, func() (runner, Ready, error) {
		switch {
		case err != nil:
			return nil, Ready{}, err
		case kind == "ort":
			return loadORT(s)
		case kind == "memory":
			return loadMemory(ctx, s)
		case kind == "narrow" && s.Task == taskTrain:
			return loadNarrowTrain(ctx, s)
		case kind == "narrow" && s.Task == taskInfer:
			return loadNarrowInfer(s)
		}
		return nil, Ready{}, fmt.Errorf("no worker %q for task %q", kind, s.Task)
	})
}
