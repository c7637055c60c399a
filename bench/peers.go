package main

import (
	"context"
	_ "embed" // the scripts below
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed torch_worker.py
var torchScript string

//go:embed ort_quantize.py
var ortQuantizeScript string

// How to install the peers.
const (
	torchInstall    = "apt-get install python3-torch python3-numpy libopenblas0-pthread"
	ortInstall      = "npm install --ignore-scripts onnxruntime-node@1.30.0; then --ort FOLDER-WITH-node_modules, or NARROW_ORT"
	ortToolsInstall = "python3 -m venv ort-tools && ort-tools/bin/pip install onnxruntime onnx sympy; then --ort-python ort-tools/bin/python"
)

// findORT looks for libonnxruntime: the flag, a file or a folder, or NARROW_ORT, or node_modules here and above.
// "" if there is none.
func findORT(flag string) string {
	const inside = "node_modules/onnxruntime-node/bin/napi-v6/linux/x64/libonnxruntime.so.1"
	isFile := func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && info.Mode().IsRegular()
	}
	places := []string{flag, os.Getenv("NARROW_ORT"), ".", ".."}
	if flag != "" {
		places = places[:1] // what was asked for, or nothing
	}
	for _, place := range places {
		if place == "" {
			continue
		}
		for _, path := range []string{place, filepath.Join(place, inside)} {
			if isFile(path) {
				if full, err := filepath.Abs(path); err == nil {
					return full
				}
			}
		}
	}
	return ""
}

// blas is what OpenBLAS does on this CPU.
type blas struct {
	Setting string  `json:"setting"` // of OPENBLAS_CORETYPE, "" is none
	Library string  `json:"library"`
	Core    string  `json:"core"` // what OpenBLAS took the CPU for
	GFLOPS  float64 `json:"gflops"`
}

// tuning are the variables of an environment that change how fast the libraries of a peer run. Workers get them from the
// driver alone: a forgotten OPENBLAS_CORETYPE=Haswell halves PyTorch on a CPU with AVX-512.
func tuning(environ []string) (rest, dropped []string) {
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		known := name == "GOMAXPROCS"
		for _, prefix := range []string{"OPENBLAS_", "GOTO_", "OMP_", "GOMP_", "KMP_", "MKL_", "ONEDNN_", "DNNL_", "ATEN_"} {
			known = known || strings.HasPrefix(name, prefix)
		}
		if known {
			dropped = append(dropped, v)
		} else {
			rest = append(rest, v)
		}
	}
	slices.Sort(dropped)
	return rest, dropped
}

// workerEnv is this process's environment without tuning, and with what is given.
func workerEnv(set ...string) []string {
	rest, _ := tuning(os.Environ())
	return append(rest, set...)
}

// probeBLAS tries the settings of OPENBLAS_CORETYPE and returns the results, the fastest first. Old versions of OpenBLAS
// do not know new CPUs and fall back to slow kernels; the peer is to run on the best it has.
func probeBLAS(ctx context.Context, python, script string) ([]blas, error) {
	settings := []string{"", "SkylakeX", "Cooperlake", "Zen", "Haswell"}
	var out []blas
	for _, setting := range settings {
		cmd := exec.CommandContext(ctx, python, script, "--blas")
		cmd.Env = workerEnv("OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1")
		if setting != "" {
			cmd.Env = append(cmd.Env, "OPENBLAS_CORETYPE="+setting)
		}
		var stderr strings.Builder
		cmd.Stderr = &stderr
		text, err := cmd.Output()
		if err != nil {
			if setting != "" && len(out) > 0 && ctx.Err() == nil {
				continue // kernels for instructions that this CPU lacks
			}
			return nil, &Missing{Reason: fmt.Sprintf("%s: %v: %s", python, err, lastLine(stderr.String())), Install: torchInstall}
		}
		word, rest, _ := strings.Cut(lastLine(string(text)), " ")
		if word != "blas" {
			_, err := parseReady(lastLine(string(text)))
			return nil, err
		}
		b := blas{Setting: setting}
		if err := json.Unmarshal([]byte(rest), &b); err != nil {
			return nil, fmt.Errorf("%s --blas: %w", script, err)
		}
		at := len(out)
		for at > 0 && out[at-1].GFLOPS < b.GFLOPS {
			at--
		}
		out = append(out[:at], append([]blas{b}, out[at:]...)...)
	}
	return out, nil
}
