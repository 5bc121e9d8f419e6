package storage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
)

// stores are the directories of /var/lib in which programs such as docker and podman keep containers. They
// mount overlays there. The kernel allows no upper layer on another overlay, such as a machine's root. So
// these directories are mounts from the file system below the root's upper layer.
var stores = []string{"docker", "containerd", "containers", "buildkit"}

// mountStores makes the stores in dir and mounts them below root, which is an overlay.
func mountStores(root, dir string, owner int) error {
	lib, err := OpenIn(root, "var/lib", unix.O_DIRECTORY)
	if errors.Is(err, os.ErrNotExist) {
		return nil // no Debian
	}
	if err != nil {
		return err
	}
	defer lib.Close()
	for _, name := range stores {
		if err := mountStore(root, lib, name, filepath.Join(dir, "store-"+name), owner); err != nil {
			return fmt.Errorf("/var/lib/%s beside the root: %w", name, err)
		}
	}
	fault.Here("storage: stores mounted")
	return nil
}

// otherwise are the errors for an image that has something else in place of the directory, such as a link to
// the path of a bind. Such an image gets no store there.
var otherwise = []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP}

// mountStore makes a store and mounts it. The store begins with the files that the image has there.
func mountStore(root string, lib *os.File, name, store string, owner int) error {
	err := unix.Mkdirat(int(lib.Fd()), name, 0o700)
	if err == nil {
		err = unix.Fchownat(int(lib.Fd()), name, owner, owner, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	at, err := OpenIn(root, filepath.Join("var/lib", name), unix.O_DIRECTORY) // it may be a link
	if slices.ContainsFunc(otherwise, func(is error) bool { return errors.Is(err, is) }) {
		return nil
	}
	if err != nil {
		return err
	}
	defer at.Close()
	if err := fillStore(store, at, owner); err != nil {
		return err
	}
	from, err := os.OpenFile(store, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	mount, err := detached(from, View{Clear: restrictions})
	if err != nil {
		return err
	}
	defer mount.Close()
	return unix.MoveMount(int(mount.Fd()), "", int(at.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// fillStore makes a store with the mode and the files of a directory in the machine's root. The files have the
// ids of the machine.
func fillStore(store string, like *os.File, owner int) error {
	if _, err := like.Readdirnames(1); !errors.Is(err, io.EOF) {
		out, err := exec.Command("cp", "--archive", "--no-target-directory", "--", fmt.Sprintf("/proc/%d/fd/%d/.", os.Getpid(), like.Fd()), store).CombinedOutput()
		if err != nil {
			return fmt.Errorf("copy what the image has: %w: %s", err, lastLine(out))
		}
		return nil
	}
	info, err := like.Stat()
	if err != nil {
		return err
	}
	if err := os.Mkdir(store, info.Mode().Perm()); err != nil {
		return err
	}
	return os.Chown(store, owner, owner)
}
