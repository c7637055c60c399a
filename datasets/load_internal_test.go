package datasets

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func packed(t testing.TB, raw []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func idxBytes(data []byte, sizes ...uint32) []byte {
	b := []byte{0, 0, 8, byte(len(sizes))}
	for _, s := range sizes {
		b = binary.BigEndian.AppendUint32(b, s)
	}
	return append(b, data...)
}

// toy is a machine that knows one data set, "toy": 6 + 2 pictures of 2x2.
type toy struct {
	*machine
	env   map[string]string
	root  string
	files map[string][]byte // unpacked content by published name
	own   string            // $NARROW_DATA/toy
}

func newToy(t *testing.T) *toy {
	t.Helper()
	x := &toy{root: t.TempDir(), files: map[string][]byte{
		"a.gz": idxBytes([]byte("abcdefghijklmnopqrstuvwx"), 6, 2, 2),
		"b.gz": idxBytes([]byte{0, 1, 2, 0, 1, 2}, 6),
		"c.gz": idxBytes([]byte("ABCDEFGH"), 2, 2, 2),
		"d.gz": idxBytes([]byte{2, 1}, 2),
	}}
	x.own = filepath.Join(x.root, "data", "toy")
	x.env = map[string]string{"NARROW_DATA": filepath.Join(x.root, "data")}
	e := entry{
		name: "toy", licence: "none", classes: []string{"x", "y", "z"}, shape: []int{2, 2, 1}, scale: 0.5, maxCode: 255,
		train: 6, test: 2, folders: []string{filepath.Join(x.root, "system"), "$GOMODCACHE/m@v1/data"}, hint: "on a toy: install it",
	}
	for _, name := range []string{"a.gz", "b.gz", "c.gz", "d.gz"} {
		raw := x.files[name]
		e.files = append(e.files, file{name: name, bytes: int64(len(raw)), raw: sum(raw)})
	}
	x.machine = &machine{
		entries:  []entry{e},
		getenv:   func(key string) string { return x.env[key] },
		cacheDir: func() (string, error) { return filepath.Join(x.root, "cache"), nil },
		homeDir:  func() (string, error) { return filepath.Join(x.root, "home"), nil },
		fetcher:  fetcher{client: http.DefaultClient, stall: 5 * time.Second},
	}
	return x
}

func (x *toy) put(t *testing.T, dir string, names ...string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		content := packed(t, x.files[name+".gz"], gzip.BestSpeed)
		if err := os.WriteFile(filepath.Join(dir, name+".gz"), content, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

func (x *toy) check(t *testing.T, d *Dataset, where string) {
	t.Helper()
	if d.Source != where {
		t.Errorf("source %s, want %s", d.Source, where)
	}
	if string(d.Train.Row(1)) != "efgh" || d.Train.Labels[2] != 2 || string(d.Test.X) != "ABCDEFGH" || d.Test.Labels[0] != 2 {
		t.Errorf("train %q %v, test %q %v", d.Train.X, d.Train.Labels, d.Test.X, d.Test.Labels)
	}
	if d.Scale != 0.5 || len(d.Train.Shape) != 3 || d.Train.Shape[2] != 1 {
		t.Errorf("scale %v, shape %v", d.Scale, d.Train.Shape)
	}
}

// Each folder counts only when those before it lack files.
func TestLookupOrder(t *testing.T) {
	x := newToy(t)
	x.env["GOPATH"] = filepath.Join(x.root, "gopath") + string(os.PathListSeparator) + filepath.Join(x.root, "other")
	dirs := []string{ // the last is looked in last
		x.own,
		filepath.Join(x.root, "cache", "narrow", "toy"),
		filepath.Join(x.root, "system"),
		filepath.Join(x.root, "gopath", "pkg", "mod", "m@v1", "data"),
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		x.put(t, dirs[i], "a", "b", "c")
		where := "missing"
		if i+1 < len(dirs) {
			where = dirs[i+1]
		}
		if got := x.list(Options{})[0]; got.Where != where || got.Found != (where != "missing") {
			t.Errorf("with an incomplete %s it is found in %s, want %s", dirs[i], got.Where, where)
		}
		x.put(t, dirs[i], "d")
		d, err := x.load(context.Background(), "toy", Options{})
		if err != nil {
			t.Fatal(err)
		}
		x.check(t, d, dirs[i])
	}
	explicit := filepath.Join(x.root, "explicit")
	x.put(t, filepath.Join(explicit, "toy"), "a", "b", "c", "d")
	if got, err := x.locate(&x.entries[0], Options{Dir: explicit}); err != nil || got != filepath.Join(explicit, "toy") {
		t.Errorf("with Dir: %s, %v", got, err)
	}
	x.env["GOMODCACHE"] = filepath.Join(x.root, "modcache")
	if got := x.moduleCache(); got != x.env["GOMODCACHE"] {
		t.Errorf("GOMODCACHE is not used: %s", got)
	}
	x.env = nil
	if got, want := x.moduleCache(), filepath.Join(x.root, "home", "go", "pkg", "mod"); got != want {
		t.Errorf("module cache %s, want %s", got, want)
	}
	if got, want := x.folders(&x.entries[0], Options{})[0], dirs[1]; got != want {
		t.Errorf("without NARROW_DATA the first folder is %s, want %s", got, want)
	}
}

func TestLoadUnpackedFiles(t *testing.T) {
	x := newToy(t)
	x.put(t, x.own, "b", "c", "d")
	if err := os.WriteFile(filepath.Join(x.own, "a"), x.files["a.gz"], 0o666); err != nil {
		t.Fatal(err)
	}
	d, err := x.load(context.Background(), "toy", Options{})
	if err != nil {
		t.Fatal(err)
	}
	x.check(t, d, x.own)
}

func TestMissing(t *testing.T) {
	x := newToy(t)
	x.put(t, x.own, "a", "c")
	_, err := x.load(context.Background(), "toy", Options{})
	var missing *MissingError
	if !errors.As(err, &missing) {
		t.Fatalf("error %v, want a *MissingError", err)
	}
	for _, want := range []string{
		"narrow data get toy", "on a toy: install it", x.own + " (lacks b.gz, d.gz)",
		"\n  " + filepath.Join(x.root, "cache", "narrow", "toy"), "\n  " + filepath.Join(x.root, "system"),
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the message lacks %q:\n%v", want, err)
		}
	}
	_, err = x.load(context.Background(), "tooy", Options{})
	var unknown *UnknownError
	if !errors.As(err, &unknown) || err.Error() != `no data set is called "tooy" (known: toy)` {
		t.Errorf("unknown name: %v", err)
	}
}

func TestDamagedFiles(t *testing.T) {
	good := idxBytes([]byte{0, 1, 2, 0, 1, 2}, 6)
	other := idxBytes([]byte{0, 1, 2, 0, 1, 1}, 6)
	tests := []struct {
		name     string
		content  []byte
		want     string
		checksum bool
	}{
		{"other content", packed(t, other, 9), "want " + sum(good) + "; delete it and get it again", true},
		{"shorter content", packed(t, good[:10], 9), "want " + sum(good), true},
		{"longer content", packed(t, append(good, 0), 9), "unpacks to more than the 14 bytes published", false},
		{"bomb", packed(t, make([]byte, 5<<20), 9), "unpacks to more than the 14 bytes published", false},
		{"cut short", packed(t, good, 9)[:20], "unpacking: unexpected EOF", false},
		{"not gzip", []byte("<html>please log in</html>"), "it is not a gzip file", false},
		{"empty", nil, "it is not a gzip file", false},
		{"far too long", make([]byte, 14+maxPackedExtra+1), "it cannot be the published file", false},
	}
	for _, tt := range tests {
		x := newToy(t)
		x.put(t, x.own, "a", "b", "c", "d")
		path := filepath.Join(x.own, "b.gz")
		if err := os.WriteFile(path, tt.content, 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := x.load(context.Background(), "toy", Options{})
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v, want %q and the path", tt.name, err, tt.want)
		}
		var ce *ChecksumError
		if errors.As(err, &ce) != tt.checksum {
			t.Errorf("%s: error %v; is it a *ChecksumError: want %v", tt.name, err, tt.checksum)
		}
		if _, err := x.checked(context.Background(), "toy", Options{}); err == nil {
			t.Errorf("%s: Get accepts the files", tt.name)
		}
	}
}

// A published sum of the archive is enough; another archive of the same content is accepted by the content's sum.
func TestArchiveSum(t *testing.T) {
	raw := idxBytes([]byte{1}, 1)
	published, repacked := packed(t, raw, gzip.BestCompression), packed(t, raw, gzip.NoCompression)
	path := filepath.Join(t.TempDir(), "f.gz")
	for _, content := range [][]byte{published, repacked} {
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		f := file{name: "f.gz", bytes: int64(len(raw)), raw: sum(raw), gz: sum(published)}
		if got, err := f.open(path); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%v, %v", got, err)
		}
		f.raw = sum(nil) // now only the archive's sum can say yes
		if _, err := f.open(path); (err == nil) != bytes.Equal(content, published) {
			t.Errorf("archive %s: error %v", sum(content), err)
		}
	}
}

// Files that have the right sum but do not fit together: a wrong catalogue, not damage.
func TestFilesThatDoNotFit(t *testing.T) {
	tests := []struct {
		name, file string
		content    []byte
		want       string
	}{
		{"labels for fewer images", "b.gz", idxBytes([]byte{0, 1}, 2), "labels: idx: sizes [2], want [6]"},
		{"images without sizes", "a.gz", idxBytes([]byte("abcdef"), 6), "images: idx: sizes [6], want [N H W]"},
		{"no idx", "a.gz", []byte("hello"), "images: idx: it starts with"},
		{"other shape", "a.gz", idxBytes(make([]byte, 24), 6, 4, 1), "6 examples of shape [4 1 1], want 6 of [2 2 1]"},
		{"class", "b.gz", idxBytes([]byte{0, 1, 2, 3, 0, 0}, 6), "toy: train: example 3: label 3, want 0 to 2"},
	}
	for _, tt := range tests {
		x := newToy(t)
		for i := range x.entries[0].files {
			if f := &x.entries[0].files[i]; f.name == tt.file {
				f.bytes, f.raw = int64(len(tt.content)), sum(tt.content)
			}
		}
		x.files[tt.file] = tt.content
		x.put(t, x.own, "a", "b", "c", "d")
		if _, err := x.load(context.Background(), "toy", Options{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

// serve answers with the toy's files and counts requests; answer may take a request over.
func (x *toy) serve(t *testing.T, answer func(w http.ResponseWriter, r *http.Request) bool) (requests *atomic.Int32) {
	t.Helper()
	requests = new(atomic.Int32)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if answer != nil && answer(w, r) {
			return
		}
		raw, ok := x.files[strings.TrimPrefix(r.URL.Path, "/good/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Write(packed(t, raw, gzip.BestCompression))
	}))
	t.Cleanup(server.Close)
	x.entries[0].urls = []string{server.URL + "/gone/", server.URL + "/good/"}
	return requests
}

func TestDownload(t *testing.T) {
	x := newToy(t)
	requests := x.serve(t, nil)
	if _, err := x.load(context.Background(), "toy", Options{}); err == nil || requests.Load() != 0 {
		t.Fatalf("without Download: error %v, %d requests", err, requests.Load())
	}
	x.put(t, x.own, "d")
	var seen []Progress
	d, err := x.load(context.Background(), "toy", Options{Download: true, Progress: func(p Progress) { seen = append(seen, p) }})
	if err != nil {
		t.Fatal(err)
	}
	x.check(t, d, x.own)
	if n := requests.Load(); n != 6 {
		t.Errorf("%d requests, want 6: three missing files, the first address has none", n)
	}
	last := map[string]Progress{}
	for _, p := range seen {
		if p.Done < last[p.File].Done {
			t.Errorf("progress of %s went from %d to %d bytes", p.File, last[p.File].Done, p.Done)
		}
		last[p.File] = p
	}
	for _, name := range []string{"a.gz", "b.gz", "c.gz"} {
		if p := last[name]; p.Done == 0 || p.Done != p.Total {
			t.Errorf("progress of %s ended at %d of %d bytes", name, p.Done, p.Total)
		}
	}
	if _, err := x.checked(context.Background(), "toy", Options{}); err != nil || requests.Load() != 6 {
		t.Errorf("Get with the files there: %v, %d requests", err, requests.Load())
	}
	// Dir takes the place of NARROW_DATA: the files of the latter do not count, all four are fetched again.
	dir := filepath.Join(x.root, "explicit")
	where, err := x.checked(context.Background(), "toy", Options{Dir: dir})
	if err != nil || where != filepath.Join(dir, "toy") || requests.Load() != 6+8 {
		t.Errorf("Get with Dir: %s, %v, %d requests", where, err, requests.Load())
	}
}

func TestDownloadFailures(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	hang := func(w http.ResponseWriter, r *http.Request) bool {
		w.Write([]byte("some"))
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return true
	}
	send := func(content []byte) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool { w.Write(content); return true }
	}
	tests := []struct {
		name   string
		answer func(http.ResponseWriter, *http.Request) bool
		want   string
	}{
		{"server error", func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(503); return true }, "the server answered 503"},
		{"login page", send([]byte("<html>please log in</html>")), "it is not a gzip file"},
		{"other content", send(packed(t, idxBytes([]byte("abc"), 3), 9)), "nothing was kept"},
		{"announces too much", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Length", "99999999999")
			w.WriteHeader(200)
			return true
		}, "wants to send 99999999999 bytes"},
		{"sends too much", func(w http.ResponseWriter, r *http.Request) bool {
			for range 80 { // in chunks, without a length
				w.Write(make([]byte, 16<<10))
				w.(http.Flusher).Flush()
			}
			return true
		}, "the server sends more than"},
		{"breaks off", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("some"))
			return true
		}, "after 4 bytes: unexpected EOF"},
		{"hangs", hang, "the server sent nothing for 100ms"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x := newToy(t)
			x.fetcher.stall = 5 * time.Second
			if tt.name == "hangs" {
				x.fetcher.stall = 100 * time.Millisecond
			}
			x.serve(t, tt.answer)
			_, err := x.load(context.Background(), "toy", Options{Download: true})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "/good/a.gz") {
				t.Errorf("error %v, want %q and the address", err, tt.want)
			}
			left, err := os.ReadDir(x.own)
			if err != nil || len(left) != 0 {
				t.Errorf("a failed download left %v, %v", left, err)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		x := newToy(t)
		ctx, cancel := context.WithCancel(context.Background())
		requests := x.serve(t, func(w http.ResponseWriter, r *http.Request) bool { cancel(); return hang(w, r) })
		if _, err := x.load(ctx, "toy", Options{Download: true}); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want context.Canceled", err)
		}
		if n := requests.Load(); n > 1 {
			t.Errorf("%d requests: it went on after the cancellation", n)
		}
	})
}

// The catalogue against the real files, where this machine has them.
func TestPublishedFiles(t *testing.T) {
	for _, e := range catalog() {
		if len(e.files) == 0 {
			continue
		}
		t.Run(e.name, func(t *testing.T) {
			m := thisMachine()
			where, err := m.locate(&e, Options{})
			if err != nil {
				t.Skip(err)
			}
			d, err := m.load(context.Background(), e.name, Options{ValFraction: 0.1, Seed: 7})
			if err != nil {
				t.Fatal(err)
			}
			if d.Source != where || d.Train.Len() != 54000 || d.Val.Len() != 6000 || d.Test.Len() != 10000 {
				t.Errorf("%s: %d, %d, %d examples", d.Source, d.Train.Len(), d.Val.Len(), d.Test.Len())
			}
			if e.name == "mnist" { // the sums of the unpacked bytes stand or fall with this
				for _, f := range e.files {
					path, _ := fileIn(where, f)
					content, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					if strings.HasSuffix(path, ".gz") && sum(content) != f.gz {
						t.Logf("%s is packed otherwise than the published file", path)
						continue
					}
					if raw, err := f.unpack(content); err == nil && sum(raw) != f.raw {
						t.Errorf("%s unpacks to %s, the catalogue says %s", path, sum(raw), f.raw)
					}
				}
			}
		})
	}
}

func TestCatalogIsComplete(t *testing.T) {
	for _, e := range catalog() {
		if e.name == "" || e.licence == "" || len(e.classes) != 10 || e.scale <= 0 || e.maxCode == 0 || len(e.shape) != 3 {
			t.Errorf("%s: incomplete", e.name)
		}
		if want := 1 / float64(e.maxCode); float64(e.scale) != want && e.scale != float32(want) {
			t.Errorf("%s: scale %v does not bring code %d to 1", e.name, e.scale, e.maxCode)
		}
		if len(e.files) == 0 {
			continue
		}
		if want := map[format]int{idxFiles: 4, cifarArchive: 1}[e.format]; len(e.files) != want || len(e.urls) == 0 {
			t.Errorf("%s: %d files, %d addresses", e.name, len(e.files), len(e.urls))
		}
		for _, f := range e.files {
			if len(f.raw)+len(f.gz) < 64 || len(f.raw)%64 != 0 || len(f.gz)%64 != 0 || f.bytes == 0 {
				t.Errorf("%s: %s: %+v", e.name, f.name, f)
			}
		}
	}
}
