package configs

import (
	"fmt"
	"os"
)

// Load reads a configuration file. Each assignment is "path=value", as of --set. Problems in the configuration are an
// [*Errors].
func Load(file string, set ...string) (*Config, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return Parse(file, data, set...)
}

// Parse reads a configuration from memory. name stands for the file in messages and, without its extension, for the
// experiment's name if the document gives none.
func Parse(name string, data []byte, set ...string) (*Config, error) {
	c, d, err := parse(name, data, set)
	if err != nil {
		return nil, err
	}
	d.variants(c)
	if err := d.failure(); err != nil {
		return nil, err
	}
	return c, nil
}

// parse is Parse without a look into the variants.
func parse(name string, data []byte, set []string) (*Config, *decoder, error) {
	src := newSource(name, data, set)
	root, problem := src.parse()
	if problem != nil {
		return nil, nil, &Errors{Problems: []Problem{*problem}}
	}
	d := newDecoder(src)
	for _, s := range set {
		d.assign(root, s)
	}
	c := newConfig()
	d.section("", nil, root, c)
	d.finish(c)
	if err := d.failure(); err != nil {
		return nil, nil, err
	}
	c.src = src
	return c, d, nil
}

// failure is what was found so far, or nil.
func (d *decoder) failure() error {
	if len(d.problems) == 0 {
		return nil
	}
	e := &Errors{Problems: d.problems}
	e.sort()
	return e
}

// Set changes settings as --set does: each assignment is "path=value" with a YAML value. The configuration is read anew
// with them, so defaults that depend on a changed setting follow it. On error c is as before.
//
// A path is keys joined by dots with list positions in brackets, "train.lr" or "quant.rules[0].weight.range". A layer is
// named by its position and kind, "model[2].conv.filters", or by the name it was given, "model.c1.filters".
func (c *Config) Set(assignments ...string) error {
	if c.src == nil {
		return fmt.Errorf("config %q was not read from YAML: change its fields", c.Name)
	}
	sets := append(append([]string(nil), c.src.sets...), assignments...)
	next, err := Parse(c.src.name, c.src.data, sets...)
	if err != nil {
		return err
	}
	*c = *next
	return nil
}
