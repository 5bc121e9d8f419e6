package harness

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"nspawn-runner/runner/lock"
)

// site is all of a host that is not a process: a directory in the cache, whose
// lock says that the host is alive, and, of a lab, the control groups of the
// same name.
type site struct {
	dir   string
	lock  *os.File
	fence fence
}

// sitePrefix begins the name of each host that this process makes; tests have
// their own.
var sitePrefix = "nspawn-runner-host-"

// clearLimit is the most that the kernel may take to let go of a dead host: it writes what the
// host's own file systems have in memory to the disk, which may be slow.
const clearLimit = time.Minute

// newSite makes the place for a new host, and clears away those that killed
// processes left behind.
func newSite(ctx context.Context) (*site, error) {
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	hosts := filepath.Join(cache, "hosts")
	if err := os.MkdirAll(hosts, 0o700); err != nil {
		return nil, err
	}
	// Nobody may take a new site for an old one before it is locked.
	all, err := lock.Directory(ctx, hosts, lock.Exclusive)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	old, _ := filepath.Glob(filepath.Join(hosts, "*"))
	for _, dir := range old {
		held, err := lock.TryDirectory(dir, lock.Exclusive)
		if err != nil {
			continue // alive
		}
		// One that resists must not keep new hosts from starting.
		if s, err := openSite(dir, held); err == nil {
			_ = s.clear()
			held.Close()
		}
	}

	dir := filepath.Join(hosts, sitePrefix+strings.ToLower(rand.Text()[:6]))
	if err := os.MkdirAll(filepath.Join(dir, "scratch"), 0o755); err != nil {
		return nil, err
	}
	held, err := lock.TryDirectory(dir, lock.Exclusive)
	if err != nil {
		return nil, err
	}
	return openSite(dir, held)
}

// openSite is the site in a directory that is locked.
func openSite(dir string, lock *os.File) (*site, error) {
	fence, err := newFence(filepath.Base(dir))
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &site{dir, lock, fence}, nil
}

// path is a file of the site; "scratch" is a directory, the others are named
// where they are made.
func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// clear removes all that a dead host has left, and kills it first if it is not
// quite dead.
func (s *site) clear() error {
	ctx, cancel := context.WithTimeout(context.Background(), clearLimit)
	defer cancel()
	if err := s.fence.raze(ctx); err != nil {
		return err
	}
	// A lab's mounts went with its last process, or will in a moment.
	for {
		found, err := detachLoops(s.path("scratch"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if found == 0 {
			break
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			return fmt.Errorf("loop: %d devices on files of %s are still in use", found, s.dir)
		}
	}
	if os.RemoveAll(s.dir) != nil {
		// Files that are immutable need a second try.
		_ = exec.CommandContext(ctx, "chattr", "-R", "-f", "-i", "-a", s.dir).Run()
		return os.RemoveAll(s.dir)
	}
	return nil
}
