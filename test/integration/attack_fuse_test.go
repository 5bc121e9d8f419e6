package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// unkillable is a script that leaves a process on a FUSE file system which no signal ends.
func unkillable(t *testing.T) string {
	t.Helper()
	program, err := os.ReadFile(filepath.Join(os.Getenv("NSPAWN_RUNNER_TESTDATA"), "hang.py"))
	must(t, err)
	return fuse(t) + "cat > /root/hang.py <<'END'\n" + string(program) + "END\n" +
		"systemd-run -q --collect python3 /root/hang.py; while [ ! -e /run/hangs ]; do sleep 0.01; done\n"
}

// cgroup is the control group of a machine's service, below the root of all.
func cgroup(t *testing.T, id string) string {
	t.Helper()
	return "/sys/fs/cgroup" + strings.TrimSpace(shell(t, "systemctl show -P ControlGroup nspawn-runner-"+id+".service"))
}

func TestAttacksByProcessesThatCannotBeKilledAreHeld(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		if h.backend != "btrfs" { // whose limit needs quotas
			h.configure(t, "disk_max: 200M\n")
			t.Cleanup(func() { h.configure(t, "") })
		}
		if h.backend == "tmpfs" { // one host has not mounted fusectl
			shell(t, "umount /sys/fs/fuse/connections")
			t.Cleanup(func() { shell(t, "mount -t fusectl none /sys/fs/fuse/connections") })
		}
		h.addImage(t, "privileged", "")
		h.book(t, "privileged", "nspawn_runner_privileged: true")
		for _, image := range []string{"bookworm", "privileged"} {
			name := "leave a process that cannot be killed in a machine of image " + image
			id := newID()
			if c := h.drive(t, "prepare", "--allow-image=privileged", "--id", id, image); c.status != 0 {
				t.Fatalf("%+v", c)
			}
			if c := h.run(t, id, unkillable(t)); c.status != 0 {
				t.Fatalf("the machine could not try: %+v", c)
			}
			group := cgroup(t, id)
			resistsKill(t, group)
			start := time.Now()
			c := h.drive(t, "cleanup", "--id", id)
			took := time.Since(start)
			left, _ := exec.Command("grep", "-rl", "", group, "--include=cgroup.procs").Output()
			switch {
			case len(left) > 0 || h.loops(t) != "":
				gotThrough(t, name, fmt.Sprintf("%s%s after %v: %+v", left, h.loops(t), took, c))
			case c.status != 0 || c.stderr != "" || took > 30*time.Second:
				t.Errorf("%s: cleanup took %v: %+v", name, took, c)
			default:
				held(name)
			}
		}
	})
}

// resistsKill is the control: a signal ends all of the process but the thread that waits.
func resistsKill(t *testing.T, group string) {
	t.Helper()
	pid := strings.TrimSpace(shell(t, "grep -l hang.py $(find "+group+" -name cgroup.procs -exec cat {} + | sed 's,.*,/proc/&/cmdline,') | cut -d/ -f3"))
	shell(t, "kill -9 "+pid)
	await(t, "the process to be half dead", func() bool {
		states := shell(t, "sed -n 's/^State:.//p' /proc/"+pid+"/status /proc/"+pid+"/task/*/status")
		return strings.Contains(states, "Z (zombie)") && strings.Contains(states, "D (disk sleep)")
	})
}

// Not everything that cannot be killed is a job's own. Here a privileged machine hides the
// mount whose connection would have to be aborted.
func TestACleanupThatDoesNotGetEverythingSaysSoAndGCGoesOnWithIt(t *testing.T) {
	h := onHost(t, "overlay")
	h.addImage(t, "privileged", "")
	h.book(t, "privileged", "nspawn_runner_privileged: true")
	id := newID()
	h.drives(t, "prepare", "--allow-image=privileged", "--id", id, "privileged")
	shell(t, "mkdir -p /run/fusectl && mount -t fusectl none /run/fusectl")
	t.Cleanup(func() { shell(t, "umount /run/fusectl && rmdir /run/fusectl") })
	before := shell(t, "ls /run/fusectl")
	if c := h.run(t, id, unkillable(t)+"umount -l /root/fuse"); c.status != 0 {
		t.Fatalf("the machine could not try: %+v", c)
	}
	ours := strings.Fields(shell(t, "cd /run/fusectl && find . -maxdepth 1 -name '[0-9]*' -uid 0 -printf '%f\\n'"))
	ours = slices.DeleteFunc(ours, func(c string) bool { return slices.Contains(strings.Fields(before), c) })
	const says = "processes that cannot be killed: 1 ("
	c := h.drive(t, "cleanup", "--id", id)
	if c.status != 2 || !strings.Contains(c.stderr, says) || !strings.Contains(c.stderr, " python3)") {
		t.Errorf("cleanup: %+v", c)
	}
	for _, again := range [][]string{{"cleanup", "--id", id}, {"gc"}, {"prepare", "--allow-image=privileged", "--id", id, "privileged"}} {
		start := time.Now()
		if c := h.drive(t, again...); c.status == 0 || !strings.Contains(c.stderr, says) || time.Since(start) > 3*time.Second {
			t.Errorf("%v after %v: %+v", again, time.Since(start), c)
		}
	}
	// Others go on, and are not told what ran in that job.
	other := newID()
	c = h.drive(t, "prepare", "--id", other, "bookworm")
	if c.status != 0 || !strings.Contains(c.stderr, "warning: clean up after dead jobs") || strings.Contains(c.stderr, "python3") {
		t.Errorf("another job's prepare: %+v", c)
	}
	h.drives(t, "cleanup", "--id", other)
	if got := h.garbage(t); len(got) != 1 || got[0] != "machine its cleanup could not kill all of its processes" {
		t.Errorf("gc --dry-run: %q", got)
	}
	for _, c := range ours {
		shell(t, "echo 1 > /run/fusectl/"+c+"/abort")
	}
	await(t, "the process to end", func() bool {
		c := h.drive(t, "gc")
		return c.status == 0
	})
}

// What is cleaned up may never have been there, while systemd is slow to say so.
func TestACleanupOfNothingEndsNobodysFUSE(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	c := h.run(t, id, fuse(t)+"mkdir -p /fine; systemd-run -q --collect python3 /fuse.py /fine; while ! grep -q ' /fine fuse' /proc/mounts; do sleep 0.01; done; stat -c %n /fine/f")
	if c.stdout != "/fine/f\n" {
		t.Fatalf("%+v", c)
	}
	slow := "/run/systemd/system-generators/slow"
	shell(t, "mkdir -p $(dirname "+slow+") && printf '#!/bin/sh\\nsleep 1\\n' > "+slow+" && chmod 755 "+slow)
	t.Cleanup(func() { os.Remove(slow) })
	reload := exec.Command("systemctl", "daemon-reload")
	must(t, reload.Start())
	h.drives(t, "cleanup", "--id", newID())
	must(t, reload.Wait())
	if c := h.run(t, id, "stat -c %n /fine/f"); c.stdout != "/fine/f\n" {
		t.Errorf("%+v", c)
	}
}

// Whoever reads the command line of a process waits as long as it changes what it has
// mapped, and that takes as long as its file system does not answer. systemctl status has
// the host's service manager read it.
func TestAttacksOnTheHostsServiceManagerAreHeld(t *testing.T) {
	h := onHost(t, "overlay")
	id := newID()
	h.drives(t, "prepare", "--id", id, "bookworm")
	name := "hang the host's service manager for longer than the job lasts"
	c := h.run(t, id, fuse(t)+`mkdir /hangs && systemd-run -q --collect python3 /fuse.py /hangs WRITE
while [ ! -e /ready ]; do sleep 0.01; done
cat > /map.py <<'END'
import ctypes, os, threading, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
page = libc.mmap(None, 4096, 3, 1, os.open("/hangs/f", os.O_RDWR), 0)
ctypes.memset(page, 97, 8)
threading.Thread(target=libc.munmap, args=(page, 4096)).start()
while True: libc.mmap(None, 4096, 3, 0x22, -1, 0); time.sleep(0.01) # until it waits too
END
systemd-run -q --collect python3 /map.py`)
	if c.status != 0 {
		t.Fatalf("the machine could not try: %+v", c)
	}
	await(t, "the host's service manager to hang", func() bool {
		_ = exec.Command("timeout", "--signal=KILL", "1", "systemctl", "status", "nspawn-runner-"+id+".service").Run()
		return strings.Contains(shell(t, "cat /proc/1/status"), "D (disk sleep)")
	})
	start := time.Now()
	c = h.drive(t, "cleanup", "--id", id)
	if took := time.Since(start); c.status != 0 || c.stderr != "" || took > 10*time.Second {
		gotThrough(t, name, took, c)
	}
	shell(t, "timeout 10 systemctl is-active dbus.service")
	held(name)
}

// What a machine has opened it can hand to another one, over a socket in a directory that
// both write to. FUSE refuses others a look-up only.
func TestAttacksByHandingOnAFileSystemAreHeld(t *testing.T) {
	h := onHost(t, "overlay")
	top := filepath.Join(shared(t), "closed")
	must(t, os.MkdirAll(top+"/x", 0o755), os.Chmod(top, 0o700))
	h.addImage(t, "sharing", "")
	h.book(t, "sharing", "nspawn_runner_binds: ['"+top+"/x:/srv/rw:rw']")
	giver, taker := newID(), newID()
	for _, id := range []string{giver, taker} {
		h.drives(t, "prepare", "--allow-image=sharing", "--id", id, "sharing")
	}
	if c := h.run(t, taker, `cat > /take.py <<'END'
import os, socket, threading, time
listener = socket.socket(socket.AF_UNIX); listener.bind("/srv/rw/s"); listener.listen(1)
open("/listens", "w")
connection = listener.accept()[0]
fuse, file = socket.recv_fds(connection, 10, 2)[1]
connection.send(b"got it"); connection.close()
while not os.path.exists("/srv/rw/go"): time.sleep(0.01)
threading.Thread(target=os.close, args=(file,)).start()
try: os.read(fuse, 1 << 21)
except OSError: pass
open("/srv/rw/tried", "w")
threading.Event().wait()
END
systemd-run -q --collect python3 /take.py; while [ ! -e /listens ]; do sleep 0.01; done`); c.status != 0 {
		t.Fatalf("the machine could not try: %+v", c)
	}
	if c := h.run(t, giver, fuse(t)+`cat > /give.py <<'END'
import os, socket, sys
sys.path.insert(0, "/")
import fuse
os.mkdir("/hangs")
connection = fuse.connect("/hangs")
server = fuse.serve(connection)
file = os.open("/hangs/f", os.O_RDWR)
s = socket.socket(socket.AF_UNIX); s.connect("/srv/rw/s")
socket.send_fds(s, [b"x"], [connection, file]); s.recv(10)
os.close(file)
os.kill(server, 9)
END
python3 /give.py`); c.status != 0 {
		t.Fatalf("the machine could not try: %+v", c)
	}
	h.drives(t, "cleanup", "--id", giver)
	must(t, os.WriteFile(top+"/x/go", nil, 0o644))
	await(t, "the other to try", func() bool { return exists(top + "/x/tried") })
	name := "leave a process that cannot be killed by another machine's file system"
	start := time.Now()
	c := h.drive(t, "cleanup", "--id", taker)
	if took := time.Since(start); c.status != 0 || c.stderr != "" || took > 30*time.Second {
		gotThrough(t, name, took, c)
	}
	held(name)
}

func TestAMachineHasNoFUSEWhereNobodyWantsIt(t *testing.T) {
	h := onHost(t, "overlay")
	h.configure(t, "fuse: false\n")
	t.Cleanup(func() { h.configure(t, "") })
	h.addImage(t, "wants", "")
	h.book(t, "wants", "nspawn_runner_fuse: true")
	if c := h.run(t, h.prepared(t, "bookworm"), "ls /dev/fuse || mknod /root/fuse c 10 229"); !c.refused() {
		t.Errorf("%+v", c)
	}
	if c := h.drive(t, "prepare", "--id", newID(), "wants"); c.status != 1 || !strings.Contains(c.stderr, "image wants has /dev/fuse, and this runner does not allow that") {
		t.Errorf("%+v", c)
	}
	if c := h.run(t, h.prepared(t, "wants"), "head -c 0 /dev/fuse"); c.status != 0 {
		t.Errorf("%+v", c)
	}
}
