package debian

// What a machine does not do, and why.

var refusals = Group{
	Name:     "refused",
	Images:   Images,
	Backends: Backends[:1],
	Cases: []Case{
		{
			Name:    "loop devices (losetup, mount -o loop)",
			Refused: "Loop devices belong to the host; the kernel has no namespace for them. With one, a job could make the kernel read a file system that the job wrote.",
			Note:    "`mke2fs -d`, `mkfs.btrfs -r` and the ext2 format of mmdebstrap make file system images without one, and fuse2fs mounts them; else use a runner with the shell executor in its own VM",
			Script:  `truncate -s 8M /srv/disk; mke2fs -q /srv/disk; refused mount -o loop /srv/disk /mnt; refused losetup --find --show /srv/disk`,
		},
		{
			Name:    "device mapper, LVM, cryptsetup",
			Refused: "Block devices belong to the host, like loop devices.",
			Script:  `refused test -e /dev/mapper/control; refused mknod /dev/mapper-control c 10 236`,
		},
		{
			Name:    "mknod of devices",
			Refused: "The kernel allows only the host's root to create them. Current programs bind the existing devices instead or leave them out; old ones fail.",
			Note:    "fakeroot, mmdebstrap, and debootstrap in images of trixie",
			Script:  `refused mknod /srv/null c 1 3; fakeroot mknod /srv/fake c 1 3`,
		},
		{
			Name:    "debootstrap, pbuilder and piuparts in images of bookworm",
			Refused: "They fail at mknod (see above). The versions of trixie bind the machine's devices instead.",
			Note:    "mmdebstrap and sbuild in unshare mode; or an image of trixie, which can also make trees of bookworm",
			Script: `
refused debootstrap --variant=minbase bookworm /srv/refused >/srv/said 2>&1
grep mknod /srv/said
`,
			Images: []string{"bookworm"},
		},
		{
			Name:    "perf",
			Refused: "perf_event_open(2) is refused: it observes the whole host, and many kernel exploits used it.",
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
			Refused: "The kernel log belongs to the host. It contains kernel addresses and messages about other jobs.",
			Script:  `refused dmesg`,
		},
		{
			Name:    "snaps from the store, and what else mounts squashfs by the kernel",
			Refused: "They need a loop device.",
			Note:    "unsquashfs, squashfuse",
			Script:  `refused grep -q squashfs /proc/mounts; refused mount -t squashfs /bin/busybox /mnt`,
		},
		{
			Name:    "modprobe, sysctl of the kernel's own settings, setting the clock",
			Refused: "There is only the host's kernel. Settings of the machine's own network can be changed.",
			Script:  `refused modprobe dummy; refused sysctl -w vm.swappiness=1; refused date --set=2020-01-01; sysctl -w net.ipv4.ip_forward=1`,
		},
	},
}
