package integration

import "testing"

// Families without a namespace, and those that are a module of the kernel for whoever
// asks: what they lead to is not tried, only whether a job gets one.
func TestAttacksByOtherKindsOfSocketsAreHeld(t *testing.T) {
	a := attackerWithSockets(t)
	open := func(family string) string {
		return `python3 -c 'import socket; socket.socket(` + family + `)'`
	}
	for _, what := range []attempt{
		{"open a socket to the hypervisor", open("socket.AF_VSOCK, socket.SOCK_STREAM"), inAPrivilegedMachine},
		{"open one past the kernel's network", open("44, socket.SOCK_RAW"), inAPrivilegedMachine},
	} {
		a.attempt(t, what)
	}
	c := a.h.run(t, a.id, `python3 - <<'END'
import socket
for family, kind in ((socket.AF_UNIX, 2), (socket.AF_INET, 1), (socket.AF_INET6, 2), (socket.AF_NETLINK, 2), (socket.AF_PACKET, 2)): socket.socket(family, kind)
END`)
	if c.status != 0 {
		t.Errorf("a family that jobs need: %+v", c)
	}
}

func attackerWithSockets(t *testing.T) attacked {
	t.Helper()
	h := withNetwork(t, "none")
	h.addImage(t, "privileged", "")
	h.book(t, "privileged", "nspawn_runner_privileged: true")
	return attacked{h: h, id: h.prepared(t, "bookworm"), controls: map[control]string{inAPrivilegedMachine: h.prepared(t, "privileged")}}
}

// A filter of socket(2) does not see these.
func TestAttacksPastAFilterOfSystemCallsAreHeldInAVM(t *testing.T) {
	needVM(t)
	a := attackerWithSockets(t)
	const ownSysfs = "mkdir -p /m; unshare --net --mount sh -c 'mount -t sysfs none /m || exit; "
	if c := a.h.run(t, a.id, ownSysfs+"cat /m/class/net/lo/ifalias'"); c.status != 0 {
		t.Errorf("a network's sysfs: %+v", c)
	}
	for _, what := range []attempt{
		{"open a socket as a program of an i386", as386 + "sys.exit(call(359, 40, 1, 0) < 0)'", inAPrivilegedMachine},
		{"open a socket as an old program of an i386", as386 + "sys.exit(call(102, 1, low, 0) < 0)'", inAPrivilegedMachine},
		{"open a socket by io_uring", byRing, inAPrivilegedMachine},
		{"write to a sysfs of its own, where it could have threads of the kernel's", ownSysfs + "echo x > /m/class/net/lo/ifalias || exit 1'", inAPrivilegedMachine},
		{"have the kernel load a file system that it cannot mount", `mkdir -p /m; mount -t udf none /m; grep ^udf /proc/modules`, inAPrivilegedMachine},
	} {
		a.attempt(t, what)
	}
}

// as386 begins a program in which call is a system call of the i386's, with three
// arguments, and low the address of those of socket(AF_VSOCK, SOCK_STREAM, 0).
const as386 = `python3 -c '
import ctypes, struct, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
low = libc.mmap(None, 8192, 7, 0x62, -1, 0) # to be executed, below 4 GiB
ctypes.memmove(low, struct.pack("III", 40, 1, 0), 12)
code = bytes.fromhex("53" "89f8" "89f3" "87d1" "cd80" "5b" "c3") # as int call(eax, ebx, ecx, edx)
ctypes.memmove(low + 4096, code, len(code))
call = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint] * 4)(low + 4096)
`

// byRing asks io_uring(7) for one, and ends with 0 when it got it.
const byRing = `python3 -c '
import ctypes, mmap, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
params = ctypes.create_string_buffer(120)
ring = libc.syscall(425, 4, params)
if ring < 0: sys.exit("no io_uring")
sq, cq = struct.unpack_from("10I", params, 40), struct.unpack_from("10I", params, 80)
queue, done, entries = (mmap.mmap(ring, 4096, offset=at) for at in (0, 0x8000000, 0x10000000))
struct.pack_into("BBHiQQI", entries, 0, 45, 0, 0, 40, 1, 0, 0) # IORING_OP_SOCKET
struct.pack_into("I", queue, sq[6], 0)
struct.pack_into("I", queue, sq[1], 1)
if libc.syscall(426, ring, 1, 1, 1, None, 0) != 1: sys.exit("not taken")
result = struct.unpack_from("i", done, cq[5] + 8)[0]
print(result)
sys.exit(result < 0)'`
