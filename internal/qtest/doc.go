// Package qtest is what tests of numeric code share: golden vectors, buffers
// with guard values, and finite-difference gradient checks.
//
// The vectors in testdata/torch were made by a script of this project with
// PyTorch 1.13; the README beside them says how each operation was computed
// and with which tolerance to compare. A fresh clone holds those the kernels
// need; where NARROW_SHARED names a directory with conformance/torch, files
// missing here are read from there.
//
// Only tests import this package.
package qtest
