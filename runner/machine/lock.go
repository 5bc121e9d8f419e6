package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/lock"
)

// lock takes the exclusive lock of a machine: its directory, which is made
// when create is set. The lock ends with Close or with the process. Without
// create, a machine that is not there is fs.ErrNotExist.
func (s Store) lock(ctx context.Context, id string, create bool) (*os.File, error) {
	for {
		dir, err := lock.Directory(ctx, s.dir(id), lock.Exclusive)
		if errors.Is(err, fs.ErrNotExist) && create {
			dir, err = s.makeLocked(id)
			if errors.Is(err, fs.ErrExist) {
				continue
			}
		}
		return dir, err
	}
}

// makeLocked makes a machine's directory, or fails with fs.ErrExist. It is
// locked before it has its name: Collect takes a directory without a lock and
// without a record for one whose maker was killed.
func (s Store) makeLocked(id string) (*os.File, error) {
	made, err := os.MkdirTemp(s.Dir, fmt.Sprintf("%s%d-", beingMade, host.Uptime()/time.Second)) // of mode 0700
	if err != nil {
		return nil, err
	}
	fault.Here("machine: directory made aside")
	dir, err := lock.TryDirectory(made, lock.Exclusive)
	if err == nil {
		fault.Here("machine: directory locked")
		err = unix.Renameat2(unix.AT_FDCWD, made, unix.AT_FDCWD, s.dir(id), unix.RENAME_NOREPLACE)
	}
	if err != nil {
		_ = os.Remove(made) // Collect does otherwise
		if dir != nil {
			dir.Close()
		}
		return nil, err
	}
	fault.Here("machine: directory named")
	return dir, nil
}

// beingMade begins the name of a directory that is to be a machine's. The time follows
// at which it was made, in seconds of uptime.
const beingMade = ".new-"

// isBeingMade says whether a directory may not be locked yet by who makes it: for a
// minute, which is longer than anybody needs for that.
func isBeingMade(name string) bool {
	text, is := strings.CutPrefix(name, beingMade)
	seconds, _, timed := strings.Cut(text, "-")
	made, err := strconv.Atoi(seconds)
	age := host.Uptime() - time.Duration(made)*time.Second
	return is && timed && err == nil && age >= 0 && age < time.Minute
}

// tryLock is lock without waiting and without making anything.
func (s Store) tryLock(id string) (*os.File, error) {
	return lock.TryDirectory(s.dir(id), lock.Exclusive)
}
