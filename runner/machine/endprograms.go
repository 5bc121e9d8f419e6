package machine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
)

// endLimit is how long a program may take to end when its job is over. It can sign off at another server
// in this time; its data is thrown away.
const endLimit = time.Second

// endPrograms sends the programs of machines their stop signals, all at once, and waits for their ends.
// It comes before the network that they share is removed. A program that does not catch its stop signal
// is left alone: the first process of a machine does not get such a signal.
func (s Store) endPrograms(ctx context.Context, ids []string) {
	var ending sync.WaitGroup
	for _, id := range ids {
		record, err := readRecord(s.dir(id))
		if err == nil && record.Program != nil && record.up() {
			ending.Go(func() {
				fault.Here("machine: about to ask its program to end")
				s.logf("%s: %s", Name(id), endProgram(ctx, record))
			})
		}
	}
	ending.Wait()
}

// endProgram asks one program to end. It returns a line about the result.
func endProgram(ctx context.Context, record Record) string {
	pidfd, err := unix.PidfdOpen(record.Leader.PID, 0)
	if err != nil || !record.Leader.Alive() { // checked after the opening, so pidfd is this process
		return "its program has ended"
	}
	defer unix.Close(pidfd)
	signal := unix.Signal(record.Program.StopSignal)
	if !catches(record.Leader.PID, signal) {
		return fmt.Sprintf("its program does not catch %s", unix.SignalName(signal))
	}
	if err := unix.PidfdSendSignal(pidfd, signal, nil, 0); err != nil {
		return fmt.Sprintf("send its program %s: %v", unix.SignalName(signal), err)
	}
	limit := time.Now().Add(endLimit)
	for left := endLimit; left > 0 && ctx.Err() == nil; left = time.Until(limit) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if n > 0 {
			return "its program ended when it was asked to"
		}
		if err != nil && err != unix.EINTR {
			return err.Error()
		}
	}
	return fmt.Sprintf("its program did not end within %s", endLimit)
}

// catches says whether a process has a handler for a signal: proc_pid_status(5).
func catches(pid int, signal unix.Signal) bool {
	if signal < 1 || signal > 64 {
		return false
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range bytes.Lines(status) {
		if mask, is := bytes.CutPrefix(line, []byte("SigCgt:")); is {
			caught, err := strconv.ParseUint(string(bytes.TrimSpace(mask)), 16, 64)
			return err == nil && caught&(1<<(signal-1)) != 0
		}
	}
	return false
}
