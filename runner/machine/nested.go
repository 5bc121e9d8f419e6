package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/storage"
)

// allowNested gives a machine, whose first process is there, what systemd-nspawn needs in it
// beside what lies beneath its root.
func (s Store) allowNested(ctx context.Context, leader host.Process, record Record) error {
	if record.NoNesting {
		return nil
	}
	mounts, err := leader.Namespace("mnt")
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer mounts.Close()
		// This goroutine's thread is never unlocked, so that it ends with it: it has another
		// mount namespace and another user.
		runtime.LockOSThread()
		done <- mountForNspawn(mounts, record.RootUID)
	}()
	select {
	case err = <-done:
	case <-ctx.Done(): // the thread may wait for the kernel's lock of all mounts
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf(`mount /run/systemd/nspawn for containers: %w; "nesting: false" turns this off`, err)
	}
	return nil
}

// mountForNspawn mounts what is /run/systemd/nspawn in the machine with a mount namespace and a
// root with a user id: systemd-nspawn in there mounts parts of that directory in its containers,
// with flags of its own. With the machine's /run it could not, because that was mounted outside
// the machine's user namespace, whose root may take none of its flags away (mount_namespaces(7)).
func mountForNspawn(machine *os.File, owner int) error {
	mount, err := detachedMount("tmpfs", "size=1m", "nr_inodes=1k", "mode=0755", fmt.Sprintf("uid=%d", owner), fmt.Sprintf("gid=%d", owner))
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Setns(int(machine.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter its mounts: %w", err)
	}
	// The machine's systemd, which makes /run/systemd at this moment, must be able to write there.
	if err := unix.Setfsgid(owner); err != nil {
		return err
	}
	if err := unix.Setfsuid(owner); err != nil {
		return err
	}
	// This follows no link: the image's first programs run by now, and one through /proc leads to
	// what other threads of this program see, the host.
	at, err := storage.OpenIn("/", "run", unix.O_PATH|unix.O_DIRECTORY)
	for _, name := range []string{"systemd", "nspawn"} {
		if err != nil {
			return err
		}
		defer at.Close()
		at, err = makeIn(at, name)
	}
	if err != nil {
		return err
	}
	defer at.Close()
	if err := unix.MoveMount(mount, "", int(at.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount to %s: %w", at.Name(), err)
	}
	return nil
}

// makeIn makes a directory in another one, unless it is there, and opens it.
func makeIn(dir *os.File, name string) (*os.File, error) {
	if err := unix.Mkdirat(int(dir.Fd()), name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make %s/%s: %w", dir.Name(), name, err)
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s/%s: %w", dir.Name(), name, err)
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir.Name(), name)), nil
}
