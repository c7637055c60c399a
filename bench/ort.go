//go:build cgo

package main

import (
	"fmt"
	"runtime"
	"time"

	ort "github.com/yalue/onnxruntime_go"
)

// ortInfer runs an ONNX file in ONNX Runtime through its C API, with tensors bound once, so that no binding of another
// language counts.
type ortInfer struct {
	spec    Spec
	values  []float32 // examples, NCHW
	options *ort.SessionOptions
	input   string
	output  string
	bound   map[int]*ortBound // by batch
	next    int
}

// ortBound is a session with the tensors of one batch size.
type ortBound struct {
	session *ort.AdvancedSession
	in, out *ort.Tensor[float32]
}

func loadORT(s Spec) (runner, Ready, error) {
	if s.Library == "" {
		return nil, Ready{}, &Missing{Reason: "libonnxruntime was not found", Install: ortInstall}
	}
	ort.SetSharedLibraryPath(s.Library)
	if err := ort.InitializeEnvironment(); err != nil {
		return nil, Ready{}, &Missing{Reason: fmt.Sprintf("%s: %v", s.Library, err), Install: ortInstall}
	}
	options, err := ort.NewSessionOptions()
	if err != nil {
		return nil, Ready{}, err
	}
	for _, set := range []error{
		options.SetIntraOpNumThreads(s.Threads), options.SetInterOpNumThreads(1),
		options.SetExecutionMode(ort.ExecutionModeSequential), options.SetGraphOptimizationLevel(ort.GraphOptimizationLevelEnableAll),
	} {
		if set != nil {
			return nil, Ready{}, set
		}
	}
	if s.Exact {
		if err := options.AddSessionConfigEntry("session.x64quantprecision", "1"); err != nil {
			return nil, Ready{}, err
		}
	}
	inputs, outputs, err := ort.GetInputOutputInfo(s.Model)
	if err != nil {
		return nil, Ready{}, fmt.Errorf("%s: %w", s.Model, err)
	}
	if len(inputs) != 1 || len(outputs) != 1 {
		return nil, Ready{}, fmt.Errorf("%s has %d inputs and %d outputs, want 1 of each", s.Model, len(inputs), len(outputs))
	}
	x, err := firstExamples(s)
	if err != nil {
		return nil, Ready{}, err
	}
	r := &ortInfer{spec: s, values: s.Data.channelsFirst(x), options: options, input: inputs[0].Name, output: outputs[0].Name, bound: map[int]*ortBound{}}
	all, err := r.bind(len(x) / s.Data.Elems())
	if err != nil {
		return nil, Ready{}, fmt.Errorf("%s: %w", s.Model, err)
	}
	if err := all.session.Run(); err != nil {
		return nil, Ready{}, fmt.Errorf("%s: %w", s.Model, err)
	}
	return r, Ready{Version: ort.GetVersion(), Detail: "C API, all graph optimizations; " + runtime.Version() + " only calls it",
		Classes: classes(all.out.GetData(), s.Data.Classes)}, nil
}

// bind makes the session of a batch size.
func (r *ortInfer) bind(batch int) (*ortBound, error) {
	if b := r.bound[batch]; b != nil {
		return b, nil
	}
	d := r.spec.Data
	if batch*d.Elems() > len(r.values) {
		return nil, fmt.Errorf("batch %d is more than the %d examples of the worker", batch, len(r.values)/d.Elems())
	}
	data := append([]float32(nil), r.values[:batch*d.Elems()]...)
	in, err := ort.NewTensor(ort.NewShape(int64(batch), int64(d.Shape[2]), int64(d.Shape[0]), int64(d.Shape[1])), data)
	if err != nil {
		return nil, err
	}
	out, err := ort.NewEmptyTensor[float32](ort.NewShape(int64(batch), int64(d.Classes)))
	if err != nil {
		return nil, err
	}
	session, err := ort.NewAdvancedSession(r.spec.Model, []string{r.input}, []string{r.output}, []ort.Value{in}, []ort.Value{out}, r.options)
	if err != nil {
		return nil, err
	}
	b := &ortBound{session: session, in: in, out: out}
	r.bound[batch] = b
	return b, nil
}

func (r *ortInfer) Run(batch int, d time.Duration) (Sample, error) {
	b, err := r.bind(batch)
	if err != nil {
		return Sample{}, err
	}
	size := r.spec.Data.Elems() * batch
	turns := len(r.values) / size
	return calls(batch, d, func() error {
		if turns > 1 { // some 50 ns for an image of 28 by 28
			copy(b.in.GetData(), r.values[r.next%turns*size:][:size])
			r.next++
		}
		return b.session.Run()
	})
}
