package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/narrow-ml/narrow/internal/cpu"
)

// versionInfo is what version prints.
type versionInfo struct {
	Version   string   `json:"version"`
	Commit    string   `json:"commit,omitempty"`
	GoVersion string   `json:"go_version"`
	Platform  string   `json:"platform"`
	CPUs      int      `json:"cpus"`
	Tier      string   `json:"instruction_tier"`
	TierWhy   string   `json:"instruction_tier_reason"`
	Fallbacks []string `json:"fallbacks"`
}

func (a *app) versionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Version, instruction tier, and what this machine has to do without",
		Args:  arguments(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			v := currentVersion()
			if asJSON {
				return a.writeJSON(v)
			}
			fmt.Fprintf(a.stdout, "narrow %s", v.Version)
			if v.Commit != "" {
				fmt.Fprintf(a.stdout, " (%s)", v.Commit)
			}
			fmt.Fprintf(a.stdout, "\n%s %s, %d CPUs\ninstruction tier: %s\n", v.GoVersion, v.Platform, v.CPUs, v.TierWhy)
			for _, f := range v.Fallbacks {
				fmt.Fprintf(a.stdout, "fallback: %s\n", f)
			}
			if len(v.Fallbacks) == 0 {
				fmt.Fprintln(a.stdout, "fallbacks: none")
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

func currentVersion() versionInfo {
	v := versionInfo{
		Version: "(devel)", GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(),
		Tier: cpu.Active().String(), TierWhy: cpu.Describe(), Fallbacks: []string{},
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" {
			v.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	switch cpu.Active() {
	case cpu.Generic:
		v.Fallbacks = append(v.Fallbacks, "kernels in plain Go: no AVX2 is used; results are the same for integers, slower")
	case cpu.AVX2:
		v.Fallbacks = append(v.Fallbacks, "integer kernels without VNNI: AVX2 is used")
	}
	return v
}
