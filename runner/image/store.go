package image

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"nspawn-runner/runner/image/box"
	"nspawn-runner/runner/image/build"
	"nspawn-runner/runner/image/debian"
	"nspawn-runner/runner/image/downloads"
)

// Store is the images of one state directory.
type Store struct {
	// StateDir is the directory of the chroots, /var/lib/nspawn-runner.
	StateDir string
	// PlaybookDirs are searched for NAME.yaml, then NAME.yml; the first found wins.
	PlaybookDirs []string
	// Environment goes to all programs that build an image: proxies, mostly.
	// None of it is stored in the image.
	Environment map[string]string
	// DownloadsMax bounds, in bytes, what is kept of downloads; 0 for nothing.
	DownloadsMax uint64
	// BaseMaxAge is how old a base may be that a new image is a copy of; 0 for
	// no bases.
	BaseMaxAge time.Duration
	// Progress, if set, is told what goes on in builds. It is called by several
	// goroutines, also of one build.
	Progress func(Event)
	// Verbose, if set, receives what the programs of a build print. It is
	// always in the build's log.
	Verbose io.Writer
	// Colours has programs colour what they print: Verbose shows it at a terminal.
	Colours bool
	// InUse says whether a machine's record names the generation (its Name). If
	// set, a publication removes older generations that are not in use; the
	// new one and the one before it always stay.
	InUse func(generation string) bool
	// Test, if set, says whether jobs can run on a complete generation, which
	// is not published if it is an error. What it prints is for the build's log.
	Test func(ctx context.Context, image string, generation Generation, log io.Writer) error
	// Boot, if set, starts a machine whose root is the tree of a generation that is
	// being built. It is not set where no machine can be started.
	Boot func(ctx context.Context, order Order) (*box.Machine, error)
	// Halt, if set, ends what machines run on a generation that will not be published.
	Halt func(ctx context.Context, generation string) error
}

// Generation is one build of an image's chroot.
type Generation struct {
	// Name is unique in the state directory and stays when the tree moves,
	// like bookworm/20251123T162503Z.
	Name string
	// Path is the root of the tree, with no symbolic link in it.
	Path string
}

// Order says which machine a build wants.
type Order struct {
	Image      string
	Generation Generation
	// Hostname is what the machine calls itself.
	Hostname string
	// Shown are directories of the host that it sees where they are, read-only.
	Shown []string
	// Begin is called before it starts, with the paths below its root that the start may
	// make or change.
	Begin func(touched []string)
}

// Event is a moment of a build.
type Event = build.Event

// PackageCount is what dpkg did in a step of a build.
type PackageCount = build.PackageCount

// note tells a line for people.
func (s *Store) note(image, text string) {
	if s.Progress != nil {
		s.Progress(Event{Image: image, Note: text})
	}
}

// stampFormat is a generation's time of birth, so that names sort by age.
const stampFormat = "20060102T150405Z"

// generations is the directory of an image's generations. Besides them there
// are, with names that begin with a dot, the files of this package:
//
//	.hold   locked, shared, by a job that is about to put a generation on record;
//	        exclusively by a removal of generations
//	.build  locked exclusively by the one build of this image; its content is
//	        the stamp of the generation that is being built, and on a second
//	        line, for people, the process that does it
//	.failed the tree of the last build, if its playbook or test failed
//	.STAMP  a dot in place of the first digit: the rest of a generation that is being removed
//
// and beside each tree its record, STAMP.json.
func (s *Store) generations(name string) string {
	return filepath.Join(s.StateDir, ".generations", name)
}

// downloads are the cache of all builds.
func (s *Store) downloads() downloads.Cache {
	return downloads.Cache{Dir: filepath.Join(s.StateDir, ".downloads"), Max: s.DownloadsMax}
}

// bases are the bases of all images.
func (s *Store) bases() debian.Bases {
	return debian.Bases{Dir: filepath.Join(s.StateDir, ".bases"), MaxAge: s.BaseMaxAge}
}

// readDir lists a directory; one that does not exist is empty.
func readDir(path string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

// isDir says whether path, links followed, is a directory.
func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// exists says whether there is anything at path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
