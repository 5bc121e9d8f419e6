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

	"nspawn-runner/runner/fault"
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
	fault.Here("storage: a tree resists its removal")
	// Something in it resists. Soften the whole tree and try again; the
	// second error is the one that counts.
	if softenErr := soften(ctx, path); softenErr != nil && !errors.Is(softenErr, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, softenErr)
	}
	fault.Here("storage: a tree softened")
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

func lastLine(out []byte) []byte {
	out = bytes.TrimSpace(out)
	return out[bytes.LastIndexByte(out, '\n')+1:]
}
