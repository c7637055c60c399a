// Command narrow trains, quantizes, compares, exports and verifies networks described by one YAML file.
//
//	narrow compare digits          # what every bit-width costs, on data inside the program
//	narrow help
//
// Results go to stdout (with --json as one JSON document), logs and progress to stderr. Exit codes: 0 good, 1 failed,
// 2 wrong usage or config, 130 interrupted.
//
// This package holds flags, signals, logging and tables; it computes nothing. Flags and usage texts are
// github.com/spf13/cobra's: it gives every command its help, checks flags before anything runs, names the nearest command
// for a misspelt one, writes shell completion, and is what Go users know from kubectl and gh. (docs/architecture.md)
package main
