package image

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/lock"
	"nspawn-runner/runner/storage"
)

// A base is the tree of a bootstrap, kept aside, so that the next image that is
// made of the same begins with a copy of it. It has no job and no playbook in
// it, and machines never run on it.
//
//	.bases/KEY/tree         KEY stands for all that the bootstrap was told
//	.bases/KEY/base.json    its record; without one the tree is half-made
//	.bases/KEY/lock         locked by who makes, copies or removes it
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

// keptBases is how many bases there may be.
const keptBases = 6

func (s *Store) bases() string { return filepath.Join(s.StateDir, ".bases") }

// openBase locks the base of a bootstrap, whether it exists or not. Where there
// are to be no bases it is nil, which is never fresh and keeps nothing.
func (s *Store) openBase(ctx context.Context, image string, o Bootstrap, exceptions []string) (*base, error) {
	if s.BaseMaxAge == 0 {
		return nil, nil
	}
	key, err := baseKey(o, exceptions)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.bases(), key)
	held, err := waitLock(ctx, filepath.Join(dir, "lock"), lock.Exclusive, func() error {
		s.note(image, "wait for another image's bootstrap of "+o.Suite+", or its copy of one")
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &base{dir: dir, lock: held, maxAge: s.BaseMaxAge}, nil
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

// Close unlocks the base.
func (b *base) Close() {
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
	if err := os.Chtimes(filepath.Join(b.dir, "base.json"), now, now); err != nil { // see pruneBases
		return err
	}
	return storage.Clone(ctx, filepath.Join(b.dir, "tree"), to)
}

// keep makes a copy of a tree that a bootstrap just made the base.
func (b *base) keep(ctx context.Context, tree string) error {
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

// remove removes all of it, the lock last: until then nobody begins one here.
func (b *base) remove(ctx context.Context) error {
	if err := b.clear(ctx); err != nil {
		return err
	}
	if err := os.Remove(b.lock.Name()); err != nil {
		return err
	}
	if err := os.Remove(b.dir); !errors.Is(err, unix.ENOTEMPTY) { // then somebody begins one now
		return err
	}
	return nil
}

// staleBase is a base that is of no use any more.
type staleBase struct {
	dir, why string
	surplus  bool // it is fresh, but there are too many
}

// staleBases lists the bases that no build can use any more, and those beyond
// keptBases that were not used for the longest time.
func (s *Store) staleBases() ([]staleBase, error) {
	entries, err := readDir(s.bases())
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
		dirs = append(dirs, filepath.Join(s.bases(), entry.Name()))
	}
	slices.SortFunc(dirs, func(a, b string) int { return cmp.Compare(used(b), used(a)) })
	var stale []staleBase
	for i, dir := range dirs {
		if why := whyNotFresh(dir, s.BaseMaxAge); why != "" {
			stale = append(stale, staleBase{dir: dir, why: why})
		} else if i >= keptBases {
			stale = append(stale, staleBase{dir: dir, why: "there are too many", surplus: true})
		}
	}
	return stale, nil
}

// removeBase removes a stale base, unless it is locked, or has been made anew.
func (s *Store) removeBase(ctx context.Context, stale staleBase) error {
	held, err := lock.TryFile(filepath.Join(stale.dir, "lock"), lock.Exclusive)
	if errors.Is(err, lock.ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer held.Close()
	if !stale.surplus && whyNotFresh(stale.dir, s.BaseMaxAge) == "" {
		return nil
	}
	return (&base{dir: stale.dir, lock: held}).remove(ctx)
}

// pruneBases removes all stale bases.
func (s *Store) pruneBases(ctx context.Context) error {
	stale, err := s.staleBases()
	for _, b := range stale {
		err = errors.Join(err, s.removeBase(ctx, b))
	}
	return err
}
