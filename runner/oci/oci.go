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
// which sees nothing but the tree.
package oci

import "time"

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
