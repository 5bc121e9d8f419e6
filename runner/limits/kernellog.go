package limits

import (
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/host"
)

// kernelLog is the kernel's log, as it is in /dev/kmsg, from a moment on.
type kernelLog struct{ file *os.File }

// followKernelLog begins now. Where the log cannot be read, it stays empty.
func followKernelLog() kernelLog { return openKernelLog(unix.SEEK_END) }

func openKernelLog(from int) kernelLog {
	file, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return kernelLog{}
	}
	if _, err := unix.Seek(int(file.Fd()), 0, from); err != nil {
		file.Close()
		return kernelLog{}
	}
	return kernelLog{file}
}

// RanOut says whether a machine's control group, which may be gone, has reached its limit of
// memory since some uptime, so that the kernel killed something, as far as its log tells.
func RanOut(cgroup string, since time.Duration) bool {
	log := openKernelLog(unix.SEEK_SET)
	defer log.close()
	return ranOutIn(log.lines(), cgroup, since)
}

// ranOutIn looks for that in records of the log: "PRIORITY,NUMBER,MICROSECONDS,FLAGS;MESSAGE".
func ranOutIn(records []string, cgroup string, since time.Duration) bool {
	for _, record := range records {
		head, line, _ := strings.Cut(record, ";")
		line, _, _ = strings.Cut(line, "\n")
		m := killConstraint.FindStringSubmatch(line)
		if fields := strings.Split(head, ","); m == nil || m[1] != cgroup || len(fields) < 3 {
			continue
		} else if at, err := strconv.ParseInt(fields[2], 10, 64); err == nil && time.Duration(at)*time.Microsecond >= host.LogTime(since) {
			return true
		}
	}
	return false
}

func (l kernelLog) close() { _ = l.file.Close() } // also of no file

// lines reads what came since, and was not read yet.
func (l kernelLog) lines() (lines []string) {
	if l.file == nil {
		return nil
	}
	record := make([]byte, 8192) // one read is one record
	for {
		// Not through the file: its Read would wait for more.
		n, err := unix.Read(int(l.file.Fd()), record)
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EINTR) { // overwritten meanwhile
			continue
		}
		if err != nil || n == 0 {
			return lines
		}
		lines = append(lines, string(record[:n]))
	}
}

var (
	// killConstraint is the line of mm/oom_kill.c that names the control group. The first oom_memcg= counts: the
	// names behind it are the job's, which may make a control group called "x,oom_memcg=".
	killConstraint = regexp.MustCompile(`oom-kill:constraint=CONSTRAINT_MEMCG,.*?,oom_memcg=(.*?),task_memcg=.*?,task=(.*),pid=(\d+),uid=\d+`)
	// killSummary is the one behind it that says how big the process was.
	killSummary = regexp.MustCompile(`Killed process (\d+) \(.*\) total-vm:\d+kB, anon-rss:(\d+)kB`)
)

// killedIn finds the last process that was killed for the limit of a control
// group. The name of a process is the job's word: it may look like anything.
func killedIn(lines []string, cgroup string) (process string, used uint64) {
	pid := ""
	for _, line := range lines {
		line, _, _ = strings.Cut(line, "\n") // what follows is a device's
		if m := killConstraint.FindStringSubmatch(line); m != nil && m[1] == cgroup {
			process, pid, used = m[2], m[3], 0
		}
		if m := killSummary.FindStringSubmatch(line); m != nil && m[1] == pid {
			kilobytes, _ := strconv.ParseUint(m[2], 10, 64)
			used = kilobytes << 10
		}
	}
	return process, used
}

// tasksRefusedIn searches lines of the kernel's log for what kernel/cgroup/pids.c
// says of a control group, or one below it.
func tasksRefusedIn(lines []string, cgroup string) bool {
	for _, line := range lines {
		_, group, found := strings.Cut(line, "cgroup: fork rejected by pids controller in ")
		if group, _, _ = strings.Cut(group, "\n"); found && strings.HasPrefix(group+"/", cgroup+"/") {
			return true
		}
	}
	return false
}
