package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/storage"
)

// CreateOptions are what a caller can say about an image that is created.
type CreateOptions struct {
	// Suite wins over the playbook's nspawn_runner_chroot_suite. If neither
	// says one it is unstable.
	Suite string
}

// Create builds the first generation of an image from nothing: a bootstrap of
// the suite, then the playbook, if there is one. It is an error if the image
// has a chroot already.
func (s *Store) Create(ctx context.Context, name string, options CreateOptions) (Generation, error) {
	if err := checkName(name); err != nil {
		return Generation{}, err
	}
	book, err := s.look(name).ReadPlaybook()
	if err != nil {
		return Generation{}, fmt.Errorf("image %s: %w", name, err)
	}
	suite := options.Suite
	if suite == "" {
		if suite, err = book.suite(); err != nil {
			return Generation{}, fmt.Errorf("image %s: %w", name, err)
		}
	}
	if suite == "" {
		suite = "unstable"
	}
	return s.build(ctx, name, func(ctx context.Context, b *build) error {
		// Only now, under the lock, will the answer stay true.
		if image := s.look(name); image.Exists {
			return fmt.Errorf("%s exists already", image.Path)
		}
		return b.fromNothing(ctx, suite, book)
	})
}

// Maintain brings an image up to date with its playbook: it is created if it
// has no chroot, built from scratch if the playbook says
// nspawn_runner_maint_recreate, and else the playbook runs in a copy of the
// current generation.
func (s *Store) Maintain(ctx context.Context, name string) (Generation, error) {
	image, err := s.Get(name)
	if err != nil {
		return Generation{}, err
	}
	if image.Playbook == "" {
		return Generation{}, fmt.Errorf("image %s: it has no playbook in %s", name, strings.Join(s.PlaybookDirs, " or "))
	}
	book, err := image.ReadPlaybook()
	if err != nil {
		return Generation{}, fmt.Errorf("image %s: %w", name, err)
	}
	recreate, err := book.recreate()
	if err != nil {
		return Generation{}, fmt.Errorf("image %s: %w", name, err)
	}
	suite, err := book.suite()
	if err != nil {
		return Generation{}, fmt.Errorf("image %s: %w", name, err)
	}
	return s.build(ctx, name, func(ctx context.Context, b *build) error {
		if exists := s.look(name).Exists; exists && !recreate {
			if err := b.fromCurrent(ctx); err != nil {
				return err
			}
			return b.playbook(ctx, book)
		}
		// Unlike chroot-create, where somebody looks on, a timer must not
		// guess what an image called bookworm is made of.
		if suite == "" {
			return fmt.Errorf("playbook %s: nspawn_runner_chroot_suite is missing: which suite shall it be?", book.Path)
		}
		return b.fromNothing(ctx, suite, book)
	})
}

// Edit publishes what change makes of a copy of the current generation. If
// change returns an error, the copy is thrown away.
func (s *Store) Edit(ctx context.Context, name string, change func(ctx context.Context, root string) error) (Generation, error) {
	if _, err := s.Current(name); err != nil {
		return Generation{}, err
	}
	return s.build(ctx, name, func(ctx context.Context, b *build) error {
		if err := b.fromCurrent(ctx); err != nil {
			return err
		}
		return b.step("edit", func() error { return change(ctx, b.generation.Path) })
	})
}

// BuildError says in which step the build of an image failed, and where all
// that it printed can be read.
type BuildError struct {
	Image string
	Step  string
	Err   error
	Log   string
}

func (e *BuildError) Error() string {
	return fmt.Sprintf("image %s: %s: %v (full log: %s)", e.Image, e.Step, e.Err, e.Log)
}

// Unwrap returns the cause.
func (e *BuildError) Unwrap() error { return e.Err }

// build is one generation in the making.
type build struct {
	store      *Store
	image      string
	generation Generation
	log        *buildLog
}

// build makes and publishes a generation of an image. What fill leaves in the
// generation's tree is published if fill returns nil and the tree can boot;
// else nothing of it stays.
func (s *Store) build(ctx context.Context, name string, fill func(context.Context, *build) error) (_ Generation, err error) {
	lock, err := s.lock(ctx, name, ".build", unix.LOCK_EX, func() { s.progress(name, "wait for another build of it to end") })
	if err != nil {
		return Generation{}, err
	}
	defer lock.Close()
	// A cancelled build must be cleaned up all the same.
	always := context.WithoutCancel(ctx)
	if err := s.end(always, lock, name); err != nil {
		return Generation{}, fmt.Errorf("image %s: remove what a killed build left: %w", name, err)
	}
	generation, err := s.begin(lock, name)
	if err != nil {
		return Generation{}, fmt.Errorf("image %s: begin a build: %w", name, err)
	}
	defer func() {
		if endErr := s.end(always, lock, name); endErr != nil {
			err = errors.Join(err, fmt.Errorf("image %s: clean up after the build: %w", name, endErr))
		}
	}()
	log, err := s.openLog(generation)
	if err != nil {
		return Generation{}, fmt.Errorf("image %s: begin a build: %w", name, err)
	}
	defer log.Close()

	b := &build{store: s, image: name, generation: generation, log: log}
	if err := fill(ctx, b); err != nil {
		return Generation{}, err
	}
	err = b.step("publish", func() error {
		if err := forgetMachine(generation.Path); err != nil {
			return err
		}
		if err := Check(generation.Path); err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		return s.publish(name, generation)
	})
	if err != nil {
		return Generation{}, err
	}
	if err := s.prune(ctx, name); err != nil {
		return generation, fmt.Errorf("image %s: it was published; remove older generations: %w", name, err)
	}
	return generation, nil
}

// fromNothing fills the generation with a new Debian and runs the playbook.
func (b *build) fromNothing(ctx context.Context, suite string, book Playbook) error {
	// Minutes of work must not end at a program that was missing all along.
	if err := book.checkRunnable(); err != nil {
		return fmt.Errorf("image %s: %w", b.image, err)
	}
	if err := b.bootstrap(ctx, suite); err != nil {
		return err
	}
	return b.playbook(ctx, book)
}

// fromCurrent fills the generation with a copy of the current one.
func (b *build) fromCurrent(ctx context.Context) error {
	return b.step("copy the current generation", func() error {
		current, err := b.store.Current(b.image)
		if err != nil {
			return err
		}
		return storage.Clone(ctx, current.Path, b.generation.Path)
	})
}

// step does one named part of the build. An error of it becomes a BuildError.
func (b *build) step(name string, do func() error) error {
	b.store.progress(b.image, name)
	fmt.Fprintf(b.log, "== %s\n", name)
	if err := do(); err != nil {
		fmt.Fprintf(b.log, "== %s failed: %v\n", name, err)
		return &BuildError{Image: b.image, Step: name, Err: err, Log: b.log.path}
	}
	return nil
}

func (s *Store) progress(image, step string) {
	if s.Progress != nil {
		s.Progress(image, step)
	}
}

// run runs a program of the build. What it prints goes to the log. It gets a
// group of its own, so that a Ctrl-C at the terminal reaches it only through
// ctx, and it is killed if this process is.
func (b *build) run(ctx context.Context, cmd *exec.Cmd) error {
	fmt.Fprintf(b.log, "+ %s\n", quote(cmd.Args))
	cmd.Stdout, cmd.Stderr = b.log, b.log
	err := tether(cmd).Run()
	runtime.UnlockOSThread()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// environment is this process's own and the store's on top.
func (s *Store) environment() []string {
	env := os.Environ()
	for name, value := range s.Environment {
		env = append(env, name+"="+value)
	}
	return env
}
