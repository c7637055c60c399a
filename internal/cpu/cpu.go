package cpu

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/cpu"
)

// EnvVar is the environment variable that forces a lower tier.
const EnvVar = "NARROW_ISA"

// Tier is an instruction tier. Tiers are ordered: a CPU that has one has all
// the lower ones.
type Tier uint8

const (
	// Generic is plain Go: every CPU.
	Generic Tier = iota
	// AVX2 is AVX2 with FMA (x86-64-v3).
	AVX2
	// AVX512VNNI is AVX-512 F, BW, DQ and VL with VNNI. CPUs with AVX-512 but
	// without VNNI stay on AVX2: they are the ones that lower their clock
	// under 512-bit loads.
	AVX512VNNI
)

// names holds the spelling of each tier, indexed by Tier.
var names = [...]string{Generic: "generic", AVX2: "avx2", AVX512VNNI: "avx512vnni"}

// String returns the tier's name as NARROW_ISA spells it.
func (t Tier) String() string {
	if int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("tier(%d)", uint8(t))
}

// Parse returns the tier called name.
func Parse(name string) (Tier, error) {
	for t, s := range names {
		if s == name {
			return Tier(t), nil
		}
	}
	return Generic, fmt.Errorf("unknown instruction tier %q (allowed: %s)", name, strings.Join(names[:], ", "))
}

// Hardware returns the highest tier this machine has, whatever NARROW_ISA says.
func Hardware() Tier {
	x := &cpu.X86
	switch {
	case !x.HasAVX2 || !x.HasFMA:
		return Generic
	case x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasAVX512VNNI:
		return AVX512VNNI
	default:
		return AVX2
	}
}

// Detect returns the tier to use: the hardware's, or the lower one NARROW_ISA
// names. It reads the environment at each call; programs call it once at the
// start and stop on its error.
func Detect() (Tier, error) {
	return choose(Hardware(), os.Getenv(EnvVar))
}

// choose applies the override, "" meaning none, to the hardware tier.
func choose(have Tier, override string) (Tier, error) {
	if override == "" {
		return have, nil
	}
	want, err := Parse(override)
	if err != nil {
		return have, fmt.Errorf("%s: %w; this CPU has %s", EnvVar, err, have)
	}
	if want > have {
		return have, fmt.Errorf("%s: tier %q is not available: this CPU has %s (allowed: %s)",
			EnvVar, want, have, strings.Join(names[:have+1], ", "))
	}
	return want, nil
}

// selection is what Detect said when the program started.
type selection struct {
	tier Tier
	err  error
}

// active is computed once, before main, and never written again.
var active = func() selection {
	t, err := Detect()
	return selection{t, err}
}()

// Active returns the tier the kernels of this process use. When NARROW_ISA is
// wrong it is the hardware's tier, and Detect and Describe carry the error.
func Active() Tier { return active.tier }

// Describe says in one line which tier is used and why, for `narrow version`.
func Describe() string {
	return active.describe(Hardware())
}

func (s selection) describe(have Tier) string {
	switch {
	case s.err != nil:
		return fmt.Sprintf("%s (override ignored: %v)", s.tier, s.err)
	case s.tier != have:
		return fmt.Sprintf("%s (forced by %s; this CPU has %s)", s.tier, EnvVar, have)
	default:
		return fmt.Sprintf("%s (detected)", s.tier)
	}
}
