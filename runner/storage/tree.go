package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Clone copies the tree from to the path to, which must not exist: a snapshot
// where from is a btrfs subvolume, else a copy that shares blocks where the
// file system can and keeps hard links, extended attributes, ACLs, holes and
// owners. On btrfs the copy is a subvolume, so that the next one is a snapshot.
func Clone(ctx context.Context, from, to string) error {
	subvolume, err := IsSubvolume(from)
	if err != nil {
		return err
	}
	if subvolume {
		return Snapshot(from, to)
	}
	if err := Create(to); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "cp", "--archive", "--reflink=auto", "--no-target-directory", "--", from, to)
	// Whoever removes what a killed build left must not race with its copy.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the kernel takes the thread for the parent
	defer runtime.UnlockOSThread()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("copy %s to %s: %w: %s", from, to, err, lastLine(out))
	}
	return nil
}

// Remove deletes whatever is at path: file, tree or subvolume, with read-only
// and nested subvolumes, immutable and append-only files inside. Links are
// deleted, not followed. That nothing is there is success. It must not be used
// on a tree that a running machine can still change.
func Remove(ctx context.Context, path string) error {
	destroyShallow(path)
	err := os.RemoveAll(path)
	if err == nil {
		return nil
	}
	// Something in it resists. Soften the whole tree and try again; the
	// second error is the one that counts.
	if softenErr := soften(ctx, path); softenErr != nil && !errors.Is(softenErr, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, softenErr)
	}
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// destroyShallow deletes path, and what lies directly in it, where that is a
// btrfs subvolume without others inside: one call in place of one a file. What
// it leaves, Remove finds.
func destroyShallow(path string) {
	if info, err := os.Lstat(path); err != nil || !info.IsDir() {
		return
	}
	if is, err := IsSubvolume(path); err == nil && is && destroySubvolume(filepath.Dir(path), filepath.Base(path)) == nil {
		return
	}
	if on, err := IsBtrfs(path); err != nil || !on {
		return
	}
	entries, _ := os.ReadDir(path)
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		if is, err := IsSubvolume(filepath.Join(path, entry.Name())); err == nil && is {
			_ = destroySubvolume(path, entry.Name())
		}
	}
}

// soften takes from a tree what keeps root from deleting it: attribute flags
// and subvolumes, the deepest first.
func soften(ctx context.Context, top string) error {
	onBtrfs, err := IsBtrfs(top)
	if err != nil {
		return err
	}
	var subvolumes []string
	err = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil || !(entry.IsDir() || entry.Type().IsRegular()) {
			return nil
		}
		if onBtrfs && entry.IsDir() {
			if is, err := IsSubvolume(path); err == nil && is {
				subvolumes = append(subvolumes, path)
				// Read-only ones must be opened up before files inside can change.
				if err := makeWritable(path); err != nil {
					return err
				}
			}
		}
		clearFlags(path)
		return nil
	})
	if err != nil {
		return err
	}
	for i := len(subvolumes) - 1; i >= 0; i-- {
		if err := destroySubvolume(filepath.Dir(subvolumes[i]), filepath.Base(subvolumes[i])); err != nil {
			return err
		}
	}
	return nil
}

// The flags of chattr(1), FS_IMMUTABLE_FL and FS_APPEND_FL of linux/fs.h.
const (
	immutable  = 0x10
	appendOnly = 0x20
)

// clearFlags removes the immutable and append-only flags of chattr(1) from a
// file. Failure shows when the file cannot be deleted.
func clearFlags(path string) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil || flags&(immutable|appendOnly) == 0 {
		return
	}
	_ = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags&^(immutable|appendOnly))
}

func lastLine(out []byte) []byte {
	out = bytes.TrimSpace(out)
	return out[bytes.LastIndexByte(out, '\n')+1:]
}
