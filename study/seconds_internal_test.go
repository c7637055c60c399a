package study

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSecondsSurviveAnInterruption(t *testing.T) {
	work := filepath.Join(t.TempDir(), "cell.work")
	if got := spentSeconds(work); got != 0 {
		t.Errorf("a new cell has spent %v s", got)
	}
	if err := keepSeconds(work, 12.5); err != nil {
		t.Fatal(err)
	}
	if got := spentSeconds(work); got != 12.5 {
		t.Errorf("%v s are kept, want 12.5", got)
	}
	for _, bad := range []string{"", "soon", "-1", "NaN"} {
		if err := os.WriteFile(filepath.Join(work, secondsFile), []byte(bad), 0o666); err != nil {
			t.Fatal(err)
		}
		if got := spentSeconds(work); got != 0 {
			t.Errorf("%q is read as %v s", bad, got)
		}
	}
	if spentSeconds("") != 0 || keepSeconds("", 1) != nil {
		t.Error("without a folder nothing is kept")
	}
}
