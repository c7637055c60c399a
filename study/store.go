package study

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/internal/cpu"
	"github.com/narrow-ml/narrow/internal/durable"
	"github.com/narrow-ml/narrow/model"
)

// The files of a cell's folder.
const (
	recordFile  = "cell.json"
	frozenFile  = "model.narrow"
	mastersFile = "model.safetensors"
)

// recordVersion is part of every key: raise it when a cell would come out differently under the same config.
const recordVersion = 2

// record is cell.json: what is known of a finished cell.
type record struct {
	Key         string  `json:"key"`
	Precision   string  `json:"precision"`
	Method      string  `json:"method"`
	Variant     string  `json:"variant,omitempty"` // under which it was made; another one may have the same settings
	Seed        uint64  `json:"seed"`
	Correct     int     `json:"correct"`
	Examples    int     `json:"examples"`
	Hits        []byte  `json:"hits"` // one bit for each test example, lowest bit first
	WeightBytes int     `json:"weight_bytes"`
	FileBytes   int     `json:"file_bytes"`
	FileSum     string  `json:"file_sha256"`
	Seconds     float64 `json:"train_seconds"`
	Ranges      string  `json:"ptq_method,omitempty"` // the calibration method it starts from
	Trials      []trial `json:"trials,omitempty"`     // how that was chosen
	Tier        string  `json:"instruction_tier"`
	GoVersion   string  `json:"go_version"`
}

// trial is a calibration method and its accuracy on the validation split.
type trial struct {
	Method   string  `json:"method"`
	Accuracy float64 `json:"val_accuracy"`
}

func (r *record) accuracy() float64 { return 100 * float64(r.Correct) / float64(r.Examples) }

// outcome is a finished cell.
type outcome struct {
	record
	frozen  *model.Model
	masters []byte // model.safetensors; fp32 cells only
}

// store keeps finished cells in a folder, or nothing at all if the folder is "".
type store struct {
	dir  string
	keys map[cell]string
}

func openStore(o Options, p *plan) (*store, error) {
	keys, err := cellKeys(o, p)
	if err != nil {
		return nil, err
	}
	s := &store{keys: keys}
	if o.Dir == "" {
		return s, nil
	}
	s.dir = filepath.Join(o.Dir, cellsDir)
	if err := os.MkdirAll(s.dir, 0o777); err != nil {
		return nil, err
	}
	if o.Resume {
		return s, nil
	}
	for _, c := range p.cells { // an earlier study with the same settings: run it again
		for _, dir := range []string{s.path(c), s.work(c)} {
			if err := os.RemoveAll(dir); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// cellKeys identifies the cells: two with one key give the same model and the same score.
func cellKeys(o Options, p *plan) (map[cell]string, error) {
	data, err := dataDigest(o.Data)
	if err != nil {
		return nil, err
	}
	texts := map[arm]string{}
	for _, a := range p.arms {
		if texts[a], err = settingsOf(p.configs[a.variant], a.method); err != nil {
			return nil, err
		}
	}
	keys := map[cell]string{}
	for _, c := range p.cells {
		h := sha256.New()
		fmt.Fprintf(h, "narrow cell %d\n%s\n%s\n", recordVersion, data, o.Config.Compare.Split)
		fmt.Fprintf(h, "%s\n%s\n%d\n%s\n%s", c.precision, c.method, c.seed, cpu.Active(), texts[c.arm])
		keys[c] = hex.EncodeToString(h.Sum(nil))
	}
	return keys, nil
}

// settingsOf is the part of a config that a cell depends on: not the compare section, which only says which cells there
// are, and of the sections quant and qat those that its method uses.
func settingsOf(c *configs.Config, method string) (string, error) {
	alone := *c
	alone.Compare = configs.Compare{}
	if method == MethodNone || method == MethodExtra {
		alone.Quant = nil
	}
	if method == MethodNone || method == MethodPTQ {
		alone.QAT = nil
	}
	text, err := alone.Marshal()
	return string(text), err
}

func dataDigest(d *datasets.Dataset) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %g %d %d\n", d.Name, d.Classes, d.Scale, d.Zero, d.MaxCode)
	for _, set := range []*datasets.Set{d.Train, d.Val, d.Test} {
		if err := hashSet(h, set); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func hashSet(h hash.Hash, s *datasets.Set) error {
	if s == nil {
		_, err := fmt.Fprintln(h, "none")
		return err
	}
	fmt.Fprintln(h, s.Shape, len(s.X), len(s.Labels))
	h.Write(s.X)
	return binary.Write(h, binary.LittleEndian, s.Labels)
}

func (s *store) key(c cell) string { return s.keys[c] }

// path is the cell's folder. The name is for people; the start of the key makes it unique.
func (s *store) path(c cell) string {
	method := strings.ReplaceAll(c.method, "+", "plus")
	return filepath.Join(s.dir, fmt.Sprintf("%s-%s-seed%d-%s", strings.ReplaceAll(c.precision.String(), "/", "-"), method, c.seed, s.key(c)[:16]))
}

// work is where an unfinished cell keeps its checkpoints; "" without a folder.
func (s *store) work(c cell) string {
	if s.dir == "" {
		return ""
	}
	return s.path(c) + ".work"
}

// load returns a finished cell; ok is false if there is none. What is there but damaged is an error that says so.
func (s *store) load(c cell) (out *outcome, ok bool, err error) {
	if s.dir == "" {
		return nil, false, nil
	}
	dir := s.path(c)
	text, err := os.ReadFile(filepath.Join(dir, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	damaged := func(err error) error { return fmt.Errorf("finished cell %s is damaged: %w", dir, err) }
	out = &outcome{}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&out.record); err != nil {
		return nil, false, damaged(err)
	}
	if out.Key != s.key(c) || out.Examples < 1 {
		return nil, false, damaged(errors.New("its key is not the one of its folder"))
	}
	file, err := os.ReadFile(filepath.Join(dir, frozenFile))
	if err != nil {
		return nil, false, damaged(err)
	}
	if sum := sha256.Sum256(file); hex.EncodeToString(sum[:]) != out.FileSum {
		return nil, false, damaged(fmt.Errorf("%s has another checksum than when it was written", frozenFile))
	}
	if out.frozen, err = model.Decode(file); err != nil {
		return nil, false, damaged(err)
	}
	if c.method == MethodNone {
		if out.masters, err = os.ReadFile(filepath.Join(dir, mastersFile)); err != nil {
			return nil, false, damaged(err)
		}
	}
	return out, true, nil
}

// save makes the folder of a finished cell, replacing a damaged one, and removes its checkpoints.
func (s *store) save(c cell, out *outcome, file []byte) error {
	if s.dir == "" {
		return nil
	}
	text, err := json.MarshalIndent(out.record, "", "  ")
	if err != nil {
		return err
	}
	dir := s.path(c)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	err = durable.WriteDir(dir, func(dir string) error {
		for _, f := range []struct {
			name string
			data []byte
		}{{recordFile, append(text, '\n')}, {frozenFile, file}, {mastersFile, out.masters}} {
			if len(f.data) == 0 {
				continue
			}
			err := durable.WriteFile(filepath.Join(dir, f.name), func(w io.Writer) error {
				_, err := w.Write(f.data)
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return os.RemoveAll(s.work(c))
}
