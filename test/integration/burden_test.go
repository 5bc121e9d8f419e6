package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// daemons are those of the host that each job has to do with.
var daemons = []string{"init.scope", "dbus.service", "systemd-machined.service", "systemd-logind.service", "systemd-journald.service"}

// burden is what a host carries when no job runs: things of which each job may leave
// a little, until after thousands of jobs the host is ill.
type burden struct {
	// daemons by their units.
	daemons map[string]daemon
	// things are what there is one of or not: KIND: NAME.
	things []string
	// cursor is the last line of the journal.
	cursor string
}

// daemon is what a process holds. Its memory is what no file backs: journald maps
// its files, which grow.
type daemon struct{ pid, descriptors, memory int }

func (h *host) burden(t *testing.T) burden {
	t.Helper()
	b := burden{daemons: map[string]daemon{}}
	for _, unit := range daemons {
		d := daemon{pid: 1}
		if unit != "init.scope" {
			d.pid = number(t, shell(t, "systemctl show --property=MainPID --value "+unit))
		}
		of := fmt.Sprintf("/proc/%d/", d.pid)
		entries, err := os.ReadDir(of + "fd")
		must(t, err)
		d.descriptors = len(entries)
		d.memory = number(t, shell(t, "awk '/^RssAnon:/ {print $2}' "+of+"status")) << 10
		b.daemons[unit] = d
	}
	add := func(kind, command string) {
		for name := range strings.Lines(shell(t, command)) {
			b.things = append(b.things, kind+": "+strings.TrimSpace(name))
		}
	}
	shell(t, "journalctl --sync") // after the first of these there is one entry of /run more
	add("failed unit", "systemctl list-units --failed --plain --no-legend | cut -d' ' -f1")
	add("network interface", "ls /sys/class/net")
	add("namespace", "readlink /proc/[0-9]*/ns/{net,user,pid} | sort -u || true")
	// Loop devices are everybody's: labs share them. So only those with a file here.
	add("loop device", "for f in "+filepath.Dir(filepath.Dir(h.state))+"/*.img; do [ ! -e $f ] || losetup --noheadings --output NAME -j $f; done")
	// What udev notes is of everybody's devices, and the journal's files are bounded.
	add("entry of /run", "find /run \\( -path /run/log -o -path /run/udev \\) -prune -o -print")
	b.cursor = strings.TrimSpace(shell(t, "journalctl --lines=1 --output=cat --show-cursor | sed -n 's/^-- cursor: //p'"))
	return b
}

// journalled is how many lines the host's journal got since then.
func (b burden) journalled(t *testing.T) int {
	t.Helper()
	return number(t, shell(t, "journalctl --output=json --output-fields=_PID --after-cursor='"+b.cursor+"' | wc -l"))
}

// What jobs may cost the host, when none runs any more. A leak is known by that it
// grows with the number of jobs: each limit has a part that does, of less than what
// one leak in so many jobs would take, and one that does not, for what a daemon
// keeps of its busiest moment. (Seen after a thousand jobs: 2 descriptors more, 600 KiB,
// 16 lines a job. The descriptors are journald's, which opens a file for each user: a
// child of systemd-nspawn that finds its parent killed says so as its machine's root.)
const (
	descriptorsAtRest, jobsADescriptor = 8, 50
	memoryAtRest, memoryAJob           = 1 << 20, 1 << 10
	linesAJob                          = 40
)

// checkBurden looks at what a number of jobs added to the host's burden, and says
// what they cost.
func (h *host) checkBurden(t *testing.T, before burden, jobs int) (costs string) {
	t.Helper()
	lines := before.journalled(t) / jobs
	if lines > linesAJob {
		t.Errorf("%d lines of journal a job", lines)
	}
	after := h.burden(t)
	for deadline := time.Now().Add(30 * time.Second); len(after.heavier(before, jobs)) > 0 && time.Now().Before(deadline); after = h.burden(t) {
		time.Sleep(100 * time.Millisecond) // daemons tidy up after a while
	}
	for _, how := range after.heavier(before, jobs) {
		t.Error(how)
	}
	costs = fmt.Sprintf("%d lines of journal a job", lines)
	for _, unit := range daemons {
		was, is := before.daemons[unit], after.daemons[unit]
		costs += fmt.Sprintf("; %s %+d descriptors, %+d KiB", unit, is.descriptors-was.descriptors, (is.memory-was.memory)>>10)
	}
	return costs
}

// heavier says by what a burden is heavier than the one before a number of jobs, and
// should not be.
func (b burden) heavier(before burden, jobs int) (how []string) {
	for _, thing := range b.things {
		if !slices.Contains(before.things, thing) {
			how = append(how, "added to the host: "+thing)
		}
	}
	for _, unit := range daemons {
		was, is := before.daemons[unit], b.daemons[unit]
		switch {
		case is.pid != was.pid:
			how = append(how, fmt.Sprintf("%s died: it was process %d, and is %d", unit, was.pid, is.pid))
		case is.descriptors > was.descriptors+descriptorsAtRest+jobs/jobsADescriptor, is.memory > was.memory+memoryAtRest+jobs*memoryAJob:
			how = append(how, fmt.Sprintf("%s: %+v, before %+v", unit, is, was))
		}
	}
	return how
}

// number is what a command printed that prints one.
func number(t *testing.T, output string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(output))
	must(t, err)
	return n
}
