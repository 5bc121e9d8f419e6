package storage

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
)

// Clone copies the tree from to the path to, which must not exist. If from is a btrfs subvolume, the copy is a
// snapshot. Otherwise it shares blocks if the file system can, and keeps hard links, extended attributes, ACLs,
// holes and owners. On btrfs the copy is a subvolume, so that the next copy is a snapshot.
func Clone(ctx context.Context, from, to string) error {
	subvolume, err := IsSubvolume(from)
	if err != nil {
		return err
	}
	if subvolume {
		return snapshotOf(from, to)
	}
	if err := Create(to); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "cp", "--archive", "--reflink=auto", "--no-target-directory", "--", from, to)
	// cp ends with this process: otherwise it would still write when the leftovers of a killed build are
	// removed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // for Pdeathsig, this thread is the parent
	defer runtime.UnlockOSThread()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("copy %s to %s: %w: %s", from, to, err, lastLine(out))
	}
	return nil
}

func lastLine(out []byte) []byte {
	out = bytes.TrimSpace(out)
	return out[bytes.LastIndexByte(out, '\n')+1:]
}
