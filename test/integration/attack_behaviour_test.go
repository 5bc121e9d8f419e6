package integration

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What root does to its own machine must not hang a stage, make a sub-stage that
// was not executed look executed, or keep the machine from going away. Powering
// off, rebooting, ignoring SIGTERM and losing D-Bus are tried in bad_test.go,
// stop_test.go and bus_test.go.
func TestAttacksOnItsOwnMachineDoNotHangAJob(t *testing.T) {
	h := onHost(t, "overlay")
	allowManyMachines(t)
	// In a unit of its own, so that the sub-stage ends well.
	later := func(text string) string {
		return "systemd-run -q --collect bash -c 'sleep 0.3; " + text + "'; sleep 1"
	}
	var wait sync.WaitGroup
	for name, text := range map[string]string{
		"freeze its service manager":       later("echo 1 > /sys/fs/cgroup/init.scope/cgroup.freeze"),
		"freeze its bus":                   later("echo 1 > /sys/fs/cgroup/system.slice/dbus.service/cgroup.freeze"),
		"freeze its own script":            "echo 1 > /sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)/cgroup.freeze",
		"stop all processes":               later("kill -STOP -1"),
		"kill all processes":               later("kill -KILL -1"),
		"fork without end":                 later("for i in $(seq 300); do setsid sleep 10000 & done; trap \"\" TERM; wait"),
		"mask all units":                   "for u in /usr/lib/systemd/system/*; do ln -sf /dev/null /etc/systemd/system/${u##*/}; done; systemctl daemon-reload",
		"stop all units":                   later("systemctl isolate rescue.target"),
		"detach daemons":                   "for i in $(seq 20); do setsid nohup sleep 10000 >/dev/null 2>&1 & systemd-run -q --collect sleep 10000; done",
		"replace bash by a sleeper":        "printf '#!/bin/sh\\nexec sleep 10\\n' > /b; chmod 755 /b; mv /b /usr/bin/bash",
		"replace git and gitlab-runner":    "printf '#!/bin/sh\\nexec sleep 10000\\n' > /s; chmod 755 /s; umount -l /usr/local/bin/gitlab-runner 2>/dev/null; for p in /usr/bin/git /usr/local/sbin/gitlab-runner /usr/local/bin/gitlab-runner; do cp --remove-destination /s $p; done; true",
		"replace bash by a directory":      "rm /usr/bin/bash; mkdir /usr/bin/bash",
		"remove all programs":              "rm -rf /usr/bin /usr/sbin /usr/lib 2>/dev/null; true",
		"make /etc/machine-id a fifo":      "umount -l /etc/machine-id 2>/dev/null; rm -f /etc/machine-id; mkfifo /etc/machine-id; rm -f /etc/passwd; mkfifo /etc/passwd",
		"fill /run with traps":             "rm -rf /run/dbus; mkdir -p /run/dbus; mkfifo /run/dbus/system_bus_socket; ln -sfn /proc/1/root /run/user; mount -t tmpfs none /run",
		"fill /dev with traps":             "for f in null zero full random urandom ptmx; do umount -l /dev/$f; rm -f /dev/$f; mkfifo /dev/$f; done 2>/dev/null; true",
		"mount over its root":              "mount -t tmpfs none /mnt; mount --move /mnt / 2>/dev/null; mount -t tmpfs none /usr; true",
		"unmount all it can":               "umount -l -a 2>/dev/null; umount -l /proc /sys /run /dev 2>/dev/null; true",
		"take a name like those of stages": "systemd-run -q --collect --unit=nspawn-runner-script-aaaaaaaaaa -p TimeoutStopSec=600 bash -c 'trap \"\" TERM; while :; do sleep 1; done'",
	} {
		wait.Go(func() { h.misbehave(t, name, text) })
	}
	wait.Wait()
}

// cancelAfter is how long a script goes on before it is cancelled.
const cancelAfter = 10 * time.Second

// runUntilCancelled is run of a script that is cancelled if it takes too long, as by
// a job's timeout: one that stops its own service manager has no end otherwise. Its time
// begins when it says something, or is over if it has said nothing within some time.
func (h *host) runUntilCancelled(t *testing.T, id, text string, within time.Duration) call {
	cmd := exec.CommandContext(t.Context(), h.driver, "--config", h.config, "run", "--id", id, script(t, text), "build_script")
	code := filepath.Join(t.TempDir(), "code")
	cmd.Env = append(os.Environ(), "BUILD_FAILURE_EXIT_CODE=1", "SYSTEM_FAILURE_EXIT_CODE=2", "BUILD_EXIT_CODE_FILE="+code)
	var stdout, stderr bytes.Buffer
	cmd.Stderr = &stderr
	pipe, err := cmd.StdoutPipe()
	if err = errors.Join(err, cmd.Start()); err != nil {
		t.Error(err)
		return call{}
	}
	timeout := time.AfterFunc(within, func() { cmd.Process.Signal(syscall.SIGTERM) })
	defer timeout.Stop()
	said := bufio.NewReader(pipe)
	if _, err := said.Peek(1); err == nil {
		timeout.Reset(cancelAfter)
	}
	_, _ = io.Copy(&stdout, said)
	cmd.Wait()
	data, _ := os.ReadFile(code)
	return call{status: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String(), code: string(data)}
}

// misbehave executes a script in a machine of its own, then another, and cleans up.
func (h *host) misbehave(t *testing.T, name, text string) {
	id := newID()
	if c := h.drive(t, "prepare", "--id", id, "bookworm"); c.status != 0 {
		t.Errorf("%s: %s", name, c.stderr)
		return
	}
	start := time.Now()
	first := h.runUntilCancelled(t, id, "echo tries; "+text, patience)
	next := h.runUntilCancelled(t, id, "echo executed; exit 7", cancelAfter)
	stages := time.Since(start)
	start = time.Now()
	cleanup := h.drive(t, "cleanup", "--id", id)
	took := time.Since(start)
	// The rest, in which systemd may take a moment, onHost looks for.
	left, _ := filepath.Glob(filepath.Join(h.state, ".machines", id))
	executed := next.stdout == "executed\n" && next.code == "7"
	switch {
	case !strings.HasPrefix(first.stdout, "tries\n"):
		t.Errorf("%s: the machine could not try: %+v", name, first)
	case next.status == 0 || !executed && next.status != 2 && !strings.Contains(name, "bash") && next.code != "127":
		t.Errorf("got through: %s: the next sub-stage: %+v", name, next)
	case stages > 2*time.Minute || took > 30*time.Second:
		t.Errorf("got through: %s: sub-stages took %v, cleanup %v", name, stages, took)
	case cleanup.status != 0 || cleanup.stderr != "" || len(left) > 0:
		t.Errorf("got through: %s: cleanup: %+v, left: %s", name, cleanup, left)
	case hasControls(first.stderr + next.stderr):
		t.Errorf("got through: %s: %q %q", name, first.stderr, next.stderr)
	default:
		held(name)
		t.Logf("%s: %d, then %d %q %q; sub-stages %v, cleanup %v", name, first.status, next.status, next.stdout, next.stderr, stages, took)
	}
}
