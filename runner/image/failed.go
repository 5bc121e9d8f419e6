package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
)

// The tree of a build whose playbook or test failed is kept, so that an administrator
// can look into it: the last one of each image, as .failed among its generations.
// It goes with the next build that is well, and with a prune or a removal.

// failed is where the tree of an image's failed build lies, if there is one.
func (s *Store) failed(name string) string { return filepath.Join(s.generations(name), ".failed") }

// KeptError says that a build failed, and that its tree was kept.
type KeptError struct {
	Image string
	Err   error
}

func (e *KeptError) Error() string {
	return fmt.Sprintf("%v; 'nspawn-runner chroot-login --failed %s' opens its tree", e.Err, e.Image)
}

// Unwrap returns why the build failed.
func (e *KeptError) Unwrap() error { return e.Err }

// keepFailed keeps the tree at root of a build, which failed of err. It needs the lock
// .build. Whenever this process is killed, there is one whole failed tree or
// none: an older one changes places with this one, and then clean removes it as
// what a build left.
func (s *Store) keepFailed(name, root string, err error) error {
	failed := s.failed(name)
	keepErr := unix.Renameat2(unix.AT_FDCWD, root, unix.AT_FDCWD, failed, unix.RENAME_EXCHANGE)
	if errors.Is(keepErr, fs.ErrNotExist) {
		keepErr = os.Rename(root, failed)
	}
	if keepErr != nil {
		return errors.Join(err, fmt.Errorf("keep its tree: %w", keepErr))
	}
	fault.Here("image: failed tree kept")
	return &KeptError{Image: name, Err: err}
}

// errNothingFailed is the cause when there is no failed build to look at.
var errNothingFailed = errors.New("there is no failed build to look at")

// Failed returns the root of the tree that the last build of an image left, if
// its playbook or its test failed. Else the error is an *UnknownError or
// errNothingFailed. The image need not have a chroot.
func (s *Store) Failed(name string) (root string, err error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	if isDir(s.failed(name)) {
		return s.failed(name), nil
	}
	if _, err := s.Get(name); err != nil {
		return "", err
	}
	return "", fmt.Errorf("image %s: %w", name, errNothingFailed)
}

// Inspect calls look with the root of an image's failed build. As long as it
// takes, no build of the image begins, which could replace the tree.
func (s *Store) Inspect(ctx context.Context, name string, look func(ctx context.Context, root string) error) error {
	if _, err := s.Failed(name); err != nil { // before a directory is made for it
		return err
	}
	lock, err := s.lockBuild(ctx, name, false)
	if err != nil {
		return fmt.Errorf("image %s: %w", name, err)
	}
	defer lock.Close()
	root, err := s.Failed(name)
	if err != nil {
		return err
	}
	// For an operation that waits: see builder. A dash is not a stamp, so nothing is removed for it.
	if _, err := lock.WriteAt(fmt.Appendf(nil, "-\n%d\n", os.Getpid()), 0); err != nil {
		return err
	}
	return errors.Join(look(ctx, root), lock.Truncate(0))
}
