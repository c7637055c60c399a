package train

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/narrow-ml/narrow/export/safetensors"
	"github.com/narrow-ml/narrow/internal/durable"
	"github.com/narrow-ml/narrow/model"
)

// position is where a phase stands, with what the running epoch has gathered. It is the JSON in a checkpoint's metadata.
type position struct {
	Digest  string  `json:"digest"` // of everything that decides the course of the phase
	Step    int     `json:"step"`   // steps done
	Total   int     `json:"total"`
	Loss    float64 `json:"loss"`    // sum over the examples of this epoch
	Correct int     `json:"correct"` // of this epoch
	Seen    int     `json:"seen"`    // of this epoch
	Metrics int64   `json:"metrics"` // length of metrics.jsonl
	Stage   int     `json:"stage"`   // of the phase's stages
	Ranges  string  `json:"ranges"`  // the method of a calibration inside the phase

	Last       metric  `json:"last"`                  // of the last finished epoch
	Best       float64 `json:"best"`                  // validation accuracy
	BestAt     int     `json:"best_at"`               // epoch of Best
	Waited     int     `json:"waited"`                // epochs since Best
	Stopped    bool    `json:"stopped"`               // early stop
	BestTest   float64 `json:"best_test,omitzero"`    // test accuracy, for the report
	BestTestAt int     `json:"best_test_at,omitzero"` // epoch of BestTest
	HasBest    bool    `json:"has_best"`              // the checkpoint holds the best masters
}

func (p position) done() bool { return p.Step >= p.Total || p.Stopped }

const (
	positionKey    = "narrow.position"
	bestPrefix     = "best/"
	observerPrefix = "observer/"
)

// digest identifies a phase: two runs with the same digest take the same steps.
func digest(j Job, total int) string {
	h := sha256.New()
	enc := json.NewEncoder(h)
	rows := 0
	if j.Data.Train != nil {
		rows = j.Data.Train.Len()
	}
	for _, v := range []any{j.Phase, j.Seed, total, j.Data.Name, rows, j.Model.Name, j.Model.Stage, j.Model.Inputs, j.Model.Precision} {
		if err := enc.Encode(v); err != nil {
			fmt.Fprint(h, err) // not reached: all are plain data
		}
	}
	for _, stage := range j.Stages {
		fmt.Fprintln(h, stage.At, stage.Precision)
	}
	for i := range j.Model.Nodes {
		n := j.Model.Nodes[i]
		n.Origin = ""
		if err := enc.Encode(n); err != nil {
			fmt.Fprint(h, err)
		}
	}
	for _, name := range j.Model.QuantNames() {
		fmt.Fprintln(h, name, j.Model.Quant[name].Spec)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// checkpoint is a phase's file.
type checkpoint struct {
	path string // "" = none is kept
}

func newCheckpoint(dir, phase string) checkpoint {
	if dir == "" {
		return checkpoint{}
	}
	return checkpoint{filepath.Join(dir, "checkpoint", phase+".safetensors")}
}

// save replaces the file.
func (c checkpoint) save(p position, tensors []safetensors.Tensor) error {
	if c.path == "" {
		return nil
	}
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(c.path), 0o777); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return durable.WriteFile(c.path, func(w io.Writer) error {
		return safetensors.Write(w, tensors, map[string]string{positionKey: string(text)})
	})
}

// load reads the file's position and tensors; ok is false if there is no file.
func (c checkpoint) load(wantDigest string) (p position, tensors []safetensors.Tensor, ok bool, err error) {
	if c.path == "" {
		return p, nil, false, nil
	}
	data, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil, false, nil
	}
	if err != nil {
		return p, nil, false, fmt.Errorf("checkpoint: %w", err)
	}
	tensors, metadata, err := safetensors.Read(data)
	if err != nil {
		return p, nil, false, fmt.Errorf("checkpoint %s: %w; remove it to start this phase again", c.path, err)
	}
	if err := json.Unmarshal([]byte(metadata[positionKey]), &p); err != nil {
		return p, nil, false, fmt.Errorf("checkpoint %s: its position cannot be read (%w); remove it to start this phase again", c.path, err)
	}
	if p.Digest != wantDigest {
		return p, nil, false, fmt.Errorf("checkpoint %s was made with another config, seed, precision or data set; use another --out, or drop --resume and remove the folder", c.path)
	}
	return p, tensors, true, nil
}

// tensors are all that a phase needs to go on.
func (f *fit) tensors() []safetensors.Tensor {
	tensors := append(masters(f.model), f.opt.tensors()...)
	state := f.net.State()
	for _, name := range slices.Sorted(maps.Keys(state)) {
		tensors = append(tensors, safetensors.Float32(observerPrefix+name, []int{len(state[name])}, state[name]))
	}
	tensors = append(tensors, f.average.tensors()...)
	tensors = append(tensors, f.oscillating.tensors()...)
	for _, t := range f.best {
		t.Name = bestPrefix + t.Name
		tensors = append(tensors, t)
	}
	return tensors
}

// apply puts a loaded checkpoint, whose masters are in the model, into optimizer, graph and what follows the training.
func (f *fit) apply(tensors []safetensors.Tensor) error {
	byName := map[string]safetensors.Tensor{}
	for _, t := range tensors {
		byName[t.Name] = t
	}
	f.best = masterTensors(tensors, true)
	if err := f.opt.restore(byName); err != nil {
		return err
	}
	state := f.net.State()
	for name, values := range state {
		t, ok := byName[observerPrefix+name]
		if !ok || len(t.Shape) != 1 {
			return fmt.Errorf("state of observer %q is missing", name)
		}
		if len(values) != t.Shape[0] {
			values = make([]float32, t.Shape[0])
			state[name] = values
		}
		if err := t.Float32s(values); err != nil {
			return err
		}
	}
	if err := f.net.Restore(state); err != nil {
		return err
	}
	f.opt.steps = f.pos.Step - f.begins(f.pos.Stage)
	if err := f.average.restore(byName, f.opt.steps); err != nil {
		return err
	}
	return f.oscillating.restore(byName)
}

// readFloatPhase fills m with the masters that a finished phase left in its checkpoint: the best ones with early stop.
func readFloatPhase(data []byte, m *model.Model) error {
	tensors, metadata, err := safetensors.Read(data)
	if err != nil {
		return err
	}
	var p position
	if err := json.Unmarshal([]byte(metadata[positionKey]), &p); err != nil {
		return fmt.Errorf("its position cannot be read: %w", err)
	}
	if !p.done() {
		return fmt.Errorf("the phase is not finished (step %d of %d)", p.Step, p.Total)
	}
	return setMasters(m, masterTensors(tensors, p.HasBest))
}

// masterTensors picks the masters out of a checkpoint: those of the best epoch, or the last ones.
func masterTensors(tensors []safetensors.Tensor, best bool) []safetensors.Tensor {
	if !best {
		return tensors
	}
	var out []safetensors.Tensor
	for _, t := range tensors {
		if name, ok := strings.CutPrefix(t.Name, bestPrefix); ok {
			t.Name = name
			out = append(out, t)
		}
	}
	return out
}
