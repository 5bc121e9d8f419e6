package box

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Guides to hardening a host mount /var so that nothing there is executed, is setuid
// or is a device. A tree that is being built must have all of that.

// isRestricted says whether the host's mount of a tree is like that.
func isRestricted(root string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(root, &fs) == nil && fs.Flags&(unix.ST_NOEXEC|unix.ST_NOSUID|unix.ST_NODEV) != 0
}

// lift mounts the directory $0 upon itself without these restrictions, and becomes the
// other arguments. It is for a mount namespace of its own.
const lift = `mount --bind "$0" "$0" && mount -o remount,bind,exec,suid,dev "$0" && exec "$@"`

// Lift is the command line that executes a command for which the tree at root has no
// restrictions. Where the tree has some, the command needs a namespace of its own: alone
// is the flag for that, of exec.Cmd's SysProcAttr.Unshareflags, or 0.
func Lift(root string, command []string) (args []string, alone uintptr) {
	if !isRestricted(root) {
		return command, 0
	}
	return slices.Concat([]string{"sh", "-c", lift, root}, command), unix.CLONE_NEWNS
}
