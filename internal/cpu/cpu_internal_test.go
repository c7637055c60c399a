package cpu

import (
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	tests := []struct {
		have     Tier
		override string
		want     Tier
		err      string
	}{
		{AVX512VNNI, "", AVX512VNNI, ""},
		{AVX512VNNI, "avx512vnni", AVX512VNNI, ""},
		{AVX512VNNI, "avx2", AVX2, ""},
		{AVX512VNNI, "generic", Generic, ""},
		{AVX2, "avx512vnni", AVX2, `tier "avx512vnni" is not available: this CPU has avx2 (allowed: generic, avx2)`},
		{Generic, "avx2", Generic, "this CPU has generic (allowed: generic)"},
		{AVX2, "AVX2", AVX2, `unknown instruction tier "AVX2" (allowed: generic, avx2, avx512vnni); this CPU has avx2`},
		{AVX2, "neon", AVX2, `unknown instruction tier "neon"`},
	}
	for _, tt := range tests {
		got, err := choose(tt.have, tt.override)
		if got != tt.want {
			t.Errorf("choose(%v, %q) = %v, want %v", tt.have, tt.override, got, tt.want)
		}
		switch {
		case tt.err == "" && err != nil:
			t.Errorf("choose(%v, %q): unexpected error %v", tt.have, tt.override, err)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("choose(%v, %q): error %v, want it to contain %q", tt.have, tt.override, err, tt.err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), EnvVar) {
			t.Errorf("choose(%v, %q): error %q does not name %s", tt.have, tt.override, err, EnvVar)
		}
	}
}

func TestDescribe(t *testing.T) {
	_, bad := choose(AVX2, "neon")
	tests := []struct {
		s    selection
		have Tier
		want string
	}{
		{selection{tier: AVX2}, AVX2, "avx2 (detected)"},
		{selection{tier: Generic}, AVX2, "generic (forced by NARROW_ISA; this CPU has avx2)"},
		{selection{tier: AVX2, err: bad}, AVX2, "avx2 (override ignored: "},
	}
	for _, tt := range tests {
		if got := tt.s.describe(tt.have); !strings.HasPrefix(got, tt.want) {
			t.Errorf("describe = %q, want prefix %q", got, tt.want)
		}
	}
}

func TestActiveFollowsDetect(t *testing.T) {
	want, err := Detect()
	if err != nil {
		t.Fatalf("the test environment forces a wrong tier: %v", err)
	}
	if Active() != want {
		t.Errorf("Active() = %v, Detect() = %v", Active(), want)
	}
	if Active() > Hardware() {
		t.Errorf("Active() = %v is above the hardware's %v", Active(), Hardware())
	}
	if !strings.HasPrefix(Describe(), want.String()) {
		t.Errorf("Describe() = %q does not begin with %q", Describe(), want)
	}
}
