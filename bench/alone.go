package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
)

// alone measures Narrow beside itself and prints a table.
func alone(ctx context.Context, o options, stdout, stderr io.Writer) error {
	chosen, err := chooseNets(o.nets, o.configs)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "narrow-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d, host, err := newNarrowDriver(o, stderr)
	if err != nil {
		return err
	}
	measure, title := d.memory, memoryTitle
	if o.scaling {
		measure, title = d.scaling, scalingTitle
	}
	table := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, title)
	for _, n := range chosen {
		p, _, err := prepareTraining(ctx, n, dir, o)
		if err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
		for _, precision := range []string{precFloat, precInt8} {
			d.log("%s %s", n.Name, precision)
			cells, err := measure(ctx, p, precision)
			if err != nil {
				return fmt.Errorf("%s %s: %w", n.Name, precision, err)
			}
			fmt.Fprintln(table, strings.Join(append([]string{n.Name, precision}, cells...), "\t"))
		}
	}
	host.LoadAfter = load()
	return errors.Join(table.Flush(), printLines(stdout, host.lines()))
}

func printLines(w io.Writer, lines []string) error {
	_, err := fmt.Fprintln(w, "\n"+strings.Join(lines, "\n"))
	return err
}

const scalingTitle = "net\tprecision\tone thread, img/s\ttwo threads\ttwo runs at once\ttwo threads / one\ttwo threads / two runs\tCPU time per image, two / one\tbytes"

// scaling trains a net on one thread, on two, and twice at once on one thread each, which is all that two cores give. The
// three take turns.
func (d *driver) scaling(ctx context.Context, p *prepared, precision string) ([]string, error) {
	cores := d.cores
	if len(cores) >= 2 {
		cores = cores[len(cores)-2:]
	}
	at := func(i ...int) string {
		if len(cores) < 2 {
			return "" // not pinned
		}
		var list []string
		for _, i := range i {
			list = append(list, strconv.Itoa(cores[i]))
		}
		return strings.Join(list, ",")
	}
	var workers []*process
	defer func() {
		for _, w := range workers {
			w.stop()
		}
	}()
	masters, bytes := "", "same"
	begin := func(threads int, cores string) (*process, error) {
		c := d.narrow("narrow", precision, threads)
		text, err := d.spec(group{net: p, task: taskTrain, threads: threads, batches: []int{d.trainBatch}}, c).encode()
		if err != nil {
			return nil, err
		}
		w, ready, err := start(ctx, cores, append(c.argv, text), c.env)
		if err != nil {
			return nil, err
		}
		workers = append(workers, w)
		if masters == "" {
			masters = ready.Masters
		}
		if ready.Masters != masters {
			bytes = "DIFFERENT"
		}
		return w, nil
	}
	type contestant []*process // which run at once
	var all [3]contestant
	for i, starts := range [][]struct {
		threads int
		cores   string
	}{{{1, at(1)}}, {{2, at(0, 1)}}, {{1, at(0)}, {1, at(1)}}} {
		for _, s := range starts {
			w, err := begin(s.threads, s.cores)
			if err != nil {
				return nil, err
			}
			all[i] = append(all[i], w)
		}
	}
	var wall, cpu [3][]float64
	for round := range d.rounds {
		for _, i := range turn(round, len(all)) {
			samples, err := atOnce(ctx, all[i], d)
			if err != nil {
				return nil, err
			}
			w, c := 0.0, 0.0
			for _, s := range samples {
				w += float64(s.Count) / s.Wall
				c += s.CPU / float64(s.Count) / float64(len(samples))
			}
			wall[i], cpu[i] = append(wall[i], w), append(cpu[i], c)
		}
	}
	var cells []string
	for _, v := range wall {
		cells = append(cells, fmt.Sprintf("%.0f", spread(v).Median))
	}
	for _, r := range [][]float64{ratios(wall[1], wall[0]), ratios(wall[1], wall[2]), ratios(cpu[1], cpu[0])} {
		s := spread(r)
		cells = append(cells, fmt.Sprintf("%.2f (%.2f-%.2f)", s.Median, s.Min, s.Max))
	}
	return append(cells, bytes), nil
}

// atOnce asks some workers for a sample at the same time.
func atOnce(ctx context.Context, workers []*process, d *driver) ([]Sample, error) {
	out, errs := make([]Sample, len(workers)), make([]error, len(workers))
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() { out[i], errs[i] = w.run(ctx, d.trainBatch, d.seconds) })
	}
	wg.Wait()
	return out, errors.Join(errs...)
}
