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

// lock takes the exclusive lock of a machine, which is on its directory. With create, it makes the
// directory if there is none; without, that is fs.ErrNotExist. The lock ends with Close or with the
// process.
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

// makeLocked makes a machine's directory and locks it. If the directory exists, the error is
// fs.ErrExist. The directory is locked before it gets its name: Collect removes a directory without a
// lock and a record, because its maker was killed.
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
		_ = os.Remove(made) // if this fails, Collect does it
		if dir != nil {
			dir.Close()
		}
		return nil, err
	}
	fault.Here("machine: directory named")
	return dir, nil
}

// beingMade is the prefix of directories that makeLocked has not named yet. The time at which the
// directory was made follows, in seconds of uptime.
const beingMade = ".new-"

// isBeingMade says whether a directory may still get its lock and its name. Its maker gets a minute,
// which is more than it needs.
func isBeingMade(name string) bool {
	text, is := strings.CutPrefix(name, beingMade)
	seconds, _, timed := strings.Cut(text, "-")
	made, err := strconv.Atoi(seconds)
	age := host.Uptime() - time.Duration(made)*time.Second
	return is && timed && err == nil && age >= 0 && age < time.Minute
}

// tryLock is lock without create, and without waiting.
func (s Store) tryLock(id string) (*os.File, error) {
	return lock.TryDirectory(s.dir(id), lock.Exclusive)
}
