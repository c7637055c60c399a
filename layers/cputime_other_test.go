//go:build !linux

package layers_test

import "time"

var began = time.Now()

// cpuTime is the clock, where there is nothing better.
func cpuTime() time.Duration { return time.Since(began) }
