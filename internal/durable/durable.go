package durable

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
)

const bufferSize = 1 << 16

// WriteFile gives path the content that write produces. If write fails or panics, or the disk is full, path keeps its
// old content and the temporary file is removed; a panic goes on to the caller. An existing file keeps its permissions,
// a new one gets 0666 less the umask. A symbolic link is replaced by the file, not followed.
func WriteFile(path string, write func(io.Writer) error) (err error) {
	defer wrap(&err, path)
	f, err := createTemp(path)
	if err != nil {
		return err
	}
	published := false
	defer func() { // also runs while write panics
		if !published {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if old, statErr := os.Lstat(path); statErr == nil && old.Mode().IsRegular() {
		if err := f.Chmod(old.Mode().Perm()); err != nil {
			return err
		}
	}
	b := bufio.NewWriterSize(f, bufferSize)
	if err := write(b); err != nil {
		return err
	}
	if err := b.Flush(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	published = true
	return SyncDir(filepath.Dir(path))
}

// WriteDir makes the folder path with the files that fill puts into the folder it is given, all at once. A path that
// exists already is an error wrapping fs.ErrExist and fill is not called: a folder cannot be replaced in one step. If
// fill fails or panics nothing is left behind; a panic goes on to the caller.
func WriteDir(path string, fill func(dir string) error) (err error) {
	defer wrap(&err, path)
	if _, err := os.Lstat(path); err == nil {
		return fs.ErrExist
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir, err := mkdirTemp(path)
	if err != nil {
		return err
	}
	published := false
	defer func() {
		if !published {
			os.RemoveAll(dir)
		}
	}()
	if err := fill(dir); err != nil {
		return err
	}
	if err := syncTree(dir); err != nil {
		return err
	}
	if err := os.Rename(dir, path); err != nil {
		return err
	}
	published = true
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in dir survive a power cut: after it, files renamed into or removed from dir stay so.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" { // folders cannot be opened for syncing; NTFS journals the names itself
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Sum returns the SHA-256 of a file's content in lower-case hexadecimal.
func Sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("sha256 of %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func wrap(err *error, path string) {
	if *err != nil {
		*err = fmt.Errorf("write %s: %w", path, *err)
	}
}

// createTemp is os.CreateTemp with the permissions of an ordinary new file, which only the kernel can work out: it
// alone knows the umask.
func createTemp(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(tempName(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
}

func mkdirTemp(path string) (string, error) {
	for {
		dir := tempName(path)
		if err := os.Mkdir(dir, 0o777); !errors.Is(err, fs.ErrExist) {
			return dir, err
		}
	}
}

func tempName(path string) string {
	return filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.tmp-%016x", filepath.Base(path), rand.Uint64()))
}

// syncTree fsyncs every file and folder under root, the deepest first.
func syncTree(root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			dirs = append(dirs, path)
			return nil
		case !d.Type().IsRegular():
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
	if err != nil {
		return err
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := SyncDir(dirs[i]); err != nil {
			return err
		}
	}
	return nil
}
