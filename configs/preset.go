package configs

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

//go:embed *.yaml
var presetFiles embed.FS

// aliases are short names of presets.
func aliases() map[string]string { return map[string]string{"digits": "digits-mlp"} }

// Presets lists the names of the configurations inside the program, sorted.
func Presets() []string {
	entries, err := presetFiles.ReadDir(".")
	if err != nil {
		return nil // an embedded folder can always be read
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	slices.Sort(names)
	return names
}

// Preset is a configuration inside the program; "digits" is short for "digits-mlp".
func Preset(name string, set ...string) (*Config, error) {
	file := name
	if full, ok := aliases()[name]; ok {
		file = full
	}
	data, err := presetFiles.ReadFile(file + ".yaml")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		hint := ""
		if near := nearestPreset(name); near != "" {
			hint = fmt.Sprintf("; did you mean %q?", near)
		}
		return nil, &NotFoundError{Name: name, msg: fmt.Sprintf("no preset is called %q (allowed: %s)%s", name, strings.Join(Presets(), ", "), hint)}
	}
	if err != nil {
		return nil, fmt.Errorf("preset %q: %w", name, err)
	}
	return Parse(file+".yaml", data, set...)
}

// NotFoundError says that a name is neither a file nor a preset.
type NotFoundError struct {
	Name string
	msg  string
}

func (e *NotFoundError) Error() string { return e.msg }

func nearestPreset(name string) string {
	near := nearest(name, append(Presets(), "digits"))
	if near == "digits" {
		return aliases()[near]
	}
	return near
}

// Open reads what CONFIG means on the command line: a file if there is one of that name, else a preset. A name with a
// folder or an extension is always a file.
func Open(nameOrPath string, set ...string) (*Config, error) {
	info, err := os.Stat(nameOrPath)
	switch {
	case err == nil && !info.IsDir():
		return Load(nameOrPath, set...)
	case strings.ContainsAny(nameOrPath, `/\`) || strings.HasSuffix(nameOrPath, ".yaml") || strings.HasSuffix(nameOrPath, ".yml"):
		if err == nil {
			return nil, &NotFoundError{Name: nameOrPath, msg: fmt.Sprintf("config %q is a folder, a YAML file is needed", nameOrPath)}
		}
		return nil, &NotFoundError{Name: nameOrPath, msg: fmt.Sprintf("there is no config file %q; presets are named without folder and extension: %s", nameOrPath, strings.Join(Presets(), ", "))}
	}
	return Preset(nameOrPath, set...)
}
