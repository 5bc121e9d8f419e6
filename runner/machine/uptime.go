package machine

import (
	"time"

	"golang.org/x/sys/unix"
)

// uptime is how long this boot of the host lasts, suspensions left out: what systemd's
// RuntimeMaxSec= goes by, and what no step of the clock changes. Boards without a clock
// and machines before their first answer of a time server make steps of years.
func uptime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err) // no Linux is without it
	}
	return time.Duration(now.Nano())
}
