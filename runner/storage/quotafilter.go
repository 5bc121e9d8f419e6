package storage

import (
	"golang.org/x/sys/unix"

	"nspawn-runner/runner/seccomp"
)

// A process that makes a subvolume can name its quota groups: none, or those of another machine. The kernel asks
// for no privilege (btrfs_qgroup_inherit() in fs/btrfs/qgroup.c). Only ioctlSnapCreateV2 and this ioctl have
// groups. The older ioctl for an empty subvolume, which systemd uses, has none.
const ioctlSubvolCreateV2 = 0x50009418 // BTRFS_IOC_SUBVOL_CREATE_V2

// The numbers of ioctl(2) for i386 and 32-bit ARM, and for x32 on x86-64.
const (
	ioctl32  = 54
	ioctlX32 = 0x40000000 | 514
)

// refuseQuotaGroups sets a filter: this thread, and the programs that it executes, cannot make subvolumes in
// quota groups of their choice.
func refuseQuotaGroups() error {
	return seccomp.Set([]unix.SockFilter{
		seccomp.Load(seccomp.Arch),
		seccomp.IfEqual(seccomp.ThisArch(), 0, 4),
		seccomp.Load(seccomp.Number),
		seccomp.IfEqual(unix.SYS_IOCTL, 4, 0),
		seccomp.IfEqual(ioctlX32, 3, 0),
		seccomp.Allow(),
		seccomp.Load(seccomp.Number), // another architecture
		seccomp.IfEqual(ioctl32, 0, 4),
		seccomp.Load(seccomp.Argument(1)), // the kernel uses its lower 32 bits
		seccomp.IfEqual(ioctlSubvolCreateV2, 1, 0),
		seccomp.IfEqual(ioctlSnapCreateV2, 0, 1),
		seccomp.Fail(unix.EPERM),
		seccomp.Allow(),
	})
}
