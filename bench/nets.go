package main

import (
	"fmt"
	"slices"
	"strings"
)

// net is one network that all contestants know. PyTorch's twins are in torch_worker.py, under the same names.
type net struct {
	Name   string
	Config string   // preset, or file, for Narrow
	Shape  [3]int   // H, W, C
	Data   []string // data sets of that shape, the first on this machine is used
}

// nets are all networks of the bench. A preset that this version of Narrow does not have is reported as missing.
func nets() []net {
	small := []string{"fashion-mnist", "mnist"}
	return []net{
		{"mlp", "mnist-mlp", [3]int{28, 28, 1}, small},
		{"cnn", "fashion-cnn", [3]int{28, 28, 1}, small},
		{"mbnet", "fashion-mbnet", [3]int{28, 28, 1}, small},
		{"resnet8", "cifar-resnet8", [3]int{32, 32, 3}, []string{"cifar10", "cifar-10"}},
	}
}

// chooseNets reads --nets, and --config NET=FILE, which replaces a net's preset.
func chooseNets(names []string, configs []string) ([]net, error) {
	all := nets()
	index := func(name string) (int, error) {
		i := slices.IndexFunc(all, func(n net) bool { return n.Name == name })
		if i < 0 {
			var known []string
			for _, n := range all {
				known = append(known, n.Name)
			}
			return 0, fmt.Errorf("unknown net %q (allowed: %s)", name, strings.Join(known, ", "))
		}
		return i, nil
	}
	for _, c := range configs {
		name, file, ok := strings.Cut(c, "=")
		if !ok || file == "" {
			return nil, fmt.Errorf("--config %q: want NET=FILE", c)
		}
		i, err := index(name)
		if err != nil {
			return nil, fmt.Errorf("--config: %w", err)
		}
		all[i].Config = file
	}
	var out []net
	for _, name := range names {
		i, err := index(name)
		if err != nil {
			return nil, fmt.Errorf("--nets: %w", err)
		}
		out = append(out, all[i])
	}
	return out, nil
}
