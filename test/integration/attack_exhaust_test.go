package integration

import (
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A job may use up what there is of something, within its limits: the host and the
// jobs beside it go on, and its machine goes away. All of these do so at once, until
// they are stopped; only a kernel of its own has the limits.
func TestAttacksByExhaustionAreHeldInAVM(t *testing.T) {
	needVM(t)
	h := onHost(t, "overlay")
	h.configure(t, "memory_max: 250M\ntasks_max: 1000\ndisk_max: 200M\n")
	t.Cleanup(func() { h.configure(t, "") })
	python := func(text string) string { return "python3 -c '\n" + exhausting + text + "\ntime.sleep(10000)'" }
	bystander := h.prepared(t, "bookworm")
	var wait sync.WaitGroup
	for name, text := range map[string]string{
		"fork without end":              forkBomb,
		"keep all processors":           `for i in 1 2 3 4 5 6 7 8; do while :; do :; done & done` + forever,
		"take memory, also as files":    memoryHog,
		"fill the disk and the journal": `for i in 1 2 3; do head -c 10G /dev/zero > /root/$i & yes "$(head -c 1000 /dev/zero | tr '\0' x)" | systemd-cat & done` + forever,
		"open files, pipes and watches": python(`
for n in range(50):
    fork(lambda: [os.pipe() for n in range(1 << 20)])
    fork(lambda: [libc.inotify_init() for n in range(1 << 20)])`),
		"make control groups, namespaces, mounts and keys": python(`
fork(lambda: [os.mkdir("/sys/fs/cgroup/x%d" % n) for n in range(20000)])
fork(lambda: [libc.mount(b"/usr", b"/mnt", None, 4096, None) for n in range(200000)])
fork(lambda: [libc.syscall(248, b"user", b"x%d" % n, b"x" * 10000, 10000, -4) for n in range(200000)])
for n in range(500): fork(lambda: libc.unshare(0x7e020000))`),
	} {
		wait.Go(func() {
			if !h.exhaust(t, name, text, func() call { return h.run(t, bystander, "mkdir /root/$$ && seq 1000 | sort | wc -l") }) {
				t.Errorf("%s: the machine did not try", name)
			}
		})
	}
	wait.Wait()
}

const (
	forever  = "; wait; sleep 10000"
	forkBomb = `f() { f | f & }; f` + forever
	// memoryHog takes memory by itself and as files.
	memoryHog = `for i in 1 2 3; do python3 -c 'x = []; [x.append(bytearray(b"x") * (1 << 20)) for n in range(1 << 20)]' & done
		mount -t tmpfs -o size=100G none /mnt; for f in /dev/shm/x /run/x /mnt/x; do head -c 10G /dev/zero > $f & done` + forever
)

// The limits that a machine has where nobody sets any are together more than there is.
// What several jobs leave to other jobs is one thing, the host itself goes on.
func TestAttacksByExhaustionTogetherAreHeldInAVM(t *testing.T) {
	needVM(t)
	h := onHost(t, "overlay")
	host := func() call {
		out, err := exec.Command("sh", "-c", "mkdir /run/$$ && rmdir /run/$$ && seq 1000 | sort | wc -l").CombinedOutput()
		return call{stdout: string(out), stderr: fmt.Sprint(err)}
	}
	var wait sync.WaitGroup
	var tried atomic.Int32
	for i, text := range []string{memoryHog, memoryHog, memoryHog, forkBomb, forkBomb} {
		wait.Go(func() {
			if h.exhaust(t, fmt.Sprintf("take more than all may, job %d of 5", i+1), text, host) {
				tried.Add(1)
			}
		})
	}
	wait.Wait()
	if tried.Load() < 2 { // the others may find nothing left
		t.Errorf("%d machines tried, so this shows nothing", tried.Load())
	}
	name := "have processes of the host killed for memory"
	if log := shell(t, "journalctl --sync && { journalctl --dmesg --output=cat | grep -E 'oom-kill:constraint=CONSTRAINT_NONE|Out of memory: ' || true; }"); log != "" {
		gotThrough(t, name, log)
	}
	held(name)
}

// exhausting is what the scripts in Python begin with: fork leaves a process that did
// something, and keeps what that gave it.
const exhausting = `
import ctypes, os, resource, time
libc = ctypes.CDLL(None)
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
def fork(do):
    if os.fork() == 0:
        try: kept = do()
        except OSError: pass
        time.sleep(10000)
`

// exhaust executes a script in a machine of its own, for a while, and looks how others
// fare meanwhile, who print 1000. It says whether the script began.
func (h *host) exhaust(t *testing.T, name, text string, others func() call) (tried bool) {
	id := newID()
	if c := h.drive(t, "prepare", "--id", id, "bookworm"); c.status != 0 {
		t.Errorf("%s: %s", name, c.stderr)
		return false
	}
	var attack call
	attacked := make(chan struct{})
	go func() { defer close(attacked); attack = h.runUntilCancelled(t, id, "echo tries; "+text, patience) }()
	const limit = 2 * time.Minute
	took := func(do func()) time.Duration { start := time.Now(); do(); return time.Since(start) }
	var beside, cleanup call
	besideTook := time.Duration(0)
	for over := false; !over; {
		// All the while, the last time at the attack's end.
		select {
		case <-attacked:
			over = true
		default:
		}
		took := took(func() { beside = others() })
		if besideTook = max(besideTook, took); beside.stdout != "1000\n" {
			break
		}
	}
	<-attacked
	tried = strings.HasPrefix(attack.stdout, "tries\n")
	cleanupTook := took(func() { cleanup = h.drive(t, "cleanup", "--id", id) })
	switch {
	case attack.code == "126" || attack.code == "127":
		t.Errorf("%s: the machine could not try: %+v", name, attack)
	case beside.stdout != "1000\n" || besideTook > limit:
		t.Errorf("got through: %s: beside it after %v: %+v", name, besideTook, beside)
	case cleanup.status != 0 || cleanup.stderr != "" || cleanupTook > limit:
		t.Errorf("got through: %s: cleanup after %v: %+v", name, cleanupTook, cleanup)
	case tried:
		held(name)
		t.Logf("%s: exit %d, beside it %v, cleanup %v", name, attack.status, besideTook, cleanupTook)
	}
	return tried
}
