package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// The directory of a store holds:
//
//	sha256-HEX/            an image, named by the digest of its manifest. A job has a shared lock on it
//	                       until its machine is on record; a removal has the exclusive lock.
//	sha256-HEX/tree/       its tree
//	sha256-HEX/image.json  its record; without it, the rest is a leftover of a removal
//	sha256-HEX/used        an empty file: its time is that of the image's last use
//	.names/HEX.json        what a name means: see meaning
//	.pulls/sha256-HEX-N/     an image that is pulled from a repository at the moment
//	.pulls/sha256-HEX-N.lock the lock of this pull, which the process that unpacks has too

// record describes an image that was pulled.
type record struct {
	Digest string    `json:"digest"`
	Size   uint64    `json:"size"`
	Config Config    `json:"config"`
	Pulled time.Time `json:"pulled"`
	// Repositories are those that have shown all its layers.
	Repositories []string `json:"repositories"`
	// Public says that one of them gives it out without credentials.
	Public bool `json:"public"`
}

// meaning is what a name meant when its registry was last asked.
type meaning struct {
	// Name is the complete reference.
	Name string `json:"name"`
	// Top is the digest that the registry answered, maybe of a list of images. Digest is that of the
	// image for this host.
	Top    string `json:"top"`
	Digest string `json:"digest"`
	// Public says that the registry gives this image out under this name without credentials.
	Public bool `json:"public"`
}

// beside returns how many bytes an image counts besides its tree: its configuration, which may be as large as maxConfig,
// and 1 MiB for the files and the time that each image takes. Otherwise a hostile registry could fill the store with a
// hundred thousand empty images.
func beside(c Config) uint64 {
	text, _ := json.Marshal(c) // strings and numbers
	return uint64(len(text)) + 1<<20
}

// wellFormed matches a digest, or the name of a directory for it.
var wellFormed = regexp.MustCompile(`^sha256[:-][0-9a-f]{64}$`)

func (s *Store) path(digest string) string {
	return filepath.Join(s.Dir, strings.Replace(digest, ":", "-", 1))
}

func (s *Store) tree(digest string) string { return filepath.Join(s.path(digest), "tree") }

func (s *Store) pulls() string { return filepath.Join(s.Dir, ".pulls") }

// unfinished returns the directory in which an image from a repository is made. Each repository has a directory
// of its own, because another one may be slow, or never end. The name has 128 bits of a hash, so that a job
// cannot find a second repository with the same one.
func (s *Store) unfinished(digest, repository string) string {
	sum := sha256.Sum256([]byte(repository))
	return filepath.Join(s.pulls(), filepath.Base(s.path(digest))+"-"+hex.EncodeToString(sum[:16]))
}

func (s *Store) names() string { return filepath.Join(s.Dir, ".names") }

// readRecord reads the record of an image. If the image is not here, the error is fs.ErrNotExist.
func (s *Store) readRecord(digest string) (record, error) {
	if !wellFormed.MatchString(digest) {
		return record{}, fs.ErrNotExist
	}
	return readJSON[record](recordPath(s.path(digest)))
}

// recordPath returns the path of the record in the directory of an image or a pull.
func recordPath(dir string) string { return filepath.Join(dir, "image.json") }

// writeRecord writes a record into the directory of an image or a pull.
func writeRecord(dir string, r record) error { return writeJSON(recordPath(dir), r) }

func (s *Store) meaningPath(name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(s.names(), hex.EncodeToString(sum[:16])+".json")
}

// meaningOf returns what a name means. It returns false if that is not known, or the image is not here.
func (s *Store) meaningOf(name string) (meaning, bool) {
	m, err := readJSON[meaning](s.meaningPath(name))
	if err != nil || m.Name != name {
		return meaning{}, false
	}
	_, err = s.readRecord(m.Digest)
	return m, err == nil
}

func (s *Store) writeMeaning(m meaning) error {
	if err := os.MkdirAll(s.names(), 0o700); err != nil {
		return err
	}
	return writeJSON(s.meaningPath(m.Name), m)
}

// meanings returns those of all names.
func (s *Store) meanings() (all []meaning, err error) {
	entries, err := os.ReadDir(s.names())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, entry := range entries {
		if isTemporary(entry) {
			continue
		}
		if m, err := readJSON[meaning](filepath.Join(s.names(), entry.Name())); err == nil && m.Name != "" {
			all = append(all, m)
		}
	}
	return all, nil
}

// mostNames bounds how many names of one image are kept. Each job reads all of them.
const mostNames = 64

// forgetNames removes the oldest names of an image that has more than mostNames: jobs choose tags. If a job uses
// such a name again, the registry is asked for its meaning. Names that the rules list stay.
func (s *Store) forgetNames(digest string) error {
	all, err := s.meanings()
	if err != nil {
		return err
	}
	listed, _ := s.Rules.listed()
	written := map[string]time.Time{} // by path
	for _, m := range all {
		if slices.Contains(listed, m.Name) {
			continue
		}
		path := s.meaningPath(m.Name)
		if info, err := os.Stat(path); err == nil && m.Digest == digest {
			written[path] = info.ModTime()
		}
	}
	oldest := slices.SortedFunc(maps.Keys(written), func(a, b string) int { return written[a].Compare(written[b]) })
	for _, path := range oldest[:max(0, len(oldest)-mostNames)] {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// touch sets the time of an image's last use.
func (s *Store) touch(digest string) error {
	path := filepath.Join(s.path(digest), "used")
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	now := time.Now()
	return errors.Join(file.Close(), os.Chtimes(path, now, now))
}

// image returns an image. all are the meanings of all names. If the image is not here, the error is
// fs.ErrNotExist.
func (s *Store) image(digest string, all []meaning) (Image, error) {
	r, err := s.readRecord(digest)
	if err != nil {
		return Image{}, err
	}
	i := Image{
		Digest: r.Digest, References: []string{}, Path: s.tree(digest),
		Size: r.Size, Config: r.Config, Pulled: r.Pulled, Used: r.Pulled,
	}
	if info, err := os.Stat(filepath.Join(s.path(digest), "used")); err == nil {
		i.Used = info.ModTime()
	}
	for _, m := range all {
		if m.Digest == digest {
			i.References = append(i.References, m.Name)
		}
	}
	slices.Sort(i.References)
	return i, nil
}

// List lists the images that are here.
func (s *Store) List() ([]Image, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return []Image{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("images of registries: %w", err)
	}
	all, err := s.meanings()
	if err != nil {
		return nil, fmt.Errorf("images of registries: %w", err)
	}
	images := []Image{}
	for _, entry := range entries {
		if !wellFormed.MatchString(entry.Name()) {
			continue
		}
		image, err := s.image(strings.Replace(entry.Name(), "-", ":", 1), all)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed just now
		}
		if err != nil {
			return nil, fmt.Errorf("images of registries: %w", err)
		}
		images = append(images, image)
	}
	slices.SortFunc(images, func(a, b Image) int {
		if c := slices.Compare(a.References, b.References); c != 0 {
			return c
		}
		return strings.Compare(a.Digest, b.Digest)
	})
	return images, nil
}

// isTemporary says whether a file in the directory of names is not complete yet.
func isTemporary(entry fs.DirEntry) bool { return !strings.HasSuffix(entry.Name(), ".json") }

func readJSON[T any](path string) (value T, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return value, err
	}
	if err := json.Unmarshal(text, &value); err != nil {
		return value, fmt.Errorf("%s: %w", path, err)
	}
	return value, nil
}

func writeJSON(path string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return renameio.WriteFile(path, text, 0o600)
}
