package configs

import "go.yaml.in/yaml/v3"

// ScratchStart is the QAT.Start without float training.
const ScratchStart = "scratch"

// The grids of the model's input.
const (
	bytesInput = "bytes"
	actInput   = "act"
)

// onlyTrue is a switch that is written only where it is on.
type onlyTrue struct{ p *bool }

func (v onlyTrue) allowed() string { return boolean(v).allowed() }

func (v onlyTrue) decode(d *decoder, path string, n *yaml.Node) { boolean(v).decode(d, path, n) }

func (v onlyTrue) encode() *yaml.Node {
	if !*v.p {
		return nil
	}
	return boolean(v).encode()
}

// notZero is a number that is written only where it is set.
type notZero struct{ number }

func (v notZero) encode() *yaml.Node {
	if *v.p == 0 {
		return nil
	}
	return v.number.encode()
}
