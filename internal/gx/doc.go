// Package gx is the border to Gorgonia: every contract of the host that bites is kept in one place, so that the ops of
// Narrow are plain kernels over values.
//
// A [Kernel] computes one output value from its inputs; [Apply] makes it a node of an ExprGraph. What Apply adds:
//
//   - identity: Gorgonia merges nodes whose 32-bit hashes agree, and its own ops leave parameters out of theirs (SoftMax
//     and LogSoftMax of one input are one node). Every kernel gets the number of its node as part of its hash;
//     [CheckHashes] reports what still collides, built-in ops included.
//   - memory: an op owns the value it returns and returns the same one at every run. It never asks for a preallocated
//     value, and never overwrites an input (ReturnsPtr false, CallsExtern false, OverwritesInput -1).
//   - panics: Apply's ops turn theirs into errors that name the op.
//   - gradients: a kernel that is [Differentiable] builds its own gradient nodes. [Side] hands out further results of
//     one backward kernel as nodes of their own.
//
// [Machine] is the tape machine with Reset after every run (without it the second run does nothing), and with panics of
// its construction and of built-in ops as errors: it runs the machine's loop in the calling goroutine, where RunAll starts
// another one, in which a panic ends the process and which costs two changes of thread. Only the tape machine is supported: Gorgonia's LispMachine needs ops that differentiate
// themselves while running, and refuses ours.
//
// Gradients are read from the nodes that [Grad] returns, without BindDualValues: that option adds every run's gradient
// to the last one's, which suits Gorgonia's solvers, and not ours.
package gx
