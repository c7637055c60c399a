package study

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/narrow-ml/narrow/internal/durable"
)

// secondsFile holds the training time of a cell that was interrupted, so that train_seconds covers all of it.
const secondsFile = "seconds"

// spentSeconds is the time that earlier, interrupted runs of a cell took; 0 if there were none.
func spentSeconds(work string) float64 {
	if work == "" {
		return 0
	}
	text, err := os.ReadFile(filepath.Join(work, secondsFile))
	if err != nil {
		return 0
	}
	s, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
	if err != nil || !(s >= 0) {
		return 0
	}
	return s
}

func keepSeconds(work string, s float64) error {
	if work == "" {
		return nil
	}
	if err := os.MkdirAll(work, 0o777); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(work, secondsFile), func(w io.Writer) error {
		_, err := io.WriteString(w, strconv.FormatFloat(s, 'g', -1, 64)+"\n")
		return err
	})
}
