package integration

import (
	"strings"
	"testing"
)

// What a machine has so that there can be containers in it leads no further: a proc and a
// sysfs of which nothing is covered, session keyrings, a million user ids.
func TestAttacksFromContainersAreHeld(t *testing.T) {
	a := attacker(t, onHost(t, "overlay"))
	const same = `same() { local v; v=$(cat "$1" 2>/dev/null) && echo "$v" 2>/dev/null > "$1"; }; `
	const settings = `for f in kernel/core_pattern kernel/modprobe kernel/sysrq kernel/printk kernel/panic kernel/hotplug vm/overcommit_memory vm/swappiness fs/suid_dumpable fs/file-max kernel/dmesg_restrict fs/binfmt_misc/status $more; do same $proc/sys/$f && echo $f && exit 0; done; exit 1`
	const press = `echo h > $proc/sysrq-trigger`
	const memory = `head -c 1 $proc/kcore || [ -n "$(cat $proc/vmallocinfo $proc/timer_list $proc/slabinfo 2>/dev/null)" ]`
	const devices = `for f in $proc/irq/default_smp_affinity $proc/irq/*/smp_affinity; do same $f && exit 0; done; find $proc/scsi $proc/acpi $proc/bus $proc/fs -type f -writable ! -path '*/jbd2/*' | grep -m 1 .`
	const files = `find $sys/kernel $sys/module $sys/power $sys/block $sys/firmware $sys/fs $sys/bus $sys/devices -xdev -type f -writable ! -path '*/net/*' ! -path '*/cgroup/*' | grep -m 1 .`
	// Some of any kernel's are in each network; the others are the host's.
	host := shell(t, "comm -23 <(ls /sys/class/net | sort) <(unshare --net --mount sh -c 'mount -t sysfs none /mnt && ls /mnt/class/net' | sort) | xargs")
	interfaces := "for i in " + host + "; do [ -e $sys/class/net/$i ] && exit 0; done; exit 1"
	const own = "proc=/proc sys=/sys; " + same
	// The machine's root can take away what lies on the machine's own.
	// Its own limits a container's root may write; those of the machine are others.
	const found = "more=user/max_user_namespaces; umount /dev/.nspawn-runner 2>/dev/null; proc=/dev/.nspawn-runner/proc sys=/dev/.nspawn-runner/sys; [ -e $proc/1 ] || proc=/proc sys=/sys; " + same
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
		{"open a file of the host by its handle", openByHandle + ` /srv/shown/file / /usr/lib $(dirname $CANARY)`, onTheHost},
	} {
		a.attemptContained(t, what)
	}
}

// keyctl is a program for keyctl(2); see keyrings(7) for what the numbers are.
const keyctl = `python3 - <<'END'
import ctypes, os, platform, sys
libc = ctypes.CDLL(None, use_errno=True)
call = lambda *args: libc.syscall(*args)
add_key, keyctl = {"x86_64": (248, 250), "aarch64": (217, 219)}[platform.machine()]
join = lambda name: call(keyctl, 1, name)
`

// Session keyrings are what containers are started with. Keys count to nobody's memory.
func TestAttacksByKeyringsAreHeld(t *testing.T) {
	h := onHost(t, "overlay")
	id, other := h.prepared(t, "bookworm"), h.prepared(t, "bookworm")
	a := attacked{h: h, id: id, controls: map[control]string{inAnotherMachine: other}}
	// With this one it could be no other failure.
	if c := h.run(t, id, keyctl+"sys.exit(join(None) < 0 or join(b\"canary\") < 0)\nEND"); c.status != 0 {
		t.Fatalf("a process has no session keyring: %+v", c)
	}
	hold := strings.Replace(keyctl, "python3 - ", "cat > /hold.py ", 1) + `
named = join(b"canary-of-another")
call(keyctl, 5, named, 0x3f3f0000) # everybody with the same user id may find it
open("/serial.new", "w").write(str(named))
os.rename("/serial.new", "/serial")
import signal
signal.pause()
END
systemd-run -q python3 /hold.py; while [ ! -e /serial ]; do sleep 0.01; done; cat /serial`
	c := h.run(t, other, hold)
	serial := strings.TrimSpace(c.stdout)
	if c.status != 0 || serial == "" {
		t.Fatalf("%+v", c)
	}
	for _, what := range []attempt{
		{"join another machine's keyring by its name", keyctl + `sys.exit(join(b"canary-of-another") != ` + serial + `)` + "\nEND", inAnotherMachine},
	} {
		a.attempt(t, what)
	}
	for _, what := range []attempt{
		{"make a key", `syscall add_key 0 0 0 0 0`, onTheHost},
		{"have the host's root look for a key", `syscall request_key 0 0 0 0`, onTheHost},
		{"keep a keyring that no process has", keyctl + `
kept = join(None)
failed = call(keyctl, 8, kept, -4) < 0
call(keyctl, 9, kept, -4)
sys.exit(failed)
END`, onTheHost},
		{"have a keyring for each of its users", keyctl + `sys.exit(call(keyctl, 0, -4, 1) < 0 and call(keyctl, 11, -4, 0, 0) < 0 and call(keyctl, 6, -5, 0, 0) < 0)` + "\nEND", onTheHost},
	} {
		a.attempt(t, what)
	}
}
