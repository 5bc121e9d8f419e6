package oci

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/lock"
	"nspawn-runner/runner/oci/unpack"
	"nspawn-runner/runner/printable"
	"nspawn-runner/runner/size"
	"nspawn-runner/runner/storage"
)

// maxFiles bounds the files of an image.
const maxFiles = 500_000

// pull fetches an image that a registry offers, unless it is on this host by now. written is the name that the
// job wrote.
func (s *Store) pull(ctx context.Context, r *registry, o offer, written string) (err error) {
	digest, repository := o.digest.String(), r.ref.Context().String()
	if !wellFormed.MatchString(digest) {
		return errors.New("the image has no proper digest")
	}
	dir := s.unfinished(digest, repository)
	held, err := s.lockPull(ctx, dir, written)
	if err != nil {
		return err
	}
	defer func() {
		// A process that waits for this lock sees that the file is gone, and makes another one.
		err = errors.Join(err, os.Remove(held.Name()), held.Close())
	}()
	known, err := s.readRecord(digest)
	switch {
	case err == nil && (known.Public || slices.Contains(known.Repositories, repository)):
		return nil
	case err == nil:
		// A manifest does not prove that the registry has the layers: a registry of the job could
		// have the manifest of an image that another registry does not give to the job.
		if err := s.prove(ctx, r, o, written); err != nil {
			return err
		}
		return s.proven(ctx, digest, r)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := s.removeRest(ctx, digest); err != nil {
		return fmt.Errorf("remove what is left of the image: %w", err)
	}
	if err = s.make(ctx, r, o, dir, written, held); err == nil {
		return nil
	}
	discarded := s.discard(context.WithoutCancel(ctx), dir)
	if errors.Is(err, errFaster) {
		err = s.proven(ctx, digest, r)
	}
	return errors.Join(err, discarded)
}

// errRemoved is the error if an image was removed before it could be held.
var errRemoved = errors.New("it is removed again and again before it can be used (oci_cache_max)")

// proven notes that a registry has shown all layers of an image on this host. If two do this at the same time, one
// note may get lost; that registry shows the layers again the next time.
func (s *Store) proven(ctx context.Context, digest string, r *registry) error {
	held, err := lock.Directory(ctx, s.path(digest), lock.Shared)
	if errors.Is(err, fs.ErrNotExist) {
		return errRemoved
	}
	if err != nil {
		return err
	}
	defer held.Close()
	known, err := s.readRecord(digest)
	if errors.Is(err, fs.ErrNotExist) { // its removal did not come to its end
		return errRemoved
	}
	if err != nil {
		return err
	}
	known.Repositories, known.Public = append(known.Repositories, r.ref.Context().String()), known.Public || r.anonymous
	return writeRecord(s.path(digest), known)
}

// removeRest removes what a removal left of an image: it had to remove the image where it was, and was killed. If a
// process is at it, removeRest leaves it alone.
func (s *Store) removeRest(ctx context.Context, digest string) error {
	held, err := lock.TryDirectory(s.path(digest), lock.Exclusive)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, lock.ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer held.Close()
	if _, err := s.readRecord(digest); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.discard(ctx, s.path(digest))
}

// lockPull takes the lock of a pull, and removes what a killed pull left.
func (s *Store) lockPull(ctx context.Context, dir, written string) (*os.File, error) {
	path := dir + ".lock"
	held, err := lock.TryFile(path, lock.Exclusive)
	if errors.Is(err, lock.ErrBusy) {
		s.note(written, "Waiting for another pull of %s", printable.Line(written))
		held, err = lock.File(ctx, path, lock.Exclusive)
	}
	if err != nil {
		return nil, err
	}
	if err := s.discard(ctx, dir); err != nil {
		held.Close()
		return nil, fmt.Errorf("remove what a killed pull left: %w", err)
	}
	return held, nil
}

// make fetches and unpacks an image.
func (s *Store) make(ctx context.Context, r *registry, o offer, dir, written string, held *os.File) error {
	digest := o.digest.String()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	fault.Here("oci: directory of a pull made")
	tree := filepath.Join(dir, "tree")
	if err := storage.Create(tree); err != nil {
		return err
	}
	fault.Here("oci: tree made")
	p := &progress{name: printable.Line(written), whole: o.size, began: time.Now(), tell: func(line string) { s.note(written, "%s", line) }}
	p.note("Pulling %s (%s)", p.name, size.MiB(o.size))
	result, err := s.transfer(ctx, r, o, dir, p, func(ctx context.Context) (*unpack.Process, error) {
		return unpack.Start(ctx, s.Program, tree, unpack.Limits{Bytes: s.ImageMax, Files: maxFiles}, held)
	})
	if err != nil {
		return err
	}
	fault.Here("oci: all layers unpacked")
	err = writeRecord(dir, record{
		Digest: digest, Size: result.Bytes + beside(o.config), Config: o.config, Pulled: time.Now().UTC().Truncate(time.Second),
		Repositories: []string{r.ref.Context().String()}, Public: r.anonymous,
	})
	if err != nil {
		return err
	}
	fault.Here("oci: record of an image written")
	if err := publish(ctx, dir, s.path(digest)); err != nil {
		return err
	}
	fault.Here("oci: image published")
	p.note("Pulled %s: %s, unpacked %s, in %s", p.name, size.MiB(o.size), size.MiB(result.Bytes), time.Since(p.began).Round(100*time.Millisecond))
	return nil
}

// errFaster is the error if a pull of the same image from another repository was faster.
var errFaster = errors.New("the image is here by now")

// publish moves a complete image to its final path. After a power cut, the image is there completely or not at all.
func publish(ctx context.Context, from, to string) error {
	dir, err := os.Open(from)
	if err != nil {
		return err
	}
	synced := make(chan error, 1)
	go func() { // the disk may be slow, and the call cannot be cancelled
		synced <- unix.Syncfs(int(dir.Fd()))
		dir.Close()
	}()
	select {
	case err = <-synced:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("sync %s: %w", from, err)
	}
	if err := os.Rename(from, to); errors.Is(err, fs.ErrExist) {
		return errFaster
	} else if err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// ahead bounds how many layers are being fetched, or wait until the layers below them are unpacked.
const ahead = 4

// transfer fetches the layers, several at a time, and unpacks each after those below it. A layer is fetched
// completely, into a file without a name, so that nothing is unpacked that has another digest.
func (s *Store) transfer(ctx context.Context, r *registry, o offer, dir string, p *progress, start func(context.Context) (*unpack.Process, error)) (unpack.Result, error) {
	work, ctx := errgroup.WithContext(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel(nil)
	watching.Go(func() { p.watch(ctx) })
	watching.Go(func() { s.watchRoom(ctx, cancel) })
	files := make([]chan *os.File, len(o.layers))
	for i := range files {
		files[i] = make(chan *os.File, 1)
	}
	room := make(chan struct{}, ahead)
	work.Go(func() error {
		for i, layer := range o.layers {
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			work.Go(func() error {
				file, err := r.fetchFile(ctx, layer, dir, p)
				if err == nil {
					files[i] <- file
				}
				return err
			})
		}
		return nil
	})
	var result unpack.Result
	work.Go(func() error {
		process, err := start(ctx)
		if err != nil {
			return err
		}
		defer process.Stop()
		fault.Here("oci: unpacking begun")
		for i := range o.layers {
			select {
			case file := <-files[i]:
				err := process.Layer(file, o.layers[i].Size, sum(o.sums[i].Hex))
				file.Close()
				if err != nil {
					return err
				}
				fault.Here("oci: a layer unpacked")
				<-room
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		result, err = process.Finish()
		return err
	})
	err := work.Wait()
	for _, file := range files {
		select {
		case file := <-file:
			file.Close()
		default:
		}
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return result, err
}

func sum(digits string) (sum [32]byte) {
	_, _ = hex.Decode(sum[:], []byte(digits)) // v1.Hash has checked it
	return sum
}

// errNoRoom is the error if less than MinFree is free.
var errNoRoom = errors.New("the disk has too little space left for the image (min_free_disk)")

// errNoInodes is the error if too few inodes are free.
var errNoInodes = fmt.Errorf("the disk has too few inodes left for the image: fewer than one in %d inodes of its file system is free (df -i)", inodeShare)

// inodeShare is the part of all inodes that a pull leaves free: one in so many. Images may have very many files.
const inodeShare = 20

// watchRoom cancels the pull when less than MinFree, or too few inodes, are free.
func (s *Store) watchRoom(ctx context.Context, cancel context.CancelCauseFunc) {
	for {
		if free, err := storage.Free(s.Dir); err == nil && uint64(max(free, 0)) < s.MinFree {
			cancel(errNoRoom)
		}
		if free, err := storage.FreeInodes(s.Dir); err == nil && free < 1.0/inodeShare {
			cancel(errNoInodes)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
}

const (
	// tries is how often a layer is fetched at most.
	tries = 3
	// patience is how long a failed try may have taken for another one to follow.
	patience = 2 * stallTime / 3
)

// fetchFile fetches a layer into a file without a name in a directory. It tries again if the registry fails.
func (r *registry) fetchFile(ctx context.Context, layer v1.Descriptor, dir string, p *progress) (*os.File, error) {
	for try := 1; ; try++ {
		began := time.Now()
		file, err := r.fetchFileOnce(ctx, layer, dir, p)
		if err == nil || try == tries || time.Since(began) > patience || !errors.As(err, &silence{}) {
			return file, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(time.Duration(try) * 300 * time.Millisecond):
		}
	}
}

func (r *registry) fetchFileOnce(ctx context.Context, layer v1.Descriptor, dir string, p *progress) (*os.File, error) {
	file, err := os.CreateTemp(dir, "layer-")
	if err != nil {
		return nil, err
	}
	err = os.Remove(file.Name())
	fetched := &counted{progress: p}
	if err == nil {
		err = r.fetch(ctx, layer, io.MultiWriter(file, fetched))
	}
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		fetched.takeBack()
		file.Close()
		return nil, err
	}
	return file, nil
}

// prove fetches all layers from a registry, and so proves that the registry has them.
func (s *Store) prove(ctx context.Context, r *registry, o offer, written string) error {
	s.note(written, "Checking that %s is what is on this host (%s)", printable.Line(written), size.MiB(o.size))
	for _, layer := range o.layers {
		if err := r.fetch(ctx, layer, io.Discard); err != nil {
			return err
		}
	}
	return nil
}

// quickly bounds how long a pull removes a tree. Tests give it more time.
var quickly = 500 * time.Millisecond

// discard moves a directory into the trash and removes there what it can within quickly. The
// next job empties the trash.
func (s *Store) discard(ctx context.Context, path string) error {
	to, err := s.throwAway(ctx, path)
	if err != nil || to == "" {
		return err
	}
	fault.Here("oci: a directory in the trash")
	quick, cancel := context.WithTimeout(ctx, quickly)
	defer cancel()
	if err := storage.Remove(quick, to); err != nil && quick.Err() == nil {
		return err
	}
	return nil
}

// throwAway moves a directory into the trash and returns its new path, "" if it does not exist any more. If it cannot
// be moved, it is removed where it is, the record first: a part of an image must not count as the image.
func (s *Store) throwAway(ctx context.Context, path string) (to string, err error) {
	if err := os.MkdirAll(s.Trash, 0o700); err != nil {
		return "", err
	}
	to = filepath.Join(s.Trash, "oci-"+filepath.Base(path)+"-"+rand.Text()[:8])
	err = os.Rename(path, to)
	switch {
	case err == nil:
		return to, nil
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	}
	// The move failed, such as on a full disk.
	if err := os.Remove(recordPath(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return "", storage.Remove(ctx, path)
}
