package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// process is the driver's side of a worker.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	lines  chan string
	stderr tail
}

const (
	loadTimeout = 5 * time.Minute
	// A run may take as long again as asked for, and much longer on a loaded machine.
	runTimeout = 2 * time.Minute
)

// start starts a worker on some cores, as the list that taskset takes, and waits until it has loaded.
func start(ctx context.Context, cores string, argv, env []string) (*process, Ready, error) {
	p := &process{lines: make(chan string)}
	if cores != "" {
		argv = append([]string{"taskset", "-c", cores}, argv...)
	}
	p.cmd = exec.CommandContext(ctx, argv[0], argv[1:]...)
	p.cmd.Env = workerEnv(env...)
	p.cmd.Stderr = &p.stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, Ready{}, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, Ready{}, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, Ready{}, err
	}
	go p.read(out)
	line, err := p.line(ctx, loadTimeout)
	if err != nil {
		p.stop()
		return nil, Ready{}, err
	}
	ready, err := parseReady(line)
	if err != nil {
		p.stop()
		return nil, Ready{}, err
	}
	return p, ready, nil
}

func (p *process) read(out io.Reader) {
	defer close(p.lines)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20) // ready carries classes
	for lines.Scan() {
		p.lines <- lines.Text()
	}
}

// line is the worker's next line.
func (p *process) line(ctx context.Context, timeout time.Duration) (string, error) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case line, ok := <-p.lines:
		if !ok {
			p.stop() // what it wrote to stderr is whole once it has been waited for
			return "", fmt.Errorf("the worker ended: %s", p.stderr.String())
		}
		return line, nil
	case <-timer.C:
		return "", fmt.Errorf("the worker has said nothing for %s", timeout)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// run asks for a sample.
func (p *process) run(ctx context.Context, batch int, d time.Duration) (Sample, error) {
	if _, err := fmt.Fprintf(p.in, "run %d %g\n", batch, d.Seconds()); err != nil {
		p.stop()
		return Sample{}, fmt.Errorf("the worker ended: %w: %s", err, p.stderr.String())
	}
	line, err := p.line(ctx, 10*d+runTimeout)
	if err != nil {
		return Sample{}, err
	}
	if message, ok := strings.CutPrefix(line, "failed "); ok {
		return Sample{}, errors.New(message)
	}
	return parseSample(line)
}

// stop ends the worker and waits for it. It may be called again.
func (p *process) stop() {
	p.in.Close()
	grace := time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer grace.Stop()
	for range p.lines { // so that the reader ends
	}
	_ = p.cmd.Wait() // how a worker ends says nothing that it has not said before
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailSize = 2000

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if extra := len(t.text) - tailSize; extra > 0 {
		t.text = t.text[extra:]
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}
