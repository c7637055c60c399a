package train

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// metric is one line of metrics.jsonl. It holds nothing that depends on the clock.
type metric struct {
	Phase string   `json:"phase"`
	Epoch float64  `json:"epoch"` // epochs done
	Step  int      `json:"step"`
	LR    float64  `json:"lr"`
	Loss  float64  `json:"loss"`                    // mean over the epoch's examples
	Train float64  `json:"train_accuracy"`          // percent, while training
	Val   *float64 `json:"validation_accuracy"`     // percent; null without a validation split
	Test  *float64 `json:"test_accuracy,omitempty"` // percent; only with train.track_test, and nothing is decided by it

	Precision   string            `json:"precision,omitempty"`   // of a phase with stages
	Oscillation *oscillationCount `json:"oscillation,omitempty"` // of qat.oscillation
}

// oscillationCount is how many weights oscillate and how many are frozen, of all quantized ones.
type oscillationCount struct {
	Oscillating int `json:"oscillating"`
	Frozen      int `json:"frozen"`
	Weights     int `json:"weights"`
}

// timing is one line of timing.jsonl.
type timing struct {
	Phase   string  `json:"phase"`
	Step    int     `json:"step"`
	Seconds float64 `json:"seconds"` // since this process began the phase
	Rate    float64 `json:"examples_per_second"`
	At      string  `json:"at"`
}

// journal appends to metrics.jsonl and timing.jsonl of a run folder; without a folder it drops what it is given.
type journal struct {
	dir   string
	began time.Time
}

// openJournal cuts metrics.jsonl to the length that the checkpoint knew: a run that was killed later wrote lines that
// will come again.
func openJournal(dir string, keep int64) (*journal, error) {
	j := &journal{dir: dir, began: time.Now()}
	if dir == "" {
		return j, nil
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "metrics.jsonl"), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() < keep {
		err = fmt.Errorf("%s is shorter than its checkpoint says (%d < %d bytes): a file of the run was changed; start again in another folder", f.Name(), info.Size(), keep)
	}
	if err == nil {
		err = f.Truncate(keep)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return j, err
}

// size is the length of metrics.jsonl.
func (j *journal) size() (int64, error) {
	if j.dir == "" {
		return 0, nil
	}
	info, err := os.Stat(filepath.Join(j.dir, "metrics.jsonl"))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (j *journal) write(m metric, rate float64) error {
	if j.dir == "" {
		return nil
	}
	if err := j.line("metrics.jsonl", m); err != nil {
		return err
	}
	return j.line("timing.jsonl", timing{Phase: m.Phase, Step: m.Step, Seconds: time.Since(j.began).Seconds(), Rate: rate, At: time.Now().UTC().Format(time.RFC3339)})
}

func (j *journal) line(name string, v any) (err error) {
	f, err := os.OpenFile(filepath.Join(j.dir, name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(f, string(text)+"\n"); err != nil {
		return err
	}
	return f.Sync()
}
