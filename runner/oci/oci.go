// Package oci keeps images of registries: it pulls them, and unpacks each into a tree that
// machines start from.
//
// An image is known by the digest of its manifest for this host's architecture. Its tree is
// unpacked once and never changes; it is stored with the ids that the image has, from 0 to
// 65535, as the trees of images of this host are, so that an idmapped mount gives it to a
// machine. A [Store] is the directory in which they lie.
//
// Registries and images are hostile, and so is the name that a job writes. What talks to a
// registry bounds what it reads and where it connects to; what unpacks is another process,
// which sees nothing but the tree (package unpack).
//
//	oci.go          images, and the store that keeps them
//	get.go          gets an image for a job: is it here, may the job have it
//	rules.go        what the administrator allows
//	credentials.go  who asks
//	prune.go        what is too much, and what killed pulls left
//	pull.go         makes an image of a registry one of this host
//	ask.go          asks a registry
//	door.go         the way to registries: addresses, sizes, times
//	record.go       what is noted of images, and where it lies
//	progress.go     tells how far a pull is
package oci

import (
	"fmt"
	"time"

	"nspawn-runner/runner/printable"
)

// Config is how the program of an image is started, as its author says. Health checks are
// not part of it.
type Config struct {
	// Entrypoint and Command are the words of the command line, one behind the other.
	Entrypoint []string `json:"entrypoint,omitempty"`
	Command    []string `json:"command,omitempty"`
	// Environment has a NAME=VALUE for each variable.
	Environment []string `json:"environment,omitempty"`
	// User is a user and maybe a group, by name or number, as in "postgres" and "70:70"; ""
	// is root.
	User string `json:"user,omitempty"`
	// WorkingDir is an absolute path in the tree, "" for its root. It may not exist.
	WorkingDir string `json:"working_dir,omitempty"`
	// StopSignal is a signal as the author writes it, as in "SIGINT" and "2"; "" is SIGTERM.
	StopSignal string `json:"stop_signal,omitempty"`
	// Ports are the TCP ports that it says it listens at: the lowest twenty, ascending.
	Ports []uint16 `json:"ports,omitempty"`
}

// Image is one that is unpacked.
type Image struct {
	// Digest is that of the manifest for this architecture, as in "sha256:0123...". Records of
	// machines name it as their generation.
	Digest string `json:"digest"`
	// References are the names, with registry, repository and tag or digest, that lead to it.
	References []string `json:"references"`
	// Path is the root of its tree, which nobody may write to.
	Path string `json:"path"`
	// Size is how many bytes its files have.
	Size uint64 `json:"size"`
	// Config is how its program is started.
	Config Config `json:"config"`
	// Pulled is when it came from the registry, Used when a job had it last.
	Pulled time.Time `json:"pulled"`
	Used   time.Time `json:"used"`
}

// Store is the images of registries that are on this host.
type Store struct {
	// Dir is where they lie, .oci in the state directory; Trash is on the same file system.
	Dir, Trash string
	// Program is the path by which this process executes this program as its child, which unpacks.
	Program string
	// Rules say what may be pulled, and from where.
	Rules Rules
	// CacheMax bounds what is kept of images that no machine uses, ImageMax one image when it is
	// unpacked; MinFree is left free on the disk. All are in bytes.
	CacheMax, ImageMax, MinFree uint64
	// Environment has the variables that name proxies: os.Getenv.
	Environment func(name string) string
	// Progress, if set, is told what a pull is doing, by several goroutines.
	Progress func(Event)
	// InUse says whether a machine's record names the digest of an image.
	InUse func(digest string) bool
}

// Event is a moment of a pull.
type Event struct {
	// Name is the image, as the job writes it.
	Name string
	// Note is a line for people.
	Note string
}

// note tells a line of an image.
func (s *Store) note(name, format string, args ...any) {
	if s.Progress != nil {
		s.Progress(Event{Name: printable.Line(name), Note: fmt.Sprintf(format, args...)})
	}
}
