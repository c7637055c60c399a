package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/narrow-ml/narrow/internal/cpu"
)

// Host is what the numbers depend on besides the contestants.
type Host struct {
	CPU        string  `json:"cpu"`
	Cores      int     `json:"cores"`
	Tier       string  `json:"instruction_tier"`
	Kernel     string  `json:"kernel"`
	Go         string  `json:"go"`
	Blas       []blas  `json:"openblas"` // all settings that were tried, the used one first
	Rounds     int     `json:"rounds"`
	Seconds    float64 `json:"seconds"` // per contestant and round
	Pinned     string  `json:"pinned"`  // how workers were bound to cores
	LoadBefore string  `json:"load_before"`
	LoadAfter  string  `json:"load_after"`
}

func describeHost() Host {
	return Host{CPU: cpuModel(readFile("/proc/cpuinfo")), Cores: runtime.NumCPU(), Tier: cpu.Describe(),
		Kernel: readFile("/proc/sys/kernel/osrelease"), Go: runtime.Version(), LoadBefore: load()}
}

// readFile is a small file of the system, "unknown" where there is none.
func readFile(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}

// load is the load average over 1, 5 and 15 minutes.
func load() string {
	fields := strings.Fields(readFile("/proc/loadavg"))
	if len(fields) < 3 {
		return "unknown"
	}
	return strings.Join(fields[:3], " ")
}

// cpuModel is the first processor of /proc/cpuinfo, with the numbers that tell virtual machines' vague names apart.
func cpuModel(cpuinfo string) string {
	value := func(key string) string {
		for line := range strings.Lines(cpuinfo) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
				return strings.TrimSpace(v)
			}
		}
		return "unknown"
	}
	return fmt.Sprintf("%s, family %s model %s", value("model name"), value("cpu family"), value("model"))
}

func (h *Host) lines() []string {
	out := []string{
		fmt.Sprintf("CPU: %s, %d cores; Narrow's instruction tier: %s; Linux %s; %s", h.CPU, h.Cores, h.Tier, h.Kernel, h.Go),
		fmt.Sprintf("medians (smallest-largest) of %d rounds of %g s in which the contestants take turns; %s; load %s before, %s after",
			h.Rounds, h.Seconds, h.Pinned, h.LoadBefore, h.LoadAfter),
	}
	if len(h.Blas) > 0 {
		var tried []string
		for _, b := range h.Blas {
			setting := "unset"
			if b.Setting != "" {
				setting = b.Setting
			}
			tried = append(tried, fmt.Sprintf("%s %.0f (%s)", setting, b.GFLOPS, b.Core))
		}
		out = append(out, "OPENBLAS_CORETYPE for PyTorch, the fastest first and used; GFLOPS of a product of 512 (kernels): "+strings.Join(tried, ", "))
	}
	return out
}
