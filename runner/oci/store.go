package oci

import (
	"context"
	"errors"
)

// Store is the images of registries that are on this host.
type Store struct {
	// Dir is where they lie, .oci in the state directory.
	Dir string
	// Rules say what may be pulled, and from where.
	Rules Rules
	// CacheMax bounds, in bytes, what is kept of images that no machine uses; ImageMax bounds
	// the files of one image.
	CacheMax, ImageMax uint64
	// Progress, if set, is told what a pull is doing.
	Progress func(Event)
	// InUse says whether a machine's record names the digest of an image.
	InUse func(digest string) bool
}

// Policy is when the registry is asked for an image.
type Policy string

// Policies are those that a job can write as its pull_policy.
const (
	Always       Policy = "always"         // each time, so that a tag that has moved is noticed
	IfNotPresent Policy = "if-not-present" // if it is not on this host
	Never        Policy = "never"
)

// Request is a wish for an image.
type Request struct {
	// Name is the reference of an image, as a job writes it.
	Name string
	// Policies are tried one after the other. None is Always, but if the registry does not
	// answer, an image that is on this host is used, with a note.
	Policies []Policy
	// Credentials are the job's.
	Credentials Keychain
}

// Event is a moment of a pull.
type Event struct {
	// Name is the image, as the job writes it.
	Name string
	// Note is a line for people.
	Note string
}

// Get returns an image that the rules allow, and keeps all images from being removed until
// release is called. By then its digest must be where InUse finds it. An image that is not on
// this host, or whose tag has moved, is pulled first; others who want it wait for that.
func (s *Store) Get(ctx context.Context, r Request) (image Image, release func(), err error) {
	if err := s.Rules.Allows(r.Name); err != nil {
		return Image{}, nil, err
	}
	return Image{}, nil, errors.New("this version does not pull images")
}
