package datasets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/narrow-ml/narrow/internal/durable"
)

// fetcher downloads files. It gives up when a server is silent for as long as stall, however long the whole may take.
type fetcher struct {
	client *http.Client
	stall  time.Duration
}

func newFetcher() fetcher {
	return fetcher{client: &http.Client{}, stall: 60 * time.Second}
}

// Get makes sure that a data set is on this machine, downloading what is missing, and returns its folder ("embedded" for
// one inside the program). Files that are there already are checked too.
func Get(ctx context.Context, name string, opt Options) (string, error) {
	return thisMachine().checked(ctx, name, opt)
}

func (m *machine) checked(ctx context.Context, name string, opt Options) (string, error) {
	e, err := find(m.entries, name)
	if err != nil {
		return "", err
	}
	opt.Download = true
	where, err := m.place(ctx, e, opt)
	if err != nil {
		return "", err
	}
	if _, _, err := e.read(ctx, where); err != nil {
		return "", fmt.Errorf("data set %s: %w", name, err)
	}
	return where, nil
}

// place finds a data set and, if opt allows, downloads one that is missing.
func (m *machine) place(ctx context.Context, e *entry, opt Options) (string, error) {
	where, err := m.locate(e, opt)
	var missing *MissingError
	if opt.Download && errors.As(err, &missing) {
		return m.get(ctx, e, opt)
	}
	return where, err
}

// get downloads the files that ownFolder lacks.
func (m *machine) get(ctx context.Context, e *entry, opt Options) (string, error) {
	dir, err := m.ownFolder(e, opt)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", err
	}
	for _, f := range e.files {
		if _, ok := fileIn(dir, f); ok {
			continue
		}
		if err := m.fetcher.fromAny(ctx, e.urls, filepath.Join(dir, f.name), f, opt.Progress); err != nil {
			return "", fmt.Errorf("data set %s: %w", e.name, err)
		}
	}
	return dir, nil
}

// fromAny tries each server in turn.
func (ft fetcher) fromAny(ctx context.Context, urls []string, path string, f file, progress func(Progress)) error {
	if len(urls) == 0 {
		return fmt.Errorf("%s: no address is known to download it from", f.name)
	}
	var failed []error
	for _, url := range urls {
		err := ft.fetch(ctx, url+f.name, path, f, progress)
		if err == nil || ctx.Err() != nil {
			return err
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// fetch downloads one file. The file appears under its name only when it is complete and its sum is right.
func (ft fetcher) fetch(ctx context.Context, url, path string, f file, progress func(Progress)) error {
	err := durable.WriteFile(path, func(w io.Writer) error {
		packed, err := ft.body(ctx, url, f, progress)
		if err != nil {
			return err
		}
		const advice = "nothing was kept; a proxy may have answered instead of the server, try again or fetch the file by hand"
		if err := f.checkPacked(url, packed, advice); err != nil {
			return err
		}
		raw, err := f.unpack(packed)
		if err != nil {
			return err
		}
		if got := sum(raw); f.raw != "" && got != f.raw {
			return &ChecksumError{File: url, Want: f.raw, Got: got, Advice: advice}
		}
		_, err = w.Write(packed)
		return err
	})
	if err != nil {
		return fmt.Errorf("download %s: %w", url, err)
	}
	return nil
}

// body reads what the server sends, at most what the file can be.
func (ft fetcher) body(ctx context.Context, url string, f file, progress func(Progress)) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(ft.stall, func() { cancel(fmt.Errorf("the server sent nothing for %v", ft.stall)) })
	defer silent.Stop()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "identity") // the archive itself, not unpacked on the way
	resp, err := ft.client.Do(req)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answered %s", resp.Status)
	}
	limit := f.bytes + maxPackedExtra
	state := Progress{File: f.name, Total: resp.ContentLength}
	if state.Total > limit {
		return nil, fmt.Errorf("the server wants to send %d bytes, the file has at most %d", state.Total, limit)
	}
	var all []byte
	chunk := make([]byte, 64<<10)
	for {
		n, err := resp.Body.Read(chunk)
		silent.Reset(ft.stall)
		all = append(all, chunk[:n]...)
		state.Done += int64(n)
		if state.Done > limit {
			return nil, fmt.Errorf("the server sends more than %d bytes", limit)
		}
		if progress != nil && (n > 0 || err == io.EOF) {
			progress(state)
		}
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, causeOf(ctx, fmt.Errorf("after %d bytes: %w", state.Done, err))
		}
	}
}

// causeOf explains an error that came from cancelling: a silent server, or the caller's own context.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
