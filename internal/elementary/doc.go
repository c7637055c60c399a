// Package elementary has the elementary functions as own polynomials. math.Exp and its kin use fused multiply-adds where
// the CPU has them, so their last bits differ between machines; here every product and every sum rounds on its own, and the
// bits are the same everywhere. Accuracy is a few units in the last place of float64 (tests compare with package math), far
// below what float32 keeps.
package elementary
