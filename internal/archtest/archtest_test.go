package archtest_test

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/narrow-ml/narrow/internal/archtest"
)

var update = flag.Bool("update", false, "write the table of docs/architecture.md anew")

const root = "../.."

func report(t *testing.T, problems []string) {
	t.Helper()
	for _, p := range problems {
		t.Error(p)
	}
}

func TestProject(t *testing.T) {
	tree := os.DirFS(root)
	sources, modules, err := archtest.Load(tree)
	if err != nil {
		t.Fatal(err)
	}
	rooms := archtest.Rooms()
	t.Run("table", func(t *testing.T) { report(t, archtest.CheckTable(rooms)) })
	t.Run("existence", func(t *testing.T) { report(t, archtest.CheckExistence(tree, rooms, sources, modules)) })
	t.Run("imports", func(t *testing.T) { report(t, archtest.CheckImports(rooms, sources)) })
	t.Run("required", func(t *testing.T) { report(t, archtest.CheckRequired(sources)) })
	t.Run("serving without Gorgonia", func(t *testing.T) { report(t, archtest.CheckWithoutGorgonia(sources)) })
	t.Run("elementary functions", func(t *testing.T) { report(t, archtest.CheckMath(sources)) })
	t.Run("init", func(t *testing.T) { report(t, archtest.CheckInit(sources)) })
	t.Run("interpreter", func(t *testing.T) { report(t, archtest.CheckInterpreter(sources)) })
	t.Run("command line", func(t *testing.T) { report(t, archtest.CheckCommand(sources)) })
}

// TestPublicPackages pins the packages that other modules may import: adding one is a promise.
func TestPublicPackages(t *testing.T) {
	var public []string
	for _, r := range archtest.Rooms() {
		if r.Public {
			public = append(public, r.Path)
		}
	}
	slices.Sort(public)
	want := []string{"configs", "datasets", "export", "export/onnx", "export/onnx/eval", "export/onnx/onnxpb", "export/safetensors", "infer", "layers", "model", "qat", "qat/ptq", "quant", "study", "train"}
	if !slices.Equal(public, want) {
		t.Errorf("public packages are %v, want %v", public, want)
	}
}

// TestArchitectureDocument holds docs/architecture.md to the table.
func TestArchitectureDocument(t *testing.T) {
	const file, begin, end = root + "/docs/architecture.md", "<!-- rooms: begin -->\n", "<!-- rooms: end -->\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), begin)
	old, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("docs/architecture.md has no table between %q and %q", begin, end)
	}
	table := archtest.Table(archtest.Rooms())
	if old == table {
		return
	}
	if !*update {
		t.Fatal("the table in docs/architecture.md is not that of rooms.go: go test ./internal/archtest -update")
	}
	if err := os.WriteFile(file, []byte(head+begin+table+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestRulesBite gives each rule a tree that breaks it, and one that does not.
func TestRulesBite(t *testing.T) {
	const m = archtest.Module
	rooms := []archtest.Room{
		{Path: "quant", Level: 0, Public: true, Outside: []string{"github.com/x448/float16"}},
		{Path: "internal/qtest", Level: 0},
		{Path: "model", Level: 1, Public: true, Imports: []string{"quant"}},
		{Path: "infer", Level: 2, Public: true, Imports: []string{"model", "layers"}, Outside: []string{"gonum.org/v1/plot/..."}},
	}
	load := func(files map[string]string) ([]archtest.Source, []string, fstest.MapFS) {
		t.Helper()
		tree := fstest.MapFS{}
		for name, text := range files {
			tree[name] = &fstest.MapFile{Data: []byte(text)}
		}
		sources, modules, err := archtest.Load(tree)
		if err != nil {
			t.Fatal(err)
		}
		return sources, modules, tree
	}
	rows := []struct {
		name  string
		files map[string]string
		check func([]archtest.Source, []string, fstest.MapFS) []string
		want  string // "" = clean
	}{
		{"allowed edge", map[string]string{"model/a.go": "package model\nimport _ \"embed\"\nimport \"" + m + "/quant\"\nimport \"fmt\""}, imports(rooms), ""},
		{"upward edge", map[string]string{"quant/a.go": `package quant; import "` + m + `/model"`}, imports(rooms), "quant/a.go: imports model, which the table does not allow for quant"},
		{"edge in a file for another platform", map[string]string{"quant/a_windows.go": "//go:build windows\n\npackage quant\nimport \"" + m + "/model\""}, imports(rooms), "quant/a_windows.go: imports model, which the table does not allow for quant"},
		{"tests may", map[string]string{"quant/a_test.go": `package quant_test; import "` + m + `/internal/qtest"`}, imports(rooms), ""},
		{"qtest outside tests", map[string]string{"model/a.go": `package model; import "` + m + `/internal/qtest"`}, imports(rooms), "model/a.go: imports internal/qtest, which the table does not allow for model"},
		{"library", map[string]string{"model/a.go": `package model; import "github.com/x448/float16"`}, imports(rooms), "model/a.go: imports github.com/x448/float16, which the table does not allow for model"},
		{"library in its room", map[string]string{"quant/a.go": `package quant; import "github.com/x448/float16"`}, imports(rooms), ""},
		{"library with all below", map[string]string{"infer/a.go": `package infer; import ("gonum.org/v1/plot"; "gonum.org/v1/plot/vg")`}, imports(rooms), ""},
		{"library beside", map[string]string{"infer/a.go": `package infer; import "gonum.org/v1/plotter"`}, imports(rooms), "infer/a.go: imports gonum.org/v1/plotter, which the table does not allow for infer"},
		{"dot import", map[string]string{"quant/a_test.go": `package quant; import . "fmt"`}, imports(rooms), `quant/a_test.go: import . "fmt": names must show where they come from, and imports must not act by themselves`},
		{"side effect", map[string]string{"quant/a.go": `package quant; import _ "image/png"`}, imports(rooms), `quant/a.go: import _ "image/png": names must show where they come from, and imports must not act by themselves`},

		{"exp", map[string]string{"quant/a.go": "package quant\nimport \"math\"\nvar x = math.Exp(1)"}, sourcesOnly(archtest.CheckMath), "quant/a.go: math.Exp gives other bits on other CPUs; use basic operations or a stored table"},
		{"exp under another name", map[string]string{"quant/a.go": "package quant\nimport m \"math\"\nvar f = m.Tanh"}, sourcesOnly(archtest.CheckMath), "quant/a.go: math.Tanh gives other bits on other CPUs; use basic operations or a stored table"},
		{"exact functions", map[string]string{"quant/a.go": "package quant\nimport \"math\"\nvar x = math.Sqrt(math.MaxFloat32) // math.Exp in a comment"}, sourcesOnly(archtest.CheckMath), ""},
		{"exp in a test", map[string]string{"quant/a_test.go": "package quant\nimport \"math\"\nvar x = math.Exp(1)"}, sourcesOnly(archtest.CheckMath), ""},

		{"init", map[string]string{"quant/a.go": "package quant\nfunc init() {}"}, sourcesOnly(archtest.CheckInit), "quant/a.go: a package-level init function; wire it where it is used"},
		{"method init", map[string]string{"quant/a.go": "package quant\ntype t int\nfunc (t) init() {}"}, sourcesOnly(archtest.CheckInit), ""},

		{"interpreter with kernels", map[string]string{"export/onnx/eval/a.go": `package eval; import "` + m + `/internal/kernel"`}, sourcesOnly(archtest.CheckInterpreter), "export/onnx/eval/a.go: imports internal/kernel; the interpreter must not share code with what it judges"},
		{"interpreter's test with the engine", map[string]string{"export/onnx/eval/a_test.go": `package eval; import "` + m + `/infer"`}, sourcesOnly(archtest.CheckInterpreter), "export/onnx/eval/a_test.go: imports infer; the interpreter must not share code with what it judges"},
		{"interpreter and Freeze", map[string]string{"export/onnx/eval/a.go": "package eval // as model.Freeze does"}, sourcesOnly(archtest.CheckInterpreter), "export/onnx/eval/a.go: mentions model.Freeze"},
		{"another room and Freeze", map[string]string{"export/onnx/a.go": "package onnx // as model.Freeze does"}, sourcesOnly(archtest.CheckInterpreter), ""},

		{"command with math", map[string]string{"cmd/narrow/a.go": `package main; import "math"`}, sourcesOnly(archtest.CheckCommand), "cmd/narrow/a.go: imports math; mathematics belongs below the command line"},
		{"command without", map[string]string{"cmd/narrow/a.go": `package main; import "fmt"`}, sourcesOnly(archtest.CheckCommand), ""},

		{"engine on Gorgonia, two steps away", map[string]string{"infer/a.go": `package infer; import "` + m + `/layers"`, "layers/a.go": `package layers; import "gorgonia.org/tensor"`}, sourcesOnly(archtest.CheckWithoutGorgonia), "infer: reaches gorgonia.org/tensor"},
		{"engine's test on Gorgonia", map[string]string{"infer/a_test.go": `package infer; import "gorgonia.org/tensor"`}, sourcesOnly(archtest.CheckWithoutGorgonia), ""},
		{"float16 unused", map[string]string{
			"quant/a_test.go": `package quant; import "github.com/x448/float16"`, // in a test only
			"layers/a.go":     "package layers\nimport \"gorgonia.org/gorgonia\"\nimport \"gorgonia.org/tensor\"",
			"train/a.go":      `package train; import "github.com/schollz/progressbar/v3"`,
		}, sourcesOnly(archtest.CheckRequired), "github.com/x448/float16: no code in quant uses it"},
	}
	for _, r := range rows {
		if got := strings.Join(r.check(load(r.files)), "\n"); got != r.want {
			t.Errorf("%s: %q\nwant %q", r.name, got, r.want)
		}
	}

	sources, modules, tree := load(map[string]string{
		"quant/a.go": "// Package quant.\npackage quant", "quant/utils/a.go": "package utils", "model/a_test.go": "package model",
		"internal/asmgen/go.mod": "module x", "internal/asmgen/main.go": "not Go at all", "infer/testdata/a.go": "nor this",
		"internal/qtest/a.go": "// Package qtest.\npackage qtest", "go.mod": "module " + m,
	})
	if !slices.Equal(modules, []string{"internal/asmgen"}) {
		t.Errorf("modules %v", modules)
	}
	problems := archtest.CheckExistence(tree, rooms, sources, modules)
	for _, want := range []string{
		"model: the room has no code", "infer: the room has no code", "quant/utils: a package without a row in the table of rooms",
		"quant/utils: no package comment", `quant/utils: the name "utils" does not tell what the package gives`, "train: missing", "README.md: missing",
	} {
		if !slices.Contains(problems, want) {
			t.Errorf("existence does not report %q: %q", want, problems)
		}
	}
	for _, p := range problems {
		if strings.HasPrefix(p, "quant: ") || strings.HasPrefix(p, "go.mod") || strings.HasPrefix(p, "internal/qtest: ") {
			t.Errorf("existence reports %q", p)
		}
	}

	bad := append(slices.Clone(rooms[:2]),
		archtest.Room{Path: "quant", Level: 0, Public: true},
		archtest.Room{Path: "model", Level: 1, Public: true, Imports: []string{"infer", "nowhere"}},
		archtest.Room{Path: "infer", Level: 1, Public: true},
		archtest.Room{Path: "internal/x", Level: 1, Public: true})
	want := []string{
		"table: quant has two rows",
		"table: model (level 1) may not import infer: edges go to rooms of a lower level",
		"table: model (level 1) may not import nowhere: edges go to rooms of a lower level",
		"table: internal/x: public is true, which its path contradicts",
	}
	if got := archtest.CheckTable(bad); !slices.Equal(got, want) {
		t.Errorf("table: %q\nwant %q", got, want)
	}
}

func imports(rooms []archtest.Room) func([]archtest.Source, []string, fstest.MapFS) []string {
	return func(s []archtest.Source, _ []string, _ fstest.MapFS) []string { return archtest.CheckImports(rooms, s) }
}

func sourcesOnly(check func([]archtest.Source) []string) func([]archtest.Source, []string, fstest.MapFS) []string {
	return func(s []archtest.Source, _ []string, _ fstest.MapFS) []string { return check(s) }
}
