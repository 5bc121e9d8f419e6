package storage

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// LockDirectory opens a directory, which must not be a link, and waits for its
// lock: unix.LOCK_EX or LOCK_SH of flock(2). The lock ends with Close, or with
// the process.
func LockDirectory(ctx context.Context, path string, how int) (*os.File, error) {
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- unix.Flock(int(dir.Fd()), how) }()
	select {
	case err := <-done:
		if err != nil {
			dir.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return dir, nil
	case <-ctx.Done():
		go func() { <-done; dir.Close() }()
		return nil, fmt.Errorf("wait for the lock of %s: %w", path, context.Cause(ctx))
	}
}
