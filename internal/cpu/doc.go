// Package cpu names the instruction tiers Narrow has kernels for and picks one.
//
// A tier is a bundle of x86 features, not a CPU model: every kernel exists in
// each tier up to the one it was written for, and integer kernels give the
// same bits in all of them. Float GEMM results agree within one tier only,
// because the fused multiply-adds of the vector tiers round once where the
// generic loops round twice; run folders therefore record the tier.
//
// The variable NARROW_ISA forces a lower tier (for tests, and to reproduce a
// run made on an older machine). Forcing a higher one is an error.
package cpu
