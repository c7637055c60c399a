package configs

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// Marshal writes the configuration with every setting that has an effect, defaults included. Parsing the result gives
// the same configuration, and the same configuration gives the same bytes.
func (c *Config) Marshal() ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(mapping(c.fields())); err != nil {
		return nil, fmt.Errorf("config %q: %w", c.Name, err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("config %q: %w", c.Name, err)
	}
	return b.Bytes(), nil
}
