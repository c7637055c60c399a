package archtest

import (
	"fmt"
	"go/ast"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// CheckTable reports rows of the table that contradict the order: an edge that does not point to a lower level, or names
// no room.
func CheckTable(rooms []Room) (problems []string) {
	seen := map[string]bool{}
	for _, r := range rooms {
		if seen[r.Path] {
			problems = append(problems, fmt.Sprintf("table: %s has two rows", r.Path))
		}
		seen[r.Path] = true
		if r.Public == strings.Contains("/"+r.Path+"/", "/internal/") && r.Path != "cmd/narrow" {
			problems = append(problems, fmt.Sprintf("table: %s: public is %t, which its path contradicts", r.Path, r.Public))
		}
		for _, to := range r.Imports {
			below := find(rooms, to)
			if below == nil || below.Level >= r.Level {
				problems = append(problems, fmt.Sprintf("table: %s (level %d) may not import %s: edges go to rooms of a lower level", r.Path, r.Level, to))
			}
		}
	}
	return problems
}

// CheckExistence reports rooms without code, packages without a row, and files and folders that the project promises.
func CheckExistence(root fs.FS, rooms []Room, sources []Source, modules []string) (problems []string) {
	packages := map[string]bool{}
	documented := map[string]bool{}
	for _, s := range sources {
		packages[s.Room] = packages[s.Room] || !s.Test
		documented[s.Room] = documented[s.Room] || (!s.Test && s.Syntax.Doc != nil)
	}
	for _, r := range rooms {
		if !packages[r.Path] && !slices.Contains(modules, r.Path) {
			problems = append(problems, fmt.Sprintf("%s: the room has no code", r.Path))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		if find(rooms, name) == nil {
			problems = append(problems, fmt.Sprintf("%s: a package without a row in the table of rooms", name))
		}
		if !documented[name] {
			problems = append(problems, fmt.Sprintf("%s: no package comment", name))
		}
		for _, part := range strings.Split(name, "/") {
			switch part {
			case "util", "utils", "common", "helper", "helpers", "misc":
				problems = append(problems, fmt.Sprintf("%s: the name %q does not tell what the package gives", name, part))
			}
		}
	}
	for _, name := range []string{"train", "qat", "layers", "datasets", "cmd", "configs", "go.mod", "README.md", "CHANGELOG.md", "LICENSE", "docs/architecture.md", "docs/arithmetic.md"} {
		if _, err := fs.Stat(root, name); err != nil {
			problems = append(problems, fmt.Sprintf("%s: missing", name))
		}
	}
	return problems
}

// CheckImports reports imports that the table does not allow in non-test code, and dot imports and blank imports (but
// that of embed) anywhere.
func CheckImports(rooms []Room, sources []Source) (problems []string) {
	for _, s := range sources {
		for _, spec := range s.Syntax.Imports {
			if spec.Name != nil && (spec.Name.Name == "." || (spec.Name.Name == "_" && spec.Path.Value != `"embed"`)) {
				problems = append(problems, fmt.Sprintf("%s: import %s %s: names must show where they come from, and imports must not act by themselves", s.Path, spec.Name.Name, spec.Path.Value))
			}
		}
		room := find(rooms, s.Room)
		if s.Test || room == nil {
			continue
		}
		for _, p := range s.Imports {
			to, inside := local(p)
			switch {
			case inside && !slices.Contains(room.Imports, to):
				problems = append(problems, fmt.Sprintf("%s: imports %s, which the table does not allow for %s", s.Path, to, s.Room))
			case !inside && !standard(p) && !room.allows(p):
				problems = append(problems, fmt.Sprintf("%s: imports %s, which the table does not allow for %s", s.Path, p, s.Room))
			}
		}
	}
	return problems
}

// required are libraries that the project is built on: each must be imported by non-test code of one of the rooms.
var required = map[string][]string{
	gorgonia:                            {"internal/gx", "qat", "layers"},
	tensor:                              {"internal/gx", "qat", "layers"},
	"github.com/x448/float16":           {"quant"},
	"github.com/schollz/progressbar/v3": {"train"},
}

// CheckRequired reports libraries of the plan that nothing uses.
func CheckRequired(sources []Source) (problems []string) {
	for _, p := range slices.Sorted(maps.Keys(required)) {
		used := slices.ContainsFunc(sources, func(s Source) bool {
			return !s.Test && slices.Contains(required[p], s.Room) && slices.Contains(s.Imports, p)
		})
		if !used {
			problems = append(problems, fmt.Sprintf("%s: no code in %s uses it", p, strings.Join(required[p], ", ")))
		}
	}
	return problems
}

// withoutGorgonia are the rooms that a Go service may link without the training framework.
var withoutGorgonia = []string{"infer", "qat/ptq", "export/onnx", "export/onnx/eval", "model", "quant", "datasets", "configs"}

// CheckWithoutGorgonia reports rooms of the serving side that reach Gorgonia through any chain of imports.
func CheckWithoutGorgonia(sources []Source) (problems []string) {
	edges := map[string]map[string]bool{}
	for _, s := range sources {
		if s.Test {
			continue
		}
		if edges[s.Room] == nil {
			edges[s.Room] = map[string]bool{}
		}
		for _, p := range s.Imports {
			if to, ok := local(p); ok {
				p = to
			}
			edges[s.Room][p] = true
		}
	}
	for _, room := range withoutGorgonia {
		seen, queue := map[string]bool{room: true}, []string{room}
		for len(queue) > 0 {
			at := queue[0]
			queue = queue[1:]
			if strings.HasPrefix(at, "gorgonia.org/") {
				problems = append(problems, fmt.Sprintf("%s: reaches %s", room, at))
			}
			for _, to := range slices.Sorted(maps.Keys(edges[at])) {
				if !seen[to] {
					seen[to], queue = true, append(queue, to)
				}
			}
		}
	}
	return problems
}

// elementary are functions of package math whose bits differ between CPUs that fuse multiply and add and those that do
// not, and the fused operation itself. Sqrt, Floor, Ldexp and their like are exact and free.
var elementary = []string{
	"Acos", "Acosh", "Asin", "Asinh", "Atan", "Atan2", "Atanh", "Cbrt", "Cos", "Cosh", "Erf", "Erfc", "Erfcinv", "Erfinv",
	"Exp", "Exp2", "Expm1", "FMA", "Gamma", "Hypot", "J0", "J1", "Jn", "Lgamma", "Log", "Log10", "Log1p", "Log2", "Pow",
	"Sin", "Sincos", "Sinh", "Tan", "Tanh", "Y0", "Y1", "Yn",
}

// elementaryAllowed names the files that may use them, each with the reason. It is empty: the project computes with its
// own polynomials (internal/elementary and its like), which use basic operations only.
var elementaryAllowed = map[string]string{}

// CheckMath reports elementary functions of package math in non-test code. The generators in other modules only write
// source text and are not looked at.
func CheckMath(sources []Source) (problems []string) {
	for _, s := range sources {
		name := mathName(s.Syntax)
		if s.Test || name == "" || elementaryAllowed[s.Path] != "" {
			continue
		}
		ast.Inspect(s.Syntax, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if id, ok := sel.X.(*ast.Ident); ok && id.Name == name && slices.Contains(elementary, sel.Sel.Name) {
				problems = append(problems, fmt.Sprintf("%s: math.%s gives other bits on other CPUs; use basic operations or a stored table", s.Path, sel.Sel.Name))
			}
			return true
		})
	}
	return problems
}

// mathName is what a file calls package math; "" if it does not import it.
func mathName(f *ast.File) string {
	for _, spec := range f.Imports {
		if spec.Path.Value != `"math"` {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return "math"
	}
	return ""
}

// CheckInit reports package-level init functions: wiring is explicit here.
func CheckInit(sources []Source) (problems []string) {
	for _, s := range sources {
		for _, d := range s.Syntax.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				problems = append(problems, fmt.Sprintf("%s: a package-level init function; wire it where it is used", s.Path))
			}
		}
	}
	return problems
}

// CheckInterpreter reports anything in the independent interpreter that ties it to what it judges. The rule holds for its
// tests and comments too.
func CheckInterpreter(sources []Source) (problems []string) {
	for _, s := range sources {
		if s.Room != "export/onnx/eval" {
			continue
		}
		for _, p := range s.Imports {
			if to, ok := local(p); ok && slices.Contains([]string{"internal/kernel", "infer", "layers", "model", "quant"}, to) {
				problems = append(problems, fmt.Sprintf("%s: imports %s; the interpreter must not share code with what it judges", s.Path, to))
			}
		}
		for _, word := range []string{"model.Freeze", "quant.Requant"} {
			if strings.Contains(s.Text, word) {
				problems = append(problems, fmt.Sprintf("%s: mentions %s", s.Path, word))
			}
		}
	}
	return problems
}

// CheckCommand reports mathematics in the command line.
func CheckCommand(sources []Source) (problems []string) {
	for _, s := range sources {
		if s.Test || (s.Room != "cmd" && path.Dir(s.Room) != "cmd") {
			continue
		}
		for _, p := range s.Imports {
			if p == "math" || strings.HasPrefix(p, "math/") || strings.HasPrefix(p, "gonum.org/") {
				problems = append(problems, fmt.Sprintf("%s: imports %s; mathematics belongs below the command line", s.Path, p))
			}
		}
	}
	return problems
}

// Table is the table of rooms in Markdown, as docs/architecture.md shows it.
func Table(rooms []Room) string {
	var b strings.Builder
	b.WriteString("| Level | Room | What lives there | May import | Libraries |\n| --- | --- | --- | --- | --- |\n")
	for _, r := range rooms {
		name := "`" + r.Path + "`"
		if r.Public {
			name = "**" + name + "**"
		}
		fmt.Fprintf(&b, "| %d | %s | %s | %s | %s |\n", r.Level, name, r.Lives, list(r.Imports), list(r.Outside))
	}
	return b.String()
}

func list(names []string) string {
	if len(names) == 0 {
		return "-"
	}
	return "`" + strings.Join(names, "`, `") + "`"
}
