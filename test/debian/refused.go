package debian

// What a machine does not do, and why.

var refusals = Group{
	Name:     "refused",
	Images:   Images,
	Backends: Backends[:1],
	Cases: []Case{
		{
			Name:    "loop devices (losetup, mount -o loop)",
			Refused: "A loop device is the host's, and the kernel has no namespace for it. Who can set one up has the kernel read a file system that a job wrote.",
			Note:    "mke2fs -d, mkfs.btrfs -r and mmdebstrap's ext2 make images without; fuse2fs mounts them; or a runner with the shell executor in a VM of its own",
			Script:  `truncate -s 8M /srv/disk; mke2fs -q /srv/disk; refused mount -o loop /srv/disk /mnt; refused losetup --find --show /srv/disk`,
		},
		{
			Name:    "device mapper, LVM, cryptsetup",
			Refused: "Block devices are the host's, like loop devices.",
			Script:  `refused test -e /dev/mapper/control; refused mknod /dev/mapper-control c 10 236`,
		},
		{
			Name:    "mknod of devices",
			Refused: "The kernel lets nobody but the host's root make them. What needs them in a tree falls back to binds or leaves them out, unless it is old.",
			Note:    "fakeroot, mmdebstrap, and debootstrap in images of trixie",
			Script:  `refused mknod /srv/null c 1 3; fakeroot mknod /srv/fake c 1 3`,
		},
		{
			Name:    "debootstrap, pbuilder and piuparts in images of bookworm",
			Refused: "They stop at mknod, see there. Those of trixie bind the machine's devices.",
			Note:    "mmdebstrap and sbuild in unshare mode; an image of trixie, which makes trees of bookworm too",
			Script: `
refused debootstrap --variant=minbase bookworm /srv/refused >/srv/said 2>&1
grep mknod /srv/said
`,
			Images: []string{"bookworm"},
		},
		{
			Name:    "perf",
			Refused: "perf_event_open(2) is refused: it observes the whole host, and was the way into many kernels.",
			Note:    "valgrind --tool=callgrind, gprof, strace -c",
			Script: `
python3 - <<'END'
import ctypes, errno, platform, struct
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 298, "aarch64": 241}[platform.machine()]
clock = struct.pack("IIQ112x", 1, 128, 0) # one of the kernel's own counters, which any process may have elsewhere
assert libc.syscall(number, clock, 0, -1, -1, 0) == -1 and ctypes.get_errno() == errno.EPERM, ctypes.get_errno()
END
`,
		},
		{
			Name:    "dmesg",
			Refused: "The kernel's log is the host's, with addresses and other jobs' accidents in it.",
			Script:  `refused dmesg`,
		},
		{
			Name:    "snaps from the store, and what else mounts squashfs by the kernel",
			Refused: "A snap is mounted by a loop device.",
			Note:    "unsquashfs, squashfuse",
			Script:  `refused grep -q squashfs /proc/mounts; refused mount -t squashfs /bin/busybox /mnt`,
		},
		{
			Name:    "modprobe, sysctl of the kernel's own settings, setting the clock",
			Refused: "There is one kernel, the host's. Settings of the machine's own network can be changed.",
			Script:  `refused modprobe dummy; refused sysctl -w vm.swappiness=1; refused date --set=2020-01-01; sysctl -w net.ipv4.ip_forward=1`,
		},
	},
}
