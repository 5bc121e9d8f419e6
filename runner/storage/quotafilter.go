package storage

import (
	"golang.org/x/sys/unix"

	"nspawn-runner/runner/seccomp"
)

// Who makes a subvolume may say in which quota groups it is to be, in none or in
// somebody else's, and the kernel asks for no privilege (btrfs_qgroup_inherit() in
// fs/btrfs/qgroup.c). ioctlSnapCreateV2 and this one say it; the older one, which
// makes an empty subvolume, cannot, and is what systemd uses.
const ioctlSubvolCreateV2 = 0x50009418 // BTRFS_IOC_SUBVOL_CREATE_V2

// The number of ioctl(2) in programs for a processor of the same kind with 32 bits,
// i386 and ARM, and in the second table of x86-64, x32.
const (
	ioctl32  = 54
	ioctlX32 = 0x40000000 | 514
)

// refuseQuotaGroups keeps this thread, and what it executes, from making subvolumes
// in quota groups of their choice.
func refuseQuotaGroups() error {
	return seccomp.Set([]unix.SockFilter{
		seccomp.Load(seccomp.Arch),
		seccomp.IfEqual(seccomp.ThisArch(), 0, 4),
		seccomp.Load(seccomp.Number),
		seccomp.IfEqual(unix.SYS_IOCTL, 4, 0),
		seccomp.IfEqual(ioctlX32, 3, 0),
		seccomp.Allow(),
		seccomp.Load(seccomp.Number), // of another processor
		seccomp.IfEqual(ioctl32, 0, 4),
		seccomp.Load(seccomp.Argument(1)), // of which the kernel looks at 32 bits
		seccomp.IfEqual(ioctlSubvolCreateV2, 1, 0),
		seccomp.IfEqual(ioctlSnapCreateV2, 0, 1),
		seccomp.Fail(unix.EPERM),
		seccomp.Allow(),
	})
}
