package debian

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/image/build"
	"nspawn-runner/runner/lock"
	"nspawn-runner/runner/storage"
)

// A base is the tree of a bootstrap, saved so that the next image that is made of the
// same begins with a copy of it. No job and no playbook has been in it, and machines
// never run on it.
//
//	.bases/KEY/tree         KEY stands for all that the bootstrap was told
//	.bases/KEY/base.json    its record; without one the tree is half-made
//	.bases/KEY/lock         locked by a build that makes or copies it, and by its removal
//
// Nothing of a base is synced to disk. Instead its record names the host's boot:
// what an earlier boot left is not used.
type base struct {
	dir    string
	lock   *os.File
	maxAge time.Duration
}

// baseRecord is base.json.
type baseRecord struct {
	Suite string    `json:"suite"` // for people
	Made  time.Time `json:"made"`
	Boot  string    `json:"boot"` // boot_id, see random(4)
}

// Bases are the bases of one state directory.
type Bases struct {
	Dir string
	// MaxAge is how old a base may be that a new image is a copy of; 0 for no bases.
	MaxAge time.Duration
}

// maxBases is how many bases there may be.
const maxBases = 6

// open locks the base of a bootstrap for a build, whether it exists or not. Where there
// are to be no bases it is nil, which is never fresh and saves nothing.
func (s Bases) open(ctx context.Context, b *build.Build, o Bootstrap, exceptions []string) (*base, error) {
	if s.MaxAge == 0 {
		return nil, nil
	}
	key, err := baseKey(o, exceptions)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.Dir, key)
	path := filepath.Join(dir, "lock")
	held, err := lock.TryFile(path, lock.Exclusive)
	if errors.Is(err, lock.ErrBusy) {
		b.Note("wait for another image's bootstrap of " + o.Suite + ", or its copy of one")
		held, err = lock.File(ctx, path, lock.Exclusive)
	}
	if err != nil {
		return nil, err
	}
	return &base{dir: dir, lock: held, maxAge: s.MaxAge}, nil
}

// baseKey names what a bootstrap would make.
func baseKey(o Bootstrap, exceptions []string) (string, error) {
	var keys []byte
	if o.Keyring != "" {
		var err error
		if keys, err = os.ReadFile(o.Keyring); err != nil {
			return "", fmt.Errorf("keyring: %w", err)
		}
	}
	text, err := json.Marshal([]any{o, keys, exceptions, runtime.GOARCH})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s-%x", o.Suite, sha256.Sum256(text))[:len(o.Suite)+17], nil
}

// close unlocks the base.
func (b *base) close() {
	if b != nil {
		b.lock.Close()
	}
}

// fresh says whether there is a whole base that is not too old.
func (b *base) fresh() bool { return b != nil && whyNotFresh(b.dir, b.maxAge) == "" }

// whyNotFresh says why no build uses a base, or "".
func whyNotFresh(dir string, maxAge time.Duration) string {
	text, err := os.ReadFile(filepath.Join(dir, "base.json"))
	var record baseRecord
	if err != nil || json.Unmarshal(text, &record) != nil {
		return "it is half-made"
	}
	if record.Boot != host.BootID() {
		return "the host has been rebooted since"
	}
	if age := time.Since(record.Made); age < 0 || age >= maxAge { // the clock may have been set back
		return "it is too old (base_max_age)"
	}
	return ""
}

// copyTo makes a tree at the path to, which must not exist.
func (b *base) copyTo(ctx context.Context, to string) error {
	now := time.Now()
	if err := os.Chtimes(filepath.Join(b.dir, "base.json"), now, now); err != nil { // see Stale
		return err
	}
	return storage.Clone(ctx, filepath.Join(b.dir, "tree"), to)
}

// save makes a copy of a tree that a bootstrap just made the base.
func (b *base) save(ctx context.Context, tree string) error {
	if b == nil {
		return nil
	}
	made := time.Now()
	err := b.clear(ctx)
	if err == nil {
		err = storage.Clone(ctx, tree, filepath.Join(b.dir, "tree"))
	}
	if err != nil { // of a full disk, most likely
		return errors.Join(err, b.clear(context.WithoutCancel(ctx)))
	}
	fault.Here("image: base copied")
	text, err := json.Marshal(baseRecord{Suite: filepath.Base(b.dir), Made: made, Boot: host.BootID()})
	if err != nil {
		return err
	}
	next := filepath.Join(b.dir, "next.json")
	if err := os.WriteFile(next, append(text, '\n'), 0o600); err != nil {
		return err
	}
	fault.Here("image: base's next record written")
	return os.Rename(next, filepath.Join(b.dir, "base.json"))
}

// clear removes all but the lock: the record first.
func (b *base) clear(ctx context.Context) error {
	for _, name := range []string{"base.json", "next.json", "tree"} {
		fault.Here("image: about to remove the base's " + name)
		if err := storage.Remove(ctx, filepath.Join(b.dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// remove removes all of it, the lock last: until then no build begins one here.
func (b *base) remove(ctx context.Context) error {
	if err := b.clear(ctx); err != nil {
		return err
	}
	if err := os.Remove(b.lock.Name()); err != nil {
		return err
	}
	if err := os.Remove(b.dir); !errors.Is(err, unix.ENOTEMPTY) { // then a build begins one now
		return err
	}
	return nil
}

// StaleBase is a base that is of no use any more.
type StaleBase struct {
	Dir     string
	Why     string // for people
	surplus bool   // it is fresh, but there are too many
	maxAge  time.Duration
}

// Stale lists the bases that no build can use any more, and those beyond maxBases that
// were not used for the longest time.
func (s Bases) Stale() ([]StaleBase, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	used := func(dir string) int64 {
		info, err := os.Stat(filepath.Join(dir, "base.json"))
		if err != nil {
			return 0
		}
		return info.ModTime().UnixNano()
	}
	var dirs []string
	for _, entry := range entries {
		dirs = append(dirs, filepath.Join(s.Dir, entry.Name()))
	}
	slices.SortFunc(dirs, func(a, b string) int { return cmp.Compare(used(b), used(a)) })
	var stale []StaleBase
	for i, dir := range dirs {
		if why := whyNotFresh(dir, s.MaxAge); why != "" {
			stale = append(stale, StaleBase{Dir: dir, Why: why, maxAge: s.MaxAge})
		} else if i >= maxBases {
			stale = append(stale, StaleBase{Dir: dir, Why: "there are too many", surplus: true, maxAge: s.MaxAge})
		}
	}
	return stale, nil
}

// InUse says whether a build makes or copies the base at this moment.
func (stale StaleBase) InUse() bool { return lock.IsHeld(filepath.Join(stale.Dir, "lock")) }

// Remove removes the base, unless it is in use, or has been made anew.
func (stale StaleBase) Remove(ctx context.Context) error {
	held, err := lock.TryFile(filepath.Join(stale.Dir, "lock"), lock.Exclusive)
	if errors.Is(err, lock.ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer held.Close()
	if !stale.surplus && whyNotFresh(stale.Dir, stale.maxAge) == "" {
		return nil
	}
	return (&base{dir: stale.Dir, lock: held}).remove(ctx)
}

// Prune removes all stale bases.
func (s Bases) Prune(ctx context.Context) error {
	all, err := s.Stale()
	for _, stale := range all {
		err = errors.Join(err, stale.Remove(ctx))
	}
	return err
}
