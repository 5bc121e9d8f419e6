package storage

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// RangeSize is the number of user ids, and of group ids, of one machine: 65536 for
	// itself, and as many for each of its users, from 100000 on (useradd(8)), who makes
	// containers; there is room for fourteen.
	RangeSize = 1 << 20
	// hostRoot is the id under which files of the host's root appear on disk
	// behind an idmapped mount. systemd-nspawn makes mount points as the
	// host's root and then gives them to the machine's; without a mapping
	// for it the kernel refuses with EOVERFLOW. The number is systemd's own
	// UID_MAPPED_ROOT.
	hostRoot = 1<<31 - 2
)

// View is how a mount shows what it is a mount of.
type View struct {
	// Owner is whom what belongs to root on disk belongs to, and so on for the ids up
	// to RangeSize: an idmapped mount. 0 is for ids as they are.
	Owner int
	// Set and Clear are mount_setattr(2)'s MOUNT_ATTR_*.
	Set, Clear uint64
	// Below also shows what is mounted below, now; nothing that is mounted there later
	// is ever seen.
	Below bool
}

// Bind mounts what is open on the path to.
func Bind(from *os.File, to string, view View) error {
	mount, err := detached(from, view)
	if err != nil {
		return err
	}
	defer mount.Close()
	if err := unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, to, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount %s to %s: %w", from.Name(), to, err)
	}
	return nil
}

// bindTree binds a tree that is to be a machine's root, or part of it. What the host
// has forbidden for its own mount, such as setuid programs in /var, machines need.
func bindTree(from, to string, owner int) error {
	tree, err := os.OpenFile(from, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer tree.Close()
	return Bind(tree, to, View{Owner: owner, Clear: restrictions})
}

// restrictions are what a host may have forbidden for its own mounts.
const restrictions = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// CheckIdmap says whether the tree at path can be mounted idmapped, by doing it:
// nobody sees the mount, and nothing is left of it.
func CheckIdmap(path string) error {
	tree, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer tree.Close()
	mount, err := detached(tree, View{Owner: RangeSize})
	if err != nil {
		return err
	}
	return mount.Close()
}

// detached makes the mount of Bind. Until it is attached, Close unmounts it.
func detached(from *os.File, view View) (_ *os.File, err error) {
	depth := uint(0)
	if view.Below {
		depth = unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(int(from.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|depth)
	if err != nil {
		return nil, fmt.Errorf("open_tree %s: %w", from.Name(), err)
	}
	mount := os.NewFile(uintptr(fd), from.Name())
	defer func() {
		if err != nil {
			mount.Close()
		}
	}()
	// Private: what the host mounts below later would come without these attributes.
	attr := unix.MountAttr{Attr_set: view.Set, Attr_clr: view.Clear, Propagation: unix.MS_PRIVATE}
	if view.Owner > 0 {
		namespace, err := userNamespace(view.Owner)
		if err != nil {
			return nil, fmt.Errorf("user namespace for ids from %d: %w", view.Owner, err)
		}
		defer namespace.Close()
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(namespace.Fd())
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|depth, &attr); err != nil {
		if view.Owner > 0 && (err == unix.EINVAL || err == unix.EOPNOTSUPP) {
			return nil, fmt.Errorf("idmapped mount of %s: %w: this file system or kernel offers none (ext4, xfs, btrfs: Linux 5.15; overlay upon them: 5.19)", from.Name(), err)
		}
		return nil, fmt.Errorf("mount_setattr %s: %w", from.Name(), err)
	}
	return mount, nil
}

// userNamespace returns a user namespace that maps ids from 0 to owner, and
// hostRoot to the host's root. A namespace needs a process to be born in; this
// one sleeps, and is killed at once. Tracing would stop it before its first
// instruction, but where kernel.yama.ptrace_scope is 3 nobody traces.
func userNamespace(owner int) (*os.File, error) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		return nil, err
	}
	runtime.LockOSThread() // Pdeathsig takes the thread for the parent
	defer runtime.UnlockOSThread()
	mappings := []syscall.SysProcIDMap{
		{ContainerID: 0, HostID: owner, Size: RangeSize},
		{ContainerID: hostRoot, HostID: 0, Size: 1},
	}
	process, err := os.StartProcess(sleep, []string{"sleep", "infinity"}, &os.ProcAttr{
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: mappings,
			GidMappings: mappings,
			Pdeathsig:   unix.SIGKILL,
		},
	})
	if err != nil {
		return nil, err
	}
	defer process.Wait()
	defer process.Kill()
	return os.Open(fmt.Sprintf("/proc/%d/ns/user", process.Pid))
}
