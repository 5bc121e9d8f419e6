// Package oci pulls images of registries, and keeps them as trees from which machines start.
//
// The digest of its manifest for this host's architecture identifies an image. Its tree is unpacked once and
// never changes. The tree has the user ids of the image, from 0 to 65535, like the trees of images of this host.
// So an idmapped mount gives it to a machine. A [Store] is a directory with images.
//
// Registries and images are hostile, and so is the name that a job writes. This package bounds what it reads
// from a registry, and where it connects to. Another process unpacks the layers, and sees only the tree (package
// unpack).
//
//	oci.go          images, and the store that has them
//	get.go          gets an image for a job: whether it is here, and whether the job may have it
//	pull.go         fetches and unpacks an image
//	rules.go        what the administrator allows
//	credentials.go  credentials for registries
//	ask.go          asks a registry
//	door.go         connections to registries: addresses, sizes, times
//	record.go       the files of a store
//	prune.go        removes images, and lists leftovers of killed pulls
//	progress.go     lines about the progress of a pull
package oci

import (
	"fmt"
	"time"

	"nspawn-runner/runner/printable"
)

// Config says how the program of an image is started. It has no health checks.
type Config struct {
	// Entrypoint followed by Command are the words of the command line.
	Entrypoint []string `json:"entrypoint,omitempty"`
	Command    []string `json:"command,omitempty"`
	// Environment has a NAME=VALUE for each variable.
	Environment []string `json:"environment,omitempty"`
	// User is a user, maybe with a group, by name or number, such as "postgres" or "70:70". "" is
	// root.
	User string `json:"user,omitempty"`
	// WorkingDir is an absolute path in the tree, "" for its root. It need not exist.
	WorkingDir string `json:"working_dir,omitempty"`
	// StopSignal is a signal in the words of the image's author, such as "SIGINT" or "2". "" is
	// SIGTERM.
	StopSignal string `json:"stop_signal,omitempty"`
	// Ports are the TCP ports that the image exposes: the lowest twenty, ascending.
	Ports []uint16 `json:"ports,omitempty"`
}

// Image is an unpacked image.
type Image struct {
	// Digest is the digest of the manifest for this architecture, such as "sha256:0123...". Records
	// of machines have it as their generation.
	Digest string `json:"digest"`
	// References are the names that lead to it, with registry, repository, and tag or digest.
	References []string `json:"references"`
	// Path is the root of its tree. No process may write there.
	Path string `json:"path"`
	// Size is about how many bytes its files take on the disk.
	Size uint64 `json:"size"`
	// Config says how its program is started.
	Config Config `json:"config"`
	// Pulled is when it was pulled, Used when a job used it last.
	Pulled time.Time `json:"pulled"`
	Used   time.Time `json:"used"`
}

// Store has the images of registries that are on this host.
type Store struct {
	// Dir has the images: .oci in the state directory. Trash is on the same file system.
	Dir, Trash string
	// Program is the path by which this process executes this program as its child, which unpacks layers.
	Program string
	// Rules say what may be pulled, and from where.
	Rules Rules
	// CacheMax bounds all images together, ImageMax one unpacked image. MinFree must stay free on the
	// disk. All are in bytes.
	CacheMax, ImageMax, MinFree uint64
	// Environment returns variables, which may name proxies, as os.Getenv does.
	Environment func(name string) string
	// Progress, if set, is called with the progress of pulls, from several goroutines.
	Progress func(Event)
	// InUse says whether the record of a machine has the digest of an image.
	InUse func(digest string) bool
}

// Event is a step of a pull.
type Event struct {
	// Name is the name of the image that the job wrote.
	Name string
	// Note is a line for people.
	Note string
}

// note sends a line about an image.
func (s *Store) note(name, format string, args ...any) {
	if s.Progress != nil {
		s.Progress(Event{Name: printable.Line(name), Note: fmt.Sprintf(format, args...)})
	}
}
