package debian

// What a machine does not do, and why.

var refusals = Group{
	Name:     "refused",
	Images:   Images,
	Backends: allBackends[:1],
	Cases: []Case{
		{
			Name:    "loop devices (losetup, mount -o loop)",
			Refused: "Loop devices belong to the host; the kernel has no namespace for them. With one, a job could make the kernel read a file system that the job wrote.",
			Note:    "`mke2fs -d`, `mkfs.btrfs -r` and the ext2 format of mmdebstrap make file system images without one, and fuse2fs mounts them; else use a runner with the shell executor in its own VM",
			Script: `
truncate -s 8M /srv/disk; mke2fs -q /srv/disk
refused 'failed to setup loop device|No such file or directory|Operation not permitted' mount -o loop /srv/disk /mnt
refused 'failed to set up loop device|cannot find an unused loop device|No such file or directory' losetup --find --show /srv/disk
refused 'Operation not permitted' mknod /srv/loop b 7 0
`,
		},
		{
			Name:    "device mapper, LVM, cryptsetup",
			Refused: "Block devices belong to the host, like loop devices.",
			Script:  `test ! -e /dev/mapper/control; refused 'Operation not permitted' mknod /dev/mapper-control c 10 236`,
		},
		{
			Name:    "mknod of devices",
			Refused: "The kernel allows only the host's root to create them. Current programs bind the existing devices instead or leave them out; old ones fail.",
			Note:    "fakeroot, mmdebstrap, and debootstrap in images of trixie",
			Script:  `refused 'Operation not permitted' mknod /srv/null c 1 3; fakeroot mknod /srv/fake c 1 3`,
		},
		{
			Name:    "debootstrap, pbuilder and piuparts in images of bookworm",
			Refused: "They fail at mknod (see above). The versions of trixie bind the machine's devices instead.",
			Note:    "mmdebstrap and sbuild in unshare mode; or an image of trixie, which can also make trees of bookworm",
			Script: `
refused mknod debootstrap --variant=minbase bookworm /srv/refused
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
			Script:  `refused 'Operation not permitted' dmesg`,
		},
		{
			Name:    "snaps from the store, and what else mounts squashfs by the kernel",
			Refused: "They need a loop device.",
			Note:    "unsquashfs, squashfuse",
			// What says no is mount(2), before it looks at what is to be mounted: EPERM. A kernel that has not
			// loaded squashfs does not know it, and a machine cannot make it load it: ENODEV.
			Script: `
python3 - <<'END'
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mount(b"/bin/busybox", b"/mnt", b"squashfs", 1, None) == -1 and ctypes.get_errno() in (errno.EPERM, errno.ENODEV), ctypes.get_errno()
assert libc.mount(b"none", b"/mnt", b"tmpfs", 1, None) == 0, ctypes.get_errno()
END
umount /mnt
`,
		},
		{
			Name:    "modprobe, sysctl of the kernel's own settings, setting the clock",
			Refused: "There is only the host's kernel. Settings of the machine's own network can be changed.",
			Script: `
python3 - <<'END'
import ctypes, errno, platform
# finit_module(2) of a descriptor that is not open, which is what root hears elsewhere: EBADF
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 313, "aarch64": 273}[platform.machine()]
assert libc.syscall(number, -1, b"", 0) == -1 and ctypes.get_errno() == errno.EPERM, ctypes.get_errno()
END
refused 'permission denied' sysctl -w vm.swappiness=1
refused 'cannot set date: Operation not permitted' date --set=2020-01-01
sysctl -w net.ipv4.ip_forward=1
`,
		},
	},
}
