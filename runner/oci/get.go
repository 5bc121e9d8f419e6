package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/lock"
	"nspawn-runner/runner/oci/unpack"
	"nspawn-runner/runner/printable"
)

// Policy says when the registry is asked for an image.
type Policy string

// The policies that a job can write as its pull_policy.
const (
	Always       Policy = "always"         // each time, so that a tag may move
	IfNotPresent Policy = "if-not-present" // if the image is not on this host
	Never        Policy = "never"
)

// Request asks for an image.
type Request struct {
	// Name is the reference of an image that a job wrote.
	Name string
	// Policies are tried one after the other. No policy means Always, except that a public image on
	// this host is used, with a note, if the registry does not answer.
	Policies []Policy
	// Credentials are those of the job.
	Credentials Keychain
}

// Get returns an image that the rules allow, and holds it: it is not removed before release is called. By then,
// InUse must find its digest. If the image is not on this host, or its tag has moved, Get pulls it. Other jobs
// that want the same image wait for the pull.
//
// A private image is given out only if its registry gives it to these credentials. So the registry is asked for
// it with each policy.
func (s *Store) Get(ctx context.Context, r Request) (image Image, release func(), err error) {
	if err := s.Rules.Allows(r.Name); err != nil {
		return Image{}, nil, err
	}
	image, release, err = s.get(ctx, r)
	if err != nil {
		return Image{}, nil, fmt.Errorf("image %s: %w", printable.Line(r.Name), err)
	}
	return image, release, nil
}

// Pull is Get for an administrator: it ignores the rules, and does not hold the image.
func (s *Store) Pull(ctx context.Context, written string, keys Keychain) (Image, error) {
	image, release, err := s.get(ctx, Request{Name: written, Policies: []Policy{Always}, Credentials: keys})
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", printable.Line(written), err)
	}
	release()
	return image, nil
}

// Refreshable returns the names of images that a maintenance pulls again: those that the rules name without a
// pattern. For a name without a tag, these are all its tags on this host. The meaning of a digest never changes.
func (s *Store) Refreshable() (names []string, err error) {
	known, err := s.meanings()
	if err != nil {
		return nil, err
	}
	names, repositories := s.Rules.listed()
	for _, m := range known {
		if slices.ContainsFunc(repositories, func(r string) bool { return strings.HasPrefix(m.Name, r+":") }) {
			names = append(names, m.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// WouldFailAgain says whether the same request would fail again: the image is not allowed, does not exist, is not
// for this host, or cannot be unpacked. Other failures are temporary failures of this host or the registry.
func WouldFailAgain(err error) bool {
	for _, moment := range []error{errNoRoom, errNoInodes, errRemoved, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, moment) {
			return false
		}
	}
	return !errors.As(err, &silence{}) && !errors.As(err, new(syscall.Errno)) && !errors.As(err, &unpack.HostError{})
}

// attempts bounds how often Get pulls an image again that was removed before it could be held.
const attempts = 5

func (s *Store) get(ctx context.Context, r Request) (Image, func(), error) {
	if err := os.MkdirAll(s.pulls(), 0o700); err != nil {
		return Image{}, nil, err
	}
	for range attempts {
		digest, err := s.find(ctx, r)
		if errors.Is(err, errRemoved) {
			continue
		}
		if err != nil {
			return Image{}, nil, err
		}
		held, err := lock.Directory(ctx, s.path(digest), lock.Shared)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was removed meanwhile
		}
		if err != nil {
			return Image{}, nil, err
		}
		image, err := s.held(digest)
		if err != nil {
			held.Close()
			if errors.Is(err, fs.ErrNotExist) {
				continue // its removal has begun meanwhile
			}
			return Image{}, nil, err
		}
		fault.Here("oci: image held")
		return image, func() { held.Close() }, nil
	}
	return Image{}, nil, errRemoved
}

// held returns an image whose lock is held, and notes that it is used.
func (s *Store) held(digest string) (Image, error) {
	all, err := s.meanings()
	if err != nil {
		return Image{}, err
	}
	if err := s.touch(digest); err != nil {
		return Image{}, err
	}
	return s.image(digest, all)
}

// find returns the digest of the image that a request means. The image is on this host then.
func (s *Store) find(ctx context.Context, r Request) (digest string, err error) {
	ref, err := s.Rules.parse(r.Name)
	if err != nil {
		return "", err
	}
	registry, err := ask(s.Rules, ref, r.Credentials, s.Environment)
	if err != nil {
		return "", err
	}
	defer registry.close()
	w := want{Store: s, request: r, ref: ref, registry: registry}
	w.known, w.here = s.meaningOf(ref.Name())
	if len(r.Policies) == 0 {
		digest, err = w.always(ctx)
		if errors.As(err, &silence{}) && w.here && w.known.Public {
			s.note(r.Name, "warning: %s: %v; the image that is on this host is used", printable.Line(r.Name), err)
			return w.known.Digest, nil
		}
		return digest, err
	}
	for i, policy := range r.Policies {
		if digest, err = w.by(ctx, policy); err == nil || ctx.Err() != nil {
			return digest, err
		}
		if i+1 < len(r.Policies) {
			s.note(r.Name, "warning: %s: %v; the next pull_policy is %s", printable.Line(r.Name), err, printable.Line(string(r.Policies[i+1])))
		}
	}
	return "", err
}

// want is a request while it is answered.
type want struct {
	*Store
	request  Request
	ref      name.Reference
	registry *registry
	// known is the known meaning of the name, if here is set: then that image is on this host.
	known meaning
	here  bool
}

// by answers with one policy.
func (w *want) by(ctx context.Context, policy Policy) (digest string, err error) {
	switch policy {
	case Always:
		return w.always(ctx)
	case IfNotPresent:
		if w.here {
			digest, err := w.asItIs(ctx)
			if !errors.As(err, &refusal{}) {
				return digest, err
			}
		}
		return w.always(ctx)
	case Never:
		if !w.here {
			return "", errors.New("it is not on this host, and pull_policy is never")
		}
		return w.asItIs(ctx)
	}
	return "", fmt.Errorf("pull_policy %s is not known: there are always, if-not-present and never", printable.Line(string(policy)))
}

// asItIs gives out the image that is here. For a private image, the registry must give it to these credentials.
// If the tag has moved, its new meaning proves nothing, so the registry is asked for the digest that is here.
func (w *want) asItIs(ctx context.Context) (digest string, err error) {
	if w.known.Public {
		return w.known.Digest, nil
	}
	top, err := w.registry.head(ctx, w.registry.ref)
	if err == nil && top != w.known.Top {
		_, err = w.registry.head(ctx, w.registry.ref.Context().Digest(w.known.Top))
	}
	if err != nil {
		return "", err
	}
	return w.known.Digest, w.notePublic()
}

// notePublic notes that an image is public, if the registry was asked without credentials and has given it.
func (w *want) notePublic() error {
	if w.known.Public || !w.registry.anonymous {
		return nil
	}
	return w.note(true)
}

// always asks the registry what the name means now, and pulls that image if it is not here. The meaning of a
// digest never changes.
func (w *want) always(ctx context.Context) (digest string, err error) {
	if _, fixed := w.ref.(name.Digest); fixed && w.here {
		return w.asItIs(ctx)
	}
	if w.here {
		top, err := w.registry.head(ctx, w.registry.ref)
		if err != nil {
			return "", errors.Join(err, w.forgetPublic(err))
		}
		if top == w.known.Top {
			return w.known.Digest, w.notePublic()
		}
	}
	o, err := w.registry.offer(ctx, w.ImageMax)
	if err != nil {
		return "", err
	}
	if err := w.pull(ctx, w.registry, o, w.request.Name); err != nil {
		return "", err
	}
	m := meaning{Name: w.ref.Name(), Top: o.top, Digest: o.digest.String(), Public: w.registry.anonymous}
	if err := w.writeMeaning(m); err != nil {
		return "", err
	}
	fault.Here("oci: meaning of a name written")
	if err := w.forgetNames(m.Digest); err != nil {
		return "", err
	}
	return m.Digest, w.shrink(ctx, m.Digest)
}

// forgetPublic notes that an image is not public any more, if the registry refuses it without credentials.
func (w *want) forgetPublic(err error) error {
	if !w.known.Public || !w.registry.anonymous || !errors.As(err, &refusal{}) {
		return nil
	}
	return w.note(false)
}

// note writes whether an image is public into the known meaning of its name. If another process has written a
// meaning since, that one is newer and stays.
func (w *want) note(public bool) error {
	now, err := readJSON[meaning](w.meaningPath(w.known.Name))
	if errors.Is(err, fs.ErrNotExist) || err == nil && now != w.known {
		return nil
	}
	w.known.Public = public
	return w.writeMeaning(w.known)
}
