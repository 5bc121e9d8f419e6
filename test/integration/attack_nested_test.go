package integration

import (
	"path/filepath"
	"strings"
	"testing"
)

// What a machine has so that there can be containers in it leads no further: a proc and a
// sysfs of which nothing is covered, a million user ids.
func TestAttacksFromContainersAreHeld(t *testing.T) {
	a := attacker(t, onHost(t, "overlay"))
	const same = `same() { local v; v=$(cat "$1" 2>/dev/null) && echo "$v" 2>/dev/null > "$1"; }; `
	const settings = `for f in kernel/core_pattern kernel/modprobe kernel/sysrq kernel/printk kernel/panic kernel/hotplug vm/overcommit_memory vm/swappiness fs/suid_dumpable fs/file-max kernel/dmesg_restrict fs/binfmt_misc/status $more; do same $proc/sys/$f && echo $f && exit 0; done; exit 1`
	const press = `echo h > $proc/sysrq-trigger`
	const memory = `head -c 1 $proc/kcore || [ -n "$(cat $proc/vmallocinfo $proc/timer_list $proc/slabinfo 2>/dev/null)" ]`
	const devices = `for f in $proc/irq/default_smp_affinity $proc/irq/*/smp_affinity; do same $f && exit 0; done; find $proc/scsi $proc/acpi $proc/bus $proc/fs -type f -writable ! -path '*/jbd2/*' | grep -m 1 .`
	const files = `find $sys/kernel $sys/module $sys/power $sys/block $sys/firmware $sys/fs $sys/bus $sys/devices -xdev -type f -writable ! -path '*/net/*' ! -path '*/cgroup/*' | grep -m 1 .`
	// Some of any kernel's are in each network; the others are the host's.
	host := strings.TrimSpace(shell(t, "comm -23 <(ls /sys/class/net | sort) <(unshare --net --mount sh -c 'mount -t sysfs none /mnt && ls /mnt/class/net' | sort) | xargs"))
	interfaces := "for i in " + host + "; do [ -e $sys/class/net/$i ] && exit 0; done; exit 1"
	const own = "proc=/proc sys=/sys; " + same
	// The machine's root can mount others, and the sysfs of a network of its own can be written
	// to. The host has what it has. Its own limits a container's root may write; those of the
	// machine are others.
	const found = `more=user/max_user_namespaces; proc=/proc sys=/sys; read -r _ root _ </proc/self/uid_map
if [ $root != 0 ]; then
	proc=/mnt/found/proc sys=/mnt/found/sys; mkdir -p $proc $sys
	mountpoint -q $proc || mount -t proc none $proc || exit 9
	mountpoint -q $sys || unshare --net mount -t sysfs none $sys || exit 9
fi
` + same
	for _, what := range []attempt{
		{"change a setting of the kernel", settings, onTheHost},
		{"press a magic SysRq key", press, onTheHost},
		{"read the kernel's memory", memory, onTheHost},
		{"steer devices", devices, onTheHost},
		{"write to a file in /sys", files, onTheHost},
		{"see the host's network interfaces", interfaces, onTheHost},
	} {
		script := what.script
		what.script = own + script
		a.attemptContained(t, what)
		what.name, what.script = what.name+", where nothing covers it", found+script
		a.attempt(t, what)
	}
	for _, what := range []attempt{
		{"see a process of the host", `cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -a canary-[p]rocess-$MARK`, onTheHost},
		{"find a key of the host's", `grep canary-[k]ey-$MARK /proc/keys`, onTheHost},
		{"load a BPF program", `syscall bpf 0 0 0`, onTheHost},
		{"load a module", `syscall init_module 0 0 0`, onTheHost},
		{"read the kernel's log", `syscall syslog 3 0 0 || head -c 1 /dev/kmsg`, onTheHost},
		{"make a device node", `mknod /node b 7 0; s=$?; rm -f /node; exit $s`, onTheHost},
		{"open a file of the host by its handle", openByHandle + ` /srv/shown/file / /usr/lib /var/lib/docker $(dirname $CANARY)`, onTheHost},
		{"take away the root, to see what lies beneath", takeAwayRoot, inAPrivilegedMachine},
	} {
		a.attemptContained(t, what)
	}
	a.attempt(t, attempt{"take away the root, to see what lies beneath", takeAwayRoot, inAPrivilegedMachine})
}

// takeAwayRoot ends with 0 if a process that enters its mount namespace anew finds another root,
// after it removed its root, moved it, or put another one in its place and removed that.
const takeAwayRoot = `python3 - <<'END'
import ctypes, os, platform, sys
libc = ctypes.CDLL(None, use_errno=True)
pivot_root = {"x86_64": 155, "aarch64": 41}[platform.machine()]
NEWNS, BIND, MOVE, REC, PRIVATE, DETACH = 0x20000, 4096, 8192, 16384, 1 << 18, 2
os.makedirs("/mnt/place", exist_ok=True)
def remove():
    libc.umount2(b"/", DETACH)
def move():
    libc.mount(b"/", b"/mnt/place", None, MOVE, None)
def pivot():
    if libc.mount(b"/", b"/mnt/place", None, BIND | REC, None) < 0: os._exit(9)
    os.chdir("/mnt/place")
    if libc.syscall(pivot_root, b".", b".") < 0: os._exit(8)
    libc.umount2(b".", DETACH)
    libc.umount2(b".", DETACH)
    libc.umount2(b"/", DETACH)
def root():
    s = os.stat("/")
    return s.st_dev, s.st_ino
ends = []
for attempt in remove, move, pivot:
    child = os.fork()
    if child == 0:
        if libc.unshare(NEWNS) < 0 or libc.mount(None, b"/", None, REC | PRIVATE, None) < 0: os._exit(7)
        own, before = os.open("/proc/self/ns/mnt", os.O_RDONLY), root()
        attempt()
        if libc.setns(own, NEWNS) < 0: os._exit(6)
        os._exit(root() == before)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(ends)
sys.exit(0 if 0 in ends else max(ends))
END`

// keyctl is a program for keyctl(2); see keyrings(7) for what the numbers are.
const keyctl = `python3 - <<'END'
import ctypes, errno, os, platform, sys
libc = ctypes.CDLL(None, use_errno=True)
call = lambda *args: libc.syscall(*args)
keyctl = {"x86_64": 250, "aarch64": 219}[platform.machine()]
join = lambda name: call(keyctl, 1, name)
`

// Keys and keyrings count to nobody's memory. What is open keeps the session keyring of
// who opened it, and a name may have 4 KB.
func TestAttacksByKeyringsAreHeld(t *testing.T) {
	a := attacker(t, onHost(t, "overlay"))
	for _, what := range []attempt{
		{"keep keyrings by files that are open", keyctl + `
kept = []
for n in range(40):
    os.setresuid(0, 0, 0)
    os.setresuid(1000 + n // 4, 1000 + n // 4, 0)
    if join(b"%d" % n + 4000 * b"x") < 0: break
    kept.append(open("/dev/null"))
print(open("/proc/key-users").read())
sys.exit(len(kept) < 40)
END`, onTheHost},
		{"have a session keyring", keyctl + "sys.exit(join(None) < 0)\nEND", onTheHost},
		{"have a keyring for each of its users", keyctl + `sys.exit(call(keyctl, 0, -4, 1) < 0 and call(keyctl, 11, -4, 0, 0) < 0 and call(keyctl, 6, -5, 0, 0) < 0)` + "\nEND", onTheHost},
		{"make a key", `syscall add_key 0 0 0 0 0`, onTheHost},
		{"have the host's root look for a key", `syscall request_key 0 0 0 0`, onTheHost},
	} {
		a.attempt(t, what)
	}
	// Programs that start containers, and systemd, do without where the kernel has none.
	c := a.h.run(t, a.id, keyctl+"sys.exit(join(None) != -1 or ctypes.get_errno() != errno.ENOSYS)\nEND\n[ $? = 0 ] && systemd-run --quiet --wait --property=KeyringMode=shared true")
	if c.status != 0 {
		t.Errorf("a service that shares a keyring: %+v", c)
	}
}

// What lies beside an overlay lies on the file system of what other jobs write, which
// syncfs(2) would write to the disk as well.
func TestAttacksByWritingOthersFilesToTheDiskAreHeld(t *testing.T) {
	const name = "write others' files to the disk"
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	file := filepath.Join(filepath.Dir(h.state), "others")
	inMemory := func() bool { return strings.Contains(shell(t, "filefrag -v "+file), "delalloc") }
	t.Cleanup(func() { shell(t, "rm "+file) })
	stayed := false
	for range 5 { // the kernel itself may write at this moment, but not each time
		shell(t, "rm -f "+file+" && head -c 8M /dev/zero > "+file) // of one that it truncates ext4 writes all at once
		if !inMemory() {
			t.Skip("this file system does not say what is not on the disk yet, or has written it at once")
		}
		if c := h.run(t, id, "sync -f /var/lib/docker; sync"); c.status != 0 {
			t.Fatalf("%+v", c)
		}
		if stayed = inMemory(); stayed {
			break
		}
	}
	if !stayed {
		gotThrough(t, name)
	}
	if shell(t, "sync -f "+h.state); inMemory() {
		t.Errorf("%s: was held, but so was its control", name)
	}
	held(name)
}
