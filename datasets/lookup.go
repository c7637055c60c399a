package datasets

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// machine is what finding data takes from the computer it runs on; tests give another.
type machine struct {
	entries  []entry
	getenv   func(string) string
	cacheDir func() (string, error) // the user's cache folder
	homeDir  func() (string, error)
	fetcher  fetcher
}

func thisMachine() *machine {
	return &machine{
		entries:  catalog(),
		getenv:   os.Getenv,
		cacheDir: os.UserCacheDir,
		homeDir:  os.UserHomeDir,
		fetcher:  newFetcher(),
	}
}

// Info describes a data set for a list.
type Info struct {
	Name    string
	Train   int // examples
	Test    int
	Bytes   int64 // codes and labels, unpacked
	Licence string
	Notice  string // the text that accompanies data inside the program; empty for others
	Where   string // "embedded", the folder that holds the files, or "missing"
	Found   bool
}

// List describes every known data set and where it is. Files are looked for by name; their sums are checked by Load.
func List() []Info { return thisMachine().list(Options{}) }

func (m *machine) list(opt Options) []Info {
	var out []Info
	for i := range m.entries {
		e := &m.entries[i]
		info := Info{Name: e.name, Train: e.train, Test: e.test, Bytes: e.bytes(), Licence: e.licence, Notice: e.notice, Where: "missing"}
		if where, err := m.locate(e, opt); err == nil {
			info.Where, info.Found = where, true
		}
		out = append(out, info)
	}
	return out
}

// Path returns the folder that holds the files of a data set, "embedded" for one inside the program, or a
// *MissingError. Of opt only Dir counts.
func Path(name string, opt Options) (string, error) {
	m := thisMachine()
	e, err := find(m.entries, name)
	if err != nil {
		return "", err
	}
	return m.locate(e, opt)
}

// MissingError says that a data set is in none of the folders looked in.
type MissingError struct {
	Name   string
	Looked []string // folders, each with what it lacks when some files are there
	Hint   string   // another way of getting it, or empty
}

func (e *MissingError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "data set %s is not on this machine; get it with: narrow data get %s", e.Name, e.Name)
	if e.Hint != "" {
		fmt.Fprintf(&b, " (%s)", e.Hint)
	}
	b.WriteString("; looked in:")
	for _, dir := range e.Looked {
		b.WriteString("\n  " + dir)
	}
	return b.String()
}

// locate returns the first folder that has every file.
func (m *machine) locate(e *entry, opt Options) (string, error) {
	if len(e.files) == 0 {
		return embedded, nil
	}
	missing := &MissingError{Name: e.name, Hint: e.hint}
	for _, dir := range m.folders(e, opt) {
		var lacks []string
		for _, f := range e.files {
			if _, ok := fileIn(dir, f); !ok {
				lacks = append(lacks, f.name)
			}
		}
		if e.pictures(dir) {
			return dir, nil
		}
		switch len(lacks) {
		case 0:
			return dir, nil
		case len(e.files):
			missing.Looked = append(missing.Looked, dir)
		default:
			missing.Looked = append(missing.Looked, fmt.Sprintf("%s (lacks %s)", dir, strings.Join(lacks, ", ")))
		}
	}
	return "", missing
}

// pictures reports whether dir holds the data set as pictures instead of its published files.
func (e *entry) pictures(dir string) bool {
	if e.format != cifarArchive {
		return false
	}
	_, published := fileIn(dir, e.files[0])
	return !published && hasPictures(dir)
}

// fileIn returns the path of a file in dir, packed or, if there is a sum to check it by, unpacked.
func fileIn(dir string, f file) (string, bool) {
	names := []string{f.name}
	if f.raw != "" {
		names = append(names, strings.TrimSuffix(f.name, ".gz"))
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, true
		}
	}
	return "", false
}

// folders lists where the files of e may be, in order.
func (m *machine) folders(e *entry, opt Options) []string {
	var dirs []string
	if dir, err := m.ownFolder(e, opt); err == nil {
		dirs = append(dirs, dir)
	}
	if cache, err := m.cacheDir(); err == nil {
		if dir := filepath.Join(cache, "narrow", e.name); len(dirs) == 0 || dirs[0] != dir {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range e.folders {
		if rest, ok := strings.CutPrefix(dir, "$GOMODCACHE/"); ok {
			cache := m.moduleCache()
			if cache == "" {
				continue
			}
			dir = filepath.Join(cache, filepath.FromSlash(rest))
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

// ownFolder is where a download goes: under Options.Dir, else $NARROW_DATA, else the user's cache.
func (m *machine) ownFolder(e *entry, opt Options) (string, error) {
	if opt.Dir != "" {
		return filepath.Join(opt.Dir, e.name), nil
	}
	if dir := m.getenv("NARROW_DATA"); dir != "" {
		return filepath.Join(dir, e.name), nil
	}
	cache, err := m.cacheDir()
	if err != nil {
		return "", fmt.Errorf("no folder for %s, set NARROW_DATA: %w", e.name, err)
	}
	return filepath.Join(cache, "narrow", e.name), nil
}

// moduleCache is the folder `go env GOMODCACHE` names, without calling go; empty when it cannot be told.
func (m *machine) moduleCache() string {
	if dir := m.getenv("GOMODCACHE"); dir != "" {
		return dir
	}
	if list := filepath.SplitList(m.getenv("GOPATH")); len(list) > 0 && list[0] != "" {
		return filepath.Join(list[0], "pkg", "mod")
	}
	home, err := m.homeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, "go", "pkg", "mod")
}
