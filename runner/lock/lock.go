// Package lock is the program's one use of flock(2).
//
// A lock belongs to an open file or directory. It ends when that is closed, or when
// the process ends, however it ends: no lock has to be cleaned up after a crash. All
// processes that take a lock must agree on what is locked. So a lock counts only if
// its path still leads to what was locked: whoever had the lock before may have removed
// it, or moved it away.
//
// Waiting is trying again, and not flock(2) without LOCK_NB: a context could not end
// that, and its thread would stay until it had the lock.
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

// Mode says with whom a lock is shared.
type Mode int

const (
	// Shared locks exclude Exclusive ones only.
	Shared Mode = unix.LOCK_SH
	// Exclusive locks exclude all others.
	Exclusive Mode = unix.LOCK_EX
)

// ErrBusy is the cause when another holder has the lock, or has just removed what it
// was on.
var ErrBusy = errors.New("another process has the lock")

// Directory locks a directory, and waits for that until ctx ends. A link is not
// followed. A directory that is not there is fs.ErrNotExist, also one that goes while
// its lock is waited for.
func Directory(ctx context.Context, path string, mode Mode) (*os.File, error) {
	return wait(ctx, path, func() (*os.File, error) { return TryDirectory(path, mode) })
}

// TryDirectory is Directory without waiting: a lock that cannot be had is ErrBusy.
func TryDirectory(path string, mode Mode) (*os.File, error) {
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	return take(dir, mode)
}

// File locks a file that is nothing but a lock, or says who has it, and waits for that
// until ctx ends. It is made where there is none, and so is its directory. A link is
// not followed.
func File(ctx context.Context, path string, mode Mode) (*os.File, error) {
	return wait(ctx, path, func() (*os.File, error) { return TryFile(path, mode) })
}

// TryFile is File without waiting: a lock that cannot be had is ErrBusy.
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

// IsHeld says whether a file is locked exclusively. It makes no file.
func IsHeld(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	return flock(file, Shared) != nil
}

// Pause is how long a wait sleeps at most between two tries. Whoever takes a lock again
// and again leaves it for longer than that in between, so that others get it.
const Pause = 5 * time.Millisecond

// wait tries to take a lock until it has it.
func wait(ctx context.Context, path string, try func() (*os.File, error)) (*os.File, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, Pause) { // most are held for a moment
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

// take locks an open file, or closes it.
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

// checkNamed says whether a file's path still leads to it.
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
