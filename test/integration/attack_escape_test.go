package integration

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// canaries are things on the host that no job may see. Their names are in scripts
// with brackets, as patterns that do not match themselves. The file lies on the file
// system of the state directory, on which machines lie.
func (h *host) canaries(t *testing.T, mark string) (variables string) {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(h.state), "canary-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "canary")
	must(t, os.WriteFile(file, []byte("canary-file-"+mark+"\n"), 0o644))
	process := exec.Command("bash", "-c", "exec -a canary-process-"+mark+" sleep 100000")
	must(t, process.Start())
	t.Cleanup(func() {
		// Nobody else may have ended it.
		if err := process.Process.Kill(); err != nil {
			t.Errorf("got through: the host's process is gone: %v", err)
		}
		process.Wait()
		if data, err := os.ReadFile(file); string(data) != "canary-file-"+mark+"\n" {
			t.Errorf("got through: the host's file is now %q, %v", data, err)
		}
	})
	shell(t, "echo canary-journal-"+mark+" | systemd-cat && journalctl --sync")
	shell(t, `python3 -c '
import ctypes, platform
add_key = {"x86_64": 248, "aarch64": 217}[platform.machine()]
payload = b"secret"
if ctypes.CDLL(None).syscall(add_key, b"user", b"canary-key-`+mark+`", payload, len(payload), -4) < 0: raise OSError("add_key")'`)
	handle := strings.TrimSpace(shell(t, `python3 - `+file+` <<'END'
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128), 136)
mount = ctypes.c_int()
if libc.name_to_handle_at(-100, sys.argv[1].encode(), handle, ctypes.byref(mount), 0) < 0: raise OSError(ctypes.get_errno())
print(handle.raw[:8 + struct.unpack("Ii", handle.raw[:8])[0]].hex())
END`))
	return fmt.Sprintf("MARK=%s CANARY=%s HANDLE=%s\n", mark, file, handle)
}

// attacker prepares a machine to attack from, and those that show what would get
// through. It sees the directory of the host in which the canary lies not, but one
// beside it.
func attacker(t *testing.T, h *host) attacked {
	t.Helper()
	variables := h.canaries(t, strings.ToLower(rand.Text()[:10]))
	shown, err := os.MkdirTemp(filepath.Dir(h.state), "shown-")
	must(t, err, os.Chmod(shown, 0o755), os.WriteFile(filepath.Join(shown, "file"), []byte("as it was\n"), 0o644))
	t.Cleanup(func() { os.RemoveAll(shown) })
	for image, privileged := range map[string]bool{"attacker": false, "privileged": true} {
		h.addImage(t, image, "")
		h.book(t, image, fmt.Sprintf("nspawn_runner_privileged: %v\nnspawn_runner_binds: ['%s:/srv/shown']", privileged, shown))
	}
	return attacked{
		h: h, id: h.prepared(t, "attacker"), before: variables,
		controls: map[control]string{inAPrivilegedMachine: h.prepared(t, "privileged")},
	}
}

// private is a shell command before one that mounts, so that nobody sees it.
const private = "unshare --mount --propagation=private bash -c "

func TestAttacksOnTheHostsFilesAreHeld(t *testing.T) {
	a := attacker(t, onHost(t, "overlay"))
	for _, what := range onFiles(a.h.state) {
		a.attempt(t, what)
	}
}

// onFiles are attempts on files of the host.
func onFiles(state string) []attempt {
	return []attempt{
		{"read a file of the host by its path", `[ -e $CANARY ] && grep -q canary-file $CANARY`, onTheHost},
		{"reach a file of the host through /proc", `for p in /proc/[0-9]*; do for l in root cwd fd/*; do grep -q canary-file "$p/$l$CANARY" 2>/dev/null && exit 0; done; done; exit 1`, onTheHost},
		{"find a mount of the state directory", `grep -E 'upperdir=[^,]*/\.machines/[^,]*' /proc/self/mountinfo | grep -v fd/ || [ -e ` + state + ` ]`, onTheHost},
		{"open a file of the host by its handle", openByHandle + ` /srv/shown/file / /usr/lib /var/lib/docker $(dirname $CANARY)`, onTheHost},
		{"write behind a read-only bind", `mount -o remount,rw,bind /srv/shown; echo "as it was" > /srv/shown/file`, inAPrivilegedMachine},
		{"uncover what lies below a mount of systemd-nspawn's", `while umount -l /proc/sys; do :; done 2>/dev/null; echo "$(cat /proc/sys/kernel/core_pattern)" > /proc/sys/kernel/core_pattern`, inAPrivilegedMachine},
		{"make a device node", `rm -f /root/node; mknod /root/node b 7 0; s=$?; rm -f /root/node; exit $s`, onTheHost},
		{"find a device of the host's in /dev", `find /dev -xdev '(' -type b -o -type c ')' | grep -vxE '/dev/(console|full|fuse|net/tun|null|ptmx|random|tty|urandom|zero)'`, onTheHost},
		{"mount the kernel's debugging file systems", `mkdir -p /mnt/x; for fs in debugfs tracefs securityfs; do ` + private + `"mount -t $fs none /mnt/x" && exit 0; done; exit 1`, onTheHost},
		{"mount the host's devices", `mkdir -p /mnt/x; ` + private + `'mount -t devtmpfs none /mnt/x && [ -e /mnt/x/null ] || exit 1'`, onTheHost},
		{"leave by pivoting into the first mount", `mkdir -p /mnt/x; ` + private + `"cd /; mount --rbind / /mnt/x || exit; for up in 1 2 3 4 5 6; do cd ..; done; [ -e .$CANARY ] && grep canary-file .$CANARY"; s=$?; [ $s = 1 ] || exit $s; cd /; chroot . bash -c "cd ../../..; [ -e .$CANARY ] && grep canary-file .$CANARY"`, onTheHost},
	}
}

// openByHandle opens the file of the handle below one of several places, as a
// container's root once could: open_by_handle_at(2).
const openByHandle = `python3 -c '
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for place in sys.argv[2:]:
    if not os.path.exists(place): continue
    at = os.open(place, os.O_RDONLY)
    fd = libc.open_by_handle_at(at, bytes.fromhex(sys.argv[1]), 0)
    if fd >= 0 and b"canary-file" in os.read(fd, 100): sys.exit(0)
    print(place, os.strerror(ctypes.get_errno()))
sys.exit(1)' $HANDLE`

func TestAttacksOnTheHostsProcessesAndRecordsAreHeld(t *testing.T) {
	a := attacker(t, onHost(t, "overlay"))
	for _, what := range onProcesses(a.id) {
		a.attempt(t, what)
	}
}

// onProcesses are attempts on what the host executes and notes. The id is that of a machine.
func onProcesses(id string) []attempt {
	return []attempt{
		{"see a process of the host", `cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -a canary-[p]rocess-$MARK`, onTheHost},
		{"see it in a /proc of its own", `mkdir -p /mnt/x; ` + private + `'mount -t proc proc /mnt/x; cat /mnt/x/[0-9]*/cmdline' 2>/dev/null | tr '\0' '\n' | grep -a canary-[p]rocess-$MARK`, onTheHost},
		{"read the host's journal", `journalctl --quiet --no-pager --merge --since=-1h | grep -a canary-[j]ournal-$MARK`, onTheHost},
		{"find a key of the host's", `grep canary-[k]ey-$MARK /proc/keys`, onTheHost},
		{"ask the host's service manager", `systemctl list-units --all --no-legend 'nspawn-runner-[0-9]*' | grep -q .`, onTheHost},
		{"ask the host's systemd-machined", `busctl call org.freedesktop.machine1 /org/freedesktop/machine1 org.freedesktop.machine1.Manager GetMachine s run-` + id, onTheHost},
		{"see the host's control groups", `mkdir -p /mnt/x; ` + private + `'mount -t cgroup2 none /mnt/x; find /mnt/x /sys/fs/cgroup -name "nspawn-runner-[0-9]*"' | grep -q .`, onTheHost},
		{"read the kernel's log", `dmesg >/dev/null 2>&1 || syscall syslog 3 0 0 || head -c 1 /dev/kmsg`, onTheHost},
	}
}

func TestAttacksOnTheKernelAreHeld(t *testing.T) {
	a := attacker(t, onHost(t, "overlay"))
	for _, what := range onTheKernel() {
		a.attempt(t, what)
	}
}

// onTheKernel are attempts on the kernel.
func onTheKernel() []attempt {
	// same writes what a file holds into it, which changes nothing.
	const same = `same() { local v; v=$(cat "$1" 2>/dev/null) && [ -w "$1" ] && echo "$v" 2>/dev/null > "$1"; }; `
	return []attempt{
		{"change a setting of the kernel", same + `for f in kernel/core_pattern kernel/modprobe kernel/sysrq kernel/printk kernel/panic vm/overcommit_memory vm/swappiness fs/suid_dumpable fs/file-max kernel/dmesg_restrict kernel/pid_max; do same /proc/sys/$f && exit 0; done; exit 1`, onTheHost},
		{"change one after mounting /proc anew", `mkdir -p /mnt/x; ` + private + `'mount -t proc proc /mnt/x && echo "$(cat /mnt/x/sys/kernel/core_pattern)" > /mnt/x/sys/kernel/core_pattern'`, inAPrivilegedMachine},
		{"change one with a new user namespace's capabilities", `unshare --user --map-root-user --mount --pid --fork --mount-proc bash -c 'echo "$(cat /proc/sys/kernel/core_pattern)" > /proc/sys/kernel/core_pattern' || ` + private + `'echo "$(cat /proc/sys/kernel/core_pattern)" > /proc/sys/kernel/core_pattern'`, onTheHost},
		{"press a magic SysRq key", `echo h > /proc/sysrq-trigger`, onTheHost},
		{"write to a file in /sys", `for d in kernel module power fs block devices; do find /sys/$d -xdev -type f -writable ! -path '*/cgroup/*' ! -path '*/net/*' 2>/dev/null; done | grep -m 1 .`, onTheHost},
		{"write to one after mounting /sys anew", `mkdir -p /mnt/x; ` + private + `'mount -t sysfs sysfs /mnt/x && find /mnt/x/kernel /mnt/x/module /mnt/x/power /mnt/x/block -type f -writable' | grep -m 1 .`, onTheHost},
		{"adjust the clock", `python3 -c '
import ctypes, struct, sys
t, libc = ctypes.create_string_buffer(512), ctypes.CDLL(None)
if libc.adjtimex(t) < 0: sys.exit(1)
struct.pack_into("I", t, 0, 0x4000) # ADJ_TICK: to what it is
sys.exit(libc.adjtimex(t) < 0)'`, inAPrivilegedMachine},
		{"load a module", `syscall init_module 0 0 0`, onTheHost},
		{"load another kernel", `syscall kexec_load 0 0 0 0`, onTheHost},
		{"load a BPF program", `syscall bpf 0 0 0`, inAPrivilegedMachine},
		{"watch the host's processors with perf", `syscall perf_event_open 0 -1 0 -1 0`, inAPrivilegedMachine},
		{"add swap", `syscall swapon 0 0`, inAPrivilegedMachine},
		{"have a capability that reaches beyond its namespaces", `python3 -c '
import re, sys
# sys_module, sys_rawio, sys_time, syslog, wake_alarm, block_suspend, mac_override, mac_admin, perfmon, bpf
beyond = sum(1 << n for n in (16, 17, 25, 34, 35, 36, 32, 33, 38, 39))
status = open("/proc/1/status").read()
sys.exit(not any(int(re.search(kind + r":\s*(\w+)", status)[1], 16) & beyond for kind in ("CapPrm", "CapEff", "CapBnd")))'`, inAPrivilegedMachine},
		{"run without a filter of system calls", `grep -qE '^Seccomp:[[:space:]]*0' /proc/1/status /proc/self/status`, onTheHost},
		{"make as many control groups as it likes", `python3 -c '
import os, sys
made = []
try:
    for n in range(3000): os.mkdir("/sys/fs/cgroup/x%d" % n); made.append(n)
except OSError as e: print(e)
for n in made: os.rmdir("/sys/fs/cgroup/x%d" % n)
sys.exit(len(made) < 3000)'`, onTheHost},
		{"be the root of the host", `[ "$(awk '{print $2}' /proc/self/uid_map)" = 0 ]`, inAPrivilegedMachine},
		{"raise its own limits", same + `cd /sys/fs/cgroup; for f in *.max *.high *.low *.min *.weight cgroup.max.* cgroup.freeze; do same $f && exit 0; done; exit 1`, inAPrivilegedMachine},
	}
}

func TestAttacksOnOtherMachinesAreHeld(t *testing.T) {
	h := onHost(t, "overlay")
	id, other := h.prepared(t, "bookworm"), h.prepared(t, "bookworm")
	if c := h.run(t, other, `echo canary-of-another > /canary; cat > /serve.py <<'END'
import signal, socket
listeners = []
for name in (("127.0.0.1", 4711), ("0.0.0.0", 4712)): s = socket.socket(); s.bind(name); listeners.append(s)
s = socket.socket(socket.AF_UNIX); s.bind("\0canary-socket"); listeners.append(s)
for s in listeners: s.listen()
open("/ready", "w")
signal.pause()
END
systemd-run -q bash -c 'exec -a canary-process python3 /serve.py'; while [ ! -e /ready ]; do sleep 0.01; done; systemd-cat echo canary-journal; journalctl --sync`); c.status != 0 {
		t.Fatalf("%+v", c)
	}
	reach := func(family, address string) string {
		return `python3 -c 'import socket; socket.socket(socket.` + family + `).connect(` + address + `)'`
	}
	a := attacked{h: h, id: id, controls: map[control]string{inAnotherMachine: other}}
	for _, what := range []attempt{
		{"read another machine's file", `for p in /proc/[0-9]*; do grep canary-of-another $p/root/canary 2>/dev/null && exit 0; done; exit 1`, inAnotherMachine},
		{"see another machine's process", `cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -a canary-[p]rocess`, inAnotherMachine},
		{"read another machine's journal", `journalctl --quiet --no-pager | grep -a canary-[j]ournal`, inAnotherMachine},
		{"reach another machine's loopback", reach("AF_INET", `("127.0.0.1", 4711)`), inAnotherMachine},
		{"reach another machine's address", reach("AF_INET", `("192.0.0.2", 4712)`), inAnotherMachine},
		{"reach another machine's abstract socket", reach("AF_UNIX", `"\0canary-socket"`), inAnotherMachine},
	} {
		a.attempt(t, what)
	}
	if first, second := userIDs(t, h, id), userIDs(t, h, other); max(first, second)-min(first, second) < 1<<20 || min(first, second) < 1<<19 {
		gotThrough(t, "share user ids with another machine", first, second)
	}
	held("share user ids with another machine")
	name := "signal all there is"
	if c := h.run(t, id, "echo tries; kill -USR1 -1; kill -KILL -1"); c.stdout != "tries\n" {
		t.Errorf("%s: the machine could not try: %+v", name, c)
	}
	if c := h.run(t, other, "pgrep -f canary-process >/dev/null && cat /canary"); c.stdout != "canary-of-another\n" {
		gotThrough(t, name, c)
	}
	held(name)
}

// userIDs is the first of a machine's user ids.
func userIDs(t *testing.T, h *host, id string) int {
	t.Helper()
	c := h.run(t, id, "awk '{print $2}' /proc/self/uid_map")
	first, err := strconv.Atoi(strings.TrimSpace(c.stdout))
	must(t, err)
	return first
}

// Somebody with a machine's user ids but outside of it, or an ordinary user of the
// host, must not come to images and to what jobs left.
func TestAttacksOnTheStateDirectoryAreHeld(t *testing.T) {
	h := onHost(t, "overlay")
	// A state directory that the driver makes.
	made := h.elsewhere(t, filepath.Join(filepath.Dir(h.state), "made"), "overlay")
	t.Cleanup(func() { os.RemoveAll(made.state) })
	must(t, os.RemoveAll(made.state))
	made.drive(t, "prepare", "--id", newID(), "bookworm") // in vain
	if info, err := os.Stat(made.state); err != nil || info.Mode().Perm() != 0o700 {
		gotThrough(t, "find a state directory open to others", err)
	}
	id := h.prepared(t, "bookworm")
	for who, uid := range map[string]int{"an ordinary user of the host": 65534, "the user that a machine's root is": userIDs(t, h, id)} {
		look := func(uid int) error {
			return exec.Command("setpriv", fmt.Sprintf("--reuid=%d", uid), fmt.Sprintf("--regid=%d", uid), "--clear-groups", "ls", filepath.Join(h.state, ".machines")).Run()
		}
		name := "look into the state directory as " + who
		if look(uid) == nil {
			gotThrough(t, name, uid)
		}
		if err := look(0); err != nil {
			t.Errorf("%s: root cannot either: %v", name, err)
		}
		held(name)
	}
}
