package host

import (
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// BootID is the kernel's id of this boot, random(4): whatever was noted with another one
// is from before a reboot. It is "" where there is no proc.
var BootID = sync.OnceValue(func() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
})

// Uptime is how long this boot of the host lasts, suspensions left out: what systemd's
// RuntimeMaxSec= goes by, and what no step of the clock changes. Boards without a clock
// and machines before their first answer of a time server make steps of years.
func Uptime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err) // no Linux is without it
	}
	return time.Duration(now.Nano())
}

// LogTime returns the earliest time that the kernel's log gives for what happens at some uptime. Time
// servers correct the uptime, by at most 500 millionths (adjtimex(2)), and not the log's clock: after
// a month, a minute may lie between them.
func LogTime(uptime time.Duration) time.Duration { return uptime - time.Second - uptime/2000 }

// RunsSystemd says whether systemd runs this host: sd_booted(3).
func RunsSystemd() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}
