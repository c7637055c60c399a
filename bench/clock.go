//go:build unix

package main

import (
	"fmt"
	"syscall"
	"time"
)

// cpuTime is what this process has used, in user and kernel mode, over all its threads.
func cpuTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("CPU time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
