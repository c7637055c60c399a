package kernel

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is the processor time of this process: unlike the clock it stands still while others have the processor.
func cpuTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
