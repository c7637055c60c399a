package durable_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/narrow-ml/narrow/internal/durable"
)

func ExampleWriteFile() {
	dir, err := os.MkdirTemp("", "durable")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "note.txt")
	err = durable.WriteFile(path, func(w io.Writer) error {
		_, err := io.WriteString(w, "all or nothing")
		return err
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	text, _ := os.ReadFile(path)
	fmt.Println(string(text))
	// Output: all or nothing
}

func write(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

// content lists a folder as name=text, so that a left-over temporary file shows.
func content(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if d.IsDir() {
			out = append(out, filepath.ToSlash(name)+"/")
			return nil
		}
		text, err := os.ReadFile(path)
		out = append(out, filepath.ToSlash(name)+"="+string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func TestWriteFileReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	long := strings.Repeat("x", 200_000) // more than one buffer
	for _, text := range []string{"one", long, ""} {
		if err := durable.WriteFile(path, write(text)); err != nil {
			t.Fatal(err)
		}
		if got := content(t, dir); got != "f="+text {
			t.Errorf("after writing %d bytes the folder holds %.60q", len(text), got)
		}
	}
}

func TestWriteFileFailureKeepsTheOld(t *testing.T) {
	boom := errors.New("boom")
	long := strings.Repeat("x", 200_000)
	tests := []struct {
		name string
		fn   func(io.Writer) error
	}{
		{"error at once", func(io.Writer) error { return boom }},
		{"error midway", func(w io.Writer) error {
			if err := write(long)(w); err != nil {
				return err
			}
			return boom
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, old := range []string{"", "f=old"} {
				dir := t.TempDir()
				path := filepath.Join(dir, "f")
				if old != "" {
					if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				err := durable.WriteFile(path, tt.fn)
				if !errors.Is(err, boom) || !strings.Contains(err.Error(), path) {
					t.Errorf("error %v: want it to wrap %v and name %s", err, boom, path)
				}
				if got := content(t, dir); got != old {
					t.Errorf("the folder holds %.60q, want %q", got, old)
				}
			}
		})
	}
}

func TestPanicCleansUpAndGoesOn(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	calls := map[string]func(){
		"WriteFile": func() {
			_ = durable.WriteFile(path, func(w io.Writer) error { _ = write("half")(w); panic("stop") })
		},
		"WriteDir": func() {
			_ = durable.WriteDir(filepath.Join(dir, "d"), func(tmp string) error {
				if err := os.WriteFile(filepath.Join(tmp, "a"), nil, 0o600); err != nil {
					return err
				}
				panic("stop")
			})
		},
	}
	for name, call := range calls {
		func() {
			defer func() {
				if r := recover(); r != "stop" {
					t.Errorf("%s: recovered %v, want the callback's panic", name, r)
				}
			}()
			call()
		}()
		if got := content(t, dir); got != "f=old" {
			t.Errorf("%s: the folder holds %q, want only the old file", name, got)
		}
	}
}

func TestWriteFileNowhere(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	called := func(io.Writer) error { t.Error("the callback ran"); return nil }
	for _, path := range []string{filepath.Join(dir, "missing", "f"), filepath.Join(file, "f")} {
		if err := durable.WriteFile(path, called); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("WriteFile(%s): error %v, want one that names the path", path, err)
		}
	}
	// The final name is a folder: the rename must fail and leave nothing.
	if err := os.MkdirAll(filepath.Join(dir, "taken", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(filepath.Join(dir, "taken"), write("new")); err == nil {
		t.Error("WriteFile replaced a folder")
	}
	if got := content(t, dir); got != "file=old taken/ taken/x/" {
		t.Errorf("the folder holds %q", got)
	}
}

func TestReadOnlyFolder(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write anywhere: a read-only folder cannot be tested")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700)
	if err := durable.WriteFile(path, write("new")); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("error %v, want fs.ErrPermission", err)
	}
	if got := content(t, dir); got != "f=old" {
		t.Errorf("the folder holds %q", got)
	}
}

func TestPermissions(t *testing.T) {
	dir := t.TempDir()
	old, fresh, ordinary := filepath.Join(dir, "old"), filepath.Join(dir, "fresh"), filepath.Join(dir, "ordinary")
	if err := os.WriteFile(old, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(old, 0o640); err != nil { // whatever the umask
		t.Fatal(err)
	}
	if err := os.WriteFile(ordinary, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	mode := func(path string) fs.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	for _, path := range []string{old, fresh} {
		if err := durable.WriteFile(path, write("x")); err != nil {
			t.Fatal(err)
		}
	}
	if got := mode(old); got != 0o640 {
		t.Errorf("an existing file went from 0640 to %o", got)
	}
	if got, want := mode(fresh), mode(ordinary); got != want {
		t.Errorf("a new file has %o, an ordinary one %o", got, want)
	}
}

func TestWriteDir(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "run")
	fill := func(tmp string) error {
		if filepath.Dir(tmp) != dir {
			t.Errorf("temporary folder %s is not beside %s", tmp, path)
		}
		if err := os.Mkdir(filepath.Join(tmp, "sub"), 0o777); err != nil {
			return err
		}
		return durable.WriteFile(filepath.Join(tmp, "sub", "a"), write("1"))
	}
	boom := errors.New("boom")
	if err := durable.WriteDir(path, func(tmp string) error { return errors.Join(fill(tmp), boom) }); !errors.Is(err, boom) {
		t.Errorf("error %v, want %v", err, boom)
	}
	if got := content(t, dir); got != "" {
		t.Errorf("a failed WriteDir left %q", got)
	}
	if err := durable.WriteDir(path, fill); err != nil {
		t.Fatal(err)
	}
	if got := content(t, dir); got != "run/ run/sub/ run/sub/a=1" {
		t.Errorf("the folder holds %q", got)
	}
	err := durable.WriteDir(path, func(string) error { t.Error("fill ran for a folder that exists"); return nil })
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("error %v, want fs.ErrExist", err)
	}
}

// Readers beside a writer see one of the complete contents, never a mixture.
func TestReadersSeeWholeFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	texts := map[string]bool{strings.Repeat("a", 100_000): true, strings.Repeat("b", 150_000): true}
	for text := range texts {
		if err := durable.WriteFile(path, write(text)); err != nil {
			t.Fatal(err)
		}
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			got, err := os.ReadFile(path)
			if err != nil || !texts[string(got)] {
				t.Errorf("a reader saw %d bytes, error %v", len(got), err)
				return
			}
		}
	})
	for range 10 {
		for text := range texts {
			if err := durable.WriteFile(path, write(text)); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	readers.Wait()
}

func TestSum(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	// FIPS 180-2, appendix B.1.
	const want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	if got, err := durable.Sum(path); err != nil || got != want {
		t.Errorf("Sum = %s, %v, want %s", got, err, want)
	}
	if _, err := durable.Sum(path + "missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Sum of a missing file: %v", err)
	}
}
