// Package lock has all uses of flock(2) in this program.
//
// A lock belongs to an open file or directory. It ends when the file is closed, or the process ends. So no lock needs a
// clean-up after a crash. Processes must agree on what is locked. So a lock counts only if its path still leads to the
// locked file: the process that had the lock before may have removed or moved it.
//
// To wait for a lock is to try again. A try takes 42 us on a busy host, so a process that waits takes less than 1% of a
// processor. A flock(2) that waits in the kernel cannot be cancelled: its thread would get the lock later, and keep it from
// others for a moment.
package lock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Mode says which other locks a lock excludes.
type Mode int

const (
	// Shared locks exclude Exclusive ones only.
	Shared Mode = unix.LOCK_SH
	// Exclusive locks exclude all others.
	Exclusive Mode = unix.LOCK_EX
)

// ErrBusy is the cause if another process has the lock, or has just removed the locked file.
var ErrBusy = errors.New("another process has the lock")

// Directory locks a directory. It waits for the lock until ctx ends. It does not follow a link. If the directory does
// not exist, or is removed meanwhile, the error is fs.ErrNotExist.
func Directory(ctx context.Context, path string, mode Mode) (*os.File, error) {
	return wait(ctx, path, func() (*os.File, error) { return TryDirectory(path, mode) })
}

// TryDirectory is Directory without waiting: if another process has the lock, the error is ErrBusy.
func TryDirectory(path string, mode Mode) (*os.File, error) {
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	return take(dir, mode)
}

// File locks a file that exists only to be locked; it may say which process has the lock. It waits for the lock until
// ctx ends. It makes the file and its directory if they do not exist. It does not follow a link.
func File(ctx context.Context, path string, mode Mode) (*os.File, error) {
	return wait(ctx, path, func() (*os.File, error) { return TryFile(path, mode) })
}

// TryFile is File without waiting: if another process has the lock, the error is ErrBusy.
func TryFile(path string, mode Mode) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrBusy // the directory was removed just now
	}
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	return take(file, mode)
}

// IsHeld says whether another process has an exclusive lock on a file. It makes no file.
func IsHeld(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	return flock(file, Shared) != nil
}

// Pause is the longest time between two tries of a process that waits. A process that takes a lock again and again must
// leave it free for longer than that in between, so that others get it.
const Pause = 5 * time.Millisecond

// wait tries to take a lock until it has it.
func wait(ctx context.Context, path string, try func() (*os.File, error)) (*os.File, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, Pause) { // most locks are held for a moment
		file, err := try()
		if !errors.Is(err, ErrBusy) {
			return file, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the lock %s: %w", path, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// take locks an open file. If that fails, it closes the file.
func take(file *os.File, mode Mode) (*os.File, error) {
	err := flock(file, mode)
	if err == nil {
		err = checkNamed(file)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func flock(file *os.File, mode Mode) error {
	err := unix.Flock(int(file.Fd()), int(mode)|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return ErrBusy
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	return nil
}

// checkNamed returns ErrBusy if a file's path does not lead to it any more.
func checkNamed(file *os.File) error {
	locked, err := file.Stat()
	if err != nil {
		return err
	}
	named, err := os.Lstat(file.Name())
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(locked, named) {
		return ErrBusy
	}
	return err
}
