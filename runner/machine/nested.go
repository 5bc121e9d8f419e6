package machine

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/storage"
)

// allowNested mounts what a systemd-nspawn in a machine needs besides the mounts beneath the machine's root.
// leader is the machine's first process.
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
		// The thread is never unlocked, so it ends with this goroutine: it is in another mount
		// namespace and has another user.
		runtime.LockOSThread()
		done <- mountForNspawn(mounts, record.RootUID)
	}()
	select {
	case err = <-done:
	case <-ctx.Done(): // the thread may wait for the kernel's lock of all mounts
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf(`mount /run/systemd/nspawn for containers: %w; "nesting: false" turns this off`, err)
	}
	return nil
}

// mountForNspawn mounts a tmpfs on /run/systemd/nspawn of a machine. machine is its mount namespace, owner the
// user id of its root. A systemd-nspawn in the machine mounts parts of this directory in its containers, with
// other flags. It could not do this with the machine's /run, which was mounted outside the machine's user
// namespace: root in the machine cannot clear its flags (mount_namespaces(7)).
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
	// The machine's systemd may make /run/systemd at this moment, and must be able to write there.
	if err := unix.Setfsgid(owner); err != nil {
		return err
	}
	if err := unix.Setfsuid(owner); err != nil {
		return err
	}
	// No link is followed. Programs of the image run by now, and a link through /proc could lead to the
	// mount namespace of other threads of this program, which is the host's.
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
