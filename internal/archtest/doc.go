// Package archtest holds the rules on how the project is built, and the tests that enforce them: which rooms exist, which
// of them may import which, which third-party libraries serve where, and what no source file may contain.
//
// The table of rooms is in rooms.go; docs/architecture.md shows the same table and is checked against it:
//
//	go test ./internal/archtest -update    writes the document's table anew
//
// A new edge between rooms is a decision: change rooms.go and docs/architecture.md in the same commit, and say why.
package archtest
