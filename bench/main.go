package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are the settings of the command line.
type options struct {
	nets, tasks []string
	configs     []string
	threads     []int
	cores       []int
	rounds      int
	seconds     time.Duration
	trainBatch  int
	batches     []int
	python      string
	ortPython   string
	ortPath     string
	data        string
	json        string
	markdown    bool
	quiet       bool
	scaling     bool
	memory      bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 4 && os.Args[1] == "worker" {
		if serveWorker(ctx, os.Args[2], os.Args[3]) != nil { // the driver has been told
			os.Exit(1)
		}
		return
	}
	if code := run(ctx, os.Args[1:], os.Stdout, os.Stderr); code != 0 {
		stop()
		os.Exit(code)
	}
}

// run is the driver. Exit codes are those of narrow: 0 good, 1 failed, 2 wrong usage, 130 interrupted.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseFlags(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 2
	}
	err = writable(o.json) // not after an hour of measuring
	if err == nil && (o.scaling || o.memory) {
		err = alone(ctx, o, stdout, stderr)
	} else if err == nil {
		var report *Report
		if report, err = bench(ctx, o, stderr); err == nil {
			err = write(report, o, stdout)
		}
	}
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "bench: interrupted")
		return 130
	}
	fmt.Fprintf(stderr, "bench: %v\n", err)
	return 1
}

// writable reports whether a file can be written; what is in it stays. "" is no file.
func writable(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return fmt.Errorf("--json: %w", err)
	}
	return f.Close()
}

func parseFlags(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	nets := f.String("nets", "mlp,cnn,mbnet,resnet8", "`list` of nets")
	tasks := f.String("tasks", "train,infer", "`list` of train, infer")
	threads := f.String("threads", "1,2", "`list` of numbers of threads")
	batches := f.String("batches", "1,64", "`list` of batch sizes of inference; 1 is measured as latency")
	seconds := f.Float64("seconds", 2, "`seconds` of each contestant's turn")
	cores := f.String("cores", "", "`list` of cores to pin workers to, the last are used (default all)")
	f.IntVar(&o.trainBatch, "train-batch", 64, "batch `size` of training")
	f.IntVar(&o.rounds, "rounds", 7, "`number` of turns of each contestant")
	f.StringVar(&o.python, "python", "/usr/bin/python3", "`interpreter` with PyTorch")
	f.StringVar(&o.ortPython, "ort-python", "/usr/bin/python3", "`interpreter` with onnxruntime's quantization tool")
	f.StringVar(&o.ortPath, "ort", "", "libonnxruntime, or a folder with node_modules/onnxruntime-node (`path`; default $NARROW_ORT, then here)")
	f.StringVar(&o.data, "data", "", "`folder` with one folder per data set (default $NARROW_DATA, then the usual places)")
	f.StringVar(&o.json, "json", "", "write everything to this `file`, too")
	f.BoolVar(&o.markdown, "markdown", false, "print a Markdown table instead of aligned text")
	f.BoolVar(&o.scaling, "scaling", false, "Narrow alone: training on two threads beside one thread, and beside two runs at once")
	f.BoolVar(&o.memory, "memory", false, "Narrow alone: memory of training")
	f.BoolVar(&o.quiet, "quiet", false, "no progress")
	f.Func("config", "`NET=FILE`: a config for a net instead of its preset; may be repeated", func(s string) error {
		o.configs = append(o.configs, s)
		return nil
	})
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.nets, o.tasks, o.seconds = words(*nets), words(*tasks), time.Duration(*seconds*float64(time.Second))
	var errs [3]error
	o.threads, errs[0] = counts("--threads", *threads, 1)
	o.batches, errs[1] = counts("--batches", *batches, 1)
	o.cores, errs[2] = counts("--cores", *cores, 0)
	if *cores == "" {
		for i := range runtime.NumCPU() {
			o.cores = append(o.cores, i)
		}
	}
	return o, errors.Join(errors.Join(errs[:]...), o.check(f))
}

func (o *options) check(f *flag.FlagSet) error {
	for _, t := range o.tasks {
		if t != taskTrain && t != taskInfer {
			return fmt.Errorf("--tasks: unknown task %q (allowed: train, infer)", t)
		}
	}
	switch {
	case f.NArg() > 0:
		return fmt.Errorf("unexpected argument %q; bench -h lists the flags", f.Arg(0))
	case len(o.nets) == 0 || len(o.tasks) == 0 || len(o.threads) == 0 || len(o.batches) == 0:
		return errors.New("--nets, --tasks, --threads and --batches must not be empty")
	case o.rounds < 1 || !(o.seconds > 0) || o.seconds > time.Hour || o.trainBatch < 1:
		return errors.New("--rounds and --train-batch must be at least 1, --seconds above 0 and at most 3600")
	}
	switch {
	case o.scaling && o.memory:
		return errors.New("--scaling and --memory are two runs")
	case (o.scaling || o.memory) && (o.json != "" || o.markdown):
		return errors.New("--scaling and --memory print a table only: leave out --json and --markdown")
	case o.scaling && len(o.cores) < 2:
		return errors.New("--scaling needs two cores")
	}
	if most := slices.Max(o.threads); most > len(o.cores) {
		return fmt.Errorf("--threads %d on %d cores: the contestants would share them", most, len(o.cores))
	}
	return nil
}

// words reads a flag of comma-separated words.
func words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// counts reads a flag of comma-separated whole numbers.
func counts(name, list string, least int) ([]int, error) {
	var out []int
	for _, w := range words(list) {
		n, err := strconv.Atoi(w)
		if err != nil || n < least {
			return nil, fmt.Errorf("%s: %q is not a whole number of at least %d", name, w, least)
		}
		out = append(out, n)
	}
	return out, nil
}

func decodeSpec(text string) (Spec, error) {
	var s Spec
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return s, fmt.Errorf("spec: %w", err)
	}
	if len(s.Batches) == 0 || s.Threads < 1 || s.Data.Elems() < 1 || s.Data.Classes < 1 {
		return s, fmt.Errorf("spec of %q: batches, threads, shape and classes are needed", s.Net)
	}
	return s, nil
}

// bench measures everything that was asked for.
func bench(ctx context.Context, o options, stderr io.Writer) (*Report, error) {
	chosen, err := chooseNets(o.nets, o.configs)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "narrow-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	d, report, err := newDriver(ctx, o, dir, stderr)
	if err != nil {
		return nil, err
	}
	for _, n := range chosen {
		d.log("%s: preparing", n.Name)
		p, err := prepare(ctx, n, dir, o)
		var missing *Missing
		if errors.As(err, &missing) {
			d.log("%s: %s", n.Name, missing.Reason)
			report.Rows = append(report.Rows, Row{Net: n.Name, Contestant: nameNarrow, Missing: missing})
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n.Name, err)
		}
		report.Notes = append(report.Notes, p.notes...)
		for _, task := range o.tasks {
			for _, threads := range o.threads {
				g := group{net: p, task: task, threads: threads, batches: o.batches}
				if task == taskTrain {
					g.batches = []int{o.trainBatch}
				}
				rows, err := d.measure(ctx, g)
				if err != nil {
					return nil, err
				}
				report.Rows = append(report.Rows, rows...)
			}
		}
	}
	report.Host.LoadAfter = load()
	return report, nil
}

// newNarrowDriver knows no peers.
func newNarrowDriver(o options, stderr io.Writer) (*driver, Host, error) {
	d, host := &driver{options: o}, describeHost()
	d.log = func(format string, args ...any) {
		if !o.quiet {
			fmt.Fprintf(stderr, format+"\n", args...)
		}
	}
	host.Rounds, host.Seconds = o.rounds, o.seconds.Seconds()
	host.Pinned = "pinned with taskset"
	if _, err := exec.LookPath("taskset"); err != nil {
		d.cores, host.Pinned = nil, "NOT pinned to cores (there is no taskset; install: apt-get install util-linux)"
	}
	var err error
	d.self, err = os.Executable()
	return d, host, err
}

// newDriver finds the peers.
func newDriver(ctx context.Context, o options, dir string, stderr io.Writer) (*driver, *Report, error) {
	d, host, err := newNarrowDriver(o, stderr)
	if err != nil {
		return nil, nil, err
	}
	d.torch, d.ort = filepath.Join(dir, "torch_worker.py"), findORT(o.ortPath)
	report := &Report{Host: host}
	if _, dropped := tuning(os.Environ()); len(dropped) > 0 {
		report.Notes = append(report.Notes, "variables of the caller kept from all workers: "+strings.Join(dropped, " "))
	}
	if err := os.WriteFile(d.torch, []byte(torchScript), 0o600); err != nil {
		return nil, nil, err
	}
	d.log("choosing OPENBLAS_CORETYPE for PyTorch")
	found, err := probeBLAS(ctx, o.python, d.torch)
	if err != nil && !errors.As(err, &d.noPy) {
		return nil, nil, err
	}
	if len(found) > 0 {
		report.Host.Blas, d.blas = found, &found[0]
	}
	return d, report, nil
}

// write writes the report to stdout and to the --json file.
func write(r *Report, o options, stdout io.Writer) error {
	if o.json != "" {
		f, err := os.Create(o.json)
		if err != nil {
			return err
		}
		if err := errors.Join(r.WriteJSON(f), f.Close()); err != nil {
			return err
		}
	}
	if o.markdown {
		return r.WriteMarkdown(stdout)
	}
	return r.WriteTable(stdout)
}
