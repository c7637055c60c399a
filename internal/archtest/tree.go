package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Source is one Go file of the module.
type Source struct {
	Path    string // from the module's root, with slashes
	Room    string // its folder
	Test    bool
	Imports []string
	Text    string
	Syntax  *ast.File
}

// Load parses every Go file below root whatever its build tags, so that the rules hold on all platforms. It leaves out
// testdata, hidden folders, and folders with a go.mod of their own, whose paths it returns as modules.
func Load(root fs.FS) (sources []Source, modules []string, err error) {
	fset := token.NewFileSet()
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			base := path.Base(name)
			if name != "." && (base == "testdata" || strings.HasPrefix(base, ".") || base == "node_modules") {
				return fs.SkipDir
			}
			if _, err := fs.Stat(root, path.Join(name, "go.mod")); err == nil && name != "." {
				modules = append(modules, name)
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return fmt.Errorf("parse: %w", err)
		}
		s := Source{Path: name, Room: path.Dir(name), Test: strings.HasSuffix(name, "_test.go"), Text: string(text), Syntax: file}
		for _, spec := range file.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
			}
			s.Imports = append(s.Imports, p)
		}
		sources = append(sources, s)
		return nil
	})
	return sources, modules, err
}

// local is the room that an import path names; ok is false for packages of other modules.
func local(importPath string) (room string, ok bool) {
	return strings.CutPrefix(importPath, Module+"/")
}

// standard reports a package of the standard library: its first element has no dot.
func standard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

// allows reports whether the room may import a third-party package. An entry that ends in /... is a package with all below.
func (r *Room) allows(importPath string) bool {
	return slices.ContainsFunc(r.Outside, func(entry string) bool {
		prefix, tree := strings.CutSuffix(entry, "/...")
		return importPath == prefix || (tree && strings.HasPrefix(importPath, prefix+"/"))
	})
}

func find(rooms []Room, name string) *Room {
	i := slices.IndexFunc(rooms, func(r Room) bool { return r.Path == name })
	if i < 0 {
		return nil
	}
	return &rooms[i]
}
