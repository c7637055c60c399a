package qtest

import (
	"testing"
	"unsafe"
)

func TestGuardReportsBothSides(t *testing.T) {
	for _, n := range []int{0, 1, 20} {
		for _, shift := range []int{0, 1, 7} {
			for _, at := range []int{-guardLen, -1, n, n + guardLen - 1} {
				g := Guarded[uint8](n, shift)
				g.full[g.lead+at] = 0
				if g.Check() == nil {
					t.Errorf("n=%d shift=%d: store at %d not seen", n, shift, at)
				}
			}
			g := Guarded[int32](n, shift)
			if a := uintptr(unsafe.Pointer(&g.full[g.lead])) % 64; a != uintptr(4*shift%64) {
				t.Errorf("n=%d shift=%d: data at %d modulo 64", n, shift, a)
			}
		}
	}
}
