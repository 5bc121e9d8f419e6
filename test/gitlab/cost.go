package gitlab

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// measure is how a process ended and what it cost, by the kernel's account.
func measure(state *os.ProcessState, sampledPeak int64) StageResult {
	status := state.Sys().(syscall.WaitStatus)
	usage := state.SysUsage().(*syscall.Rusage)
	result := StageResult{
		Pid:        state.Pid(),
		ExitStatus: status.ExitStatus(), // -1 when a signal ended it
		User:       state.UserTime(),
		System:     state.SystemTime(),
		PeakRSS:    sampledPeak,
	}
	if status.Signaled() {
		result.Signal = status.Signal()
	}
	// The kernel's own peak counts from fork on, when the process still was a
	// copy of this one: it is the driver's only if it is above ours. For one
	// that ended before anybody looked it is at least an upper bound.
	if peak := usage.Maxrss * 1024; sampledPeak == 0 || peak > peakRSS(os.Getpid()) {
		result.PeakRSS = peak
	}
	return result
}

// watchPeakRSS follows the peak of a process that has just been started. The
// returned function ends that and returns the last value seen.
func watchPeakRSS(pid int) func() int64 {
	// Growth between the last look and the end goes unseen, which matters only
	// to processes smaller than the simulator (see measure): no more than the
	// last tenth of a short life, or the last 20 ms of a long one.
	const shortest, longest = 200 * time.Microsecond, 20 * time.Millisecond
	start, peak := time.Now(), peakRSS(pid)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			pause := min(max(time.Since(start)/10, shortest), longest)
			select {
			case <-stop:
				return
			case <-time.After(pause):
				peak = max(peak, peakRSS(pid))
			}
		}
	}()
	return func() int64 {
		close(stop)
		<-stopped
		return peak
	}
}

// peakRSS is the high water mark of a living process, in bytes; 0 when it has
// ended.
func peakRSS(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(status, []byte("\nVmHWM:"))
	line, _, _ := bytes.Cut(rest, []byte(" kB"))
	kilobytes, _ := strconv.ParseInt(string(bytes.TrimSpace(line)), 10, 64)
	return kilobytes * 1024
}
