package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"al.essio.dev/pkg/shellescape"
	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/image/box"
	"nspawn-runner/runner/image/downloads"
	"nspawn-runner/runner/lock"
	"nspawn-runner/runner/storage"
)

// CreateOptions are what a caller can say about an image that is created.
type CreateOptions struct {
	// Bootstrap is what the tree is made of.
	Bootstrap Bootstrap
	// Booted says that the playbook runs in the generation while it is booted.
	Booted bool
}

// Create builds the first generation of an image from nothing: a bootstrap of
// the suite, then the playbook, if there is one. It is an error if the image
// has a chroot already.
func (s *Store) Create(ctx context.Context, name string, options CreateOptions) (Generation, error) {
	if err := checkName(name); err != nil {
		return Generation{}, err
	}
	book, err := s.runnable(s.look(name), options.Booted)
	if err != nil {
		return Generation{}, err
	}
	return s.build(ctx, name, false, func(b *build) error {
		// Only now, under the lock, will the answer stay true.
		if image := s.look(name); image.Exists {
			return fmt.Errorf("%s exists already", image.Path)
		}
		b.booted = options.Booted
		return b.fromNothing(ctx, options.Bootstrap, book)
	})
}

// MaintainOptions are what a caller can say about a maintenance.
type MaintainOptions struct {
	// Bootstrap is what an image is made of that has no chroot, or is recreated.
	// Without a suite that is an error.
	Bootstrap Bootstrap
	// Booted says that the playbook runs in the generation while it is booted.
	Booted bool
	// Recreate builds from scratch.
	Recreate bool
	// IfOlder leaves alone what a playbook made or maintained less than this
	// time ago, unless the playbook is another one now.
	IfOlder time.Duration
	// NoWait makes it a *BusyError if the image is being built by another one.
	NoWait bool
}

// Outcome is what a maintenance that did not fail came to.
type Outcome string

// The outcomes. But for Published, the current generation stays.
const (
	Published Outcome = "published"
	Unchanged Outcome = "unchanged" // the playbook ran, and changed nothing
	Fresh     Outcome = "fresh"     // it was not to run yet
)

// Maintain brings an image up to date with its playbook: it is created if it
// has no chroot, built from scratch if the options say so, and else the playbook
// runs in a copy of the current generation. It returns the generation that is current then.
func (s *Store) Maintain(ctx context.Context, name string, options MaintainOptions) (generation Generation, outcome Outcome, err error) {
	image, err := s.Get(name)
	if err != nil {
		return Generation{}, "", err
	}
	if image.Playbook == "" {
		return Generation{}, "", fmt.Errorf("image %s: it has no playbook in %s", name, strings.Join(s.PlaybookDirs, " or "))
	}
	book, err := s.runnable(image, options.Booted)
	if err != nil {
		return Generation{}, "", err
	}
	if options.IfOlder > 0 {
		if generation, fresh := s.fresh(name, book, options.IfOlder); fresh {
			return generation, Fresh, nil
		}
	}
	outcome = Published
	generation, err = s.build(ctx, name, options.NoWait, func(b *build) error {
		b.booted = options.Booted
		if s.look(name).Exists && !options.Recreate {
			b.shown = options.Bootstrap.mirrorPaths()
			if err := b.fromCurrent(ctx, byMaintenance, func() error { return b.play(ctx, book) }); err != nil {
				return err
			}
			b.compare()
			if b.unchanged {
				outcome = Unchanged
			}
			return nil
		}
		// At chroot-create somebody looks on. A timer must not guess what an
		// image called bookworm is made of.
		if options.Bootstrap.Suite == "" {
			return fmt.Errorf("playbook %s: nspawn_runner_chroot_suite is missing, so it cannot be created", book.Path)
		}
		return b.fromNothing(ctx, options.Bootstrap, book)
	})
	return generation, outcome, err
}

// fresh says whether the playbook as it is ran through less than a time ago.
func (s *Store) fresh(name string, book Playbook, than time.Duration) (Generation, bool) {
	current, err := s.Current(name)
	if err != nil {
		return Generation{}, false
	}
	record, err := s.Record(current)
	if err != nil || record.Playbook == nil || record.Playbook.SHA256 != book.SHA256 {
		return Generation{}, false
	}
	age := time.Since(record.Maintained)
	return current, age >= 0 && age < than // unless the clock was set back
}

// Edit publishes what change makes of a copy of the current generation, whose
// root it is given. If change returns an error, the copy is thrown away and the
// error is Edit's.
func (s *Store) Edit(ctx context.Context, name string, change func(ctx context.Context, root string) error) (Generation, error) {
	if _, err := s.Current(name); err != nil {
		return Generation{}, err
	}
	return s.build(ctx, name, false, func(b *build) error {
		return b.fromCurrent(ctx, byLogin, func() error { return change(ctx, b.generation.Path) })
	})
}

// runnable reads the playbook of an image that is about to be built, and looks
// for what it takes to run it: minutes of work must not end at a program that was
// missing all along.
func (s *Store) runnable(image Image, booted bool) (Playbook, error) {
	book, err := image.ReadPlaybook()
	if err != nil {
		return Playbook{}, err
	}
	if book.foreign != "" {
		return Playbook{}, fmt.Errorf("image %s: %s is not a playbook: %s", image.Name, book.Path, book.foreign)
	}
	for _, warning := range book.Warnings {
		s.note(image.Name, "warning: "+warning)
	}
	if book.elsewhere != "" {
		return Playbook{}, fmt.Errorf("playbook %s: %s", book.Path, book.elsewhere)
	}
	if book.hasPlays() {
		if _, err := exec.LookPath("ansible-playbook"); err != nil {
			return Playbook{}, fmt.Errorf("playbook %s: there is no ansible-playbook to run it: apt-get install ansible-core", book.Path)
		}
		if booted && s.Boot == nil {
			return Playbook{}, fmt.Errorf("playbook %s: it is to run in a booted machine (build: booted), and systemd does not run this host, so none can be started here; with \"build: unbooted\" it runs without", book.Path)
		}
	}
	return book, nil
}

// StepError says in which step a build failed, and where all that it printed
// can be read.
type StepError struct {
	Step string
	Err  error
	Log  string // path of the full log
}

func (e *StepError) Error() string { return fmt.Sprintf("%s: %v (full log: %s)", e.Step, e.Err, e.Log) }

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// build is one generation in the making.
type build struct {
	store      *Store
	image      string
	generation Generation
	base       Generation // the current one when the build began, if there was one
	record     Record     // of generation
	unchanged  bool       // generation is as good as base, and not needed
	suspect    bool       // if the build fails now, the reason is to be found in the tree
	tally      tally      // what the playbook did
	keptAs     *base      // what the tree is to be kept as, see keepBase; nil if it is not to be
	shown      []string   // directories of the host that the image's packages come from
	booted     bool       // the playbook runs in a booted machine
	log        *buildLog
	program    atomic.Int64 // the process that is filling the tree, or 0
}

// build makes and publishes a generation of an image: what fill leaves in the
// generation's tree, if fill returns nil and machines boot from it. Else nothing
// of it stays, or it is kept as a failed one.
func (s *Store) build(ctx context.Context, name string, noWait bool, fill func(*build) error) (_ Generation, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("image %s: %w", name, err)
		}
	}()
	lock, err := s.lock(ctx, name, ".build", lock.Exclusive, func() error {
		if noWait {
			return &BusyError{By: s.builder(name)}
		}
		s.note(name, "wait for "+s.builder(name)+" to end")
		return nil
	})
	if err != nil {
		return Generation{}, err
	}
	defer lock.Close()

	// Cleaning up is done for a cancelled build too.
	always := context.WithoutCancel(ctx)
	if err := s.end(always, lock, name); err != nil {
		return Generation{}, fmt.Errorf("remove what a killed build left: %w", err)
	}
	generation, err := s.begin(lock, name)
	if err != nil {
		return Generation{}, fmt.Errorf("begin a generation: %w", err)
	}
	defer func() {
		if endErr := errors.Join(s.end(always, lock, name), s.forget(always, name), s.pruneBases(always)); endErr != nil {
			err = errors.Join(err, fmt.Errorf("clean up after the build: %w", endErr))
		}
	}()
	log, err := s.openLog(generation)
	if err != nil {
		return Generation{}, fmt.Errorf("begin a log: %w", err)
	}
	defer log.Close()

	b := &build{store: s, image: name, generation: generation, log: log}
	defer func() { b.keptAs.Close() }()
	if s.look(name).Exists {
		if b.base, err = s.Current(name); err != nil {
			return Generation{}, err
		}
	}
	defer func() {
		// Where it fills the disk, there is nothing in it to look for.
		if err != nil && b.suspect && ctx.Err() == nil && !b.lacksRoom(err) {
			err = b.keepFailed(err)
		}
	}()
	if err := fill(b); err != nil {
		return Generation{}, err
	}
	if b.unchanged {
		b.suspect = false
		if err := s.noteMaintained(b.base, b.record); err != nil {
			return Generation{}, err
		}
		return b.base, b.pruneOld(ctx)
	}
	b.suspect = true
	flushed := flushAhead(generation.Path)
	if err := b.step(ctx, "check", func() error {
		if err := box.ClearIdentity(generation.Path); err != nil {
			return err
		}
		return cmp.Or(Check(generation.Path), context.Cause(ctx))
	}); err != nil {
		return Generation{}, err
	}
	if err := b.test(ctx); err != nil {
		return Generation{}, err
	}
	b.suspect = false
	if err := b.step(ctx, "publish", func() (err error) {
		b.record.Built = time.Now().UTC().Truncate(time.Second)
		b.record.Replaced = b.base.Name
		if b.record.Bytes, err = storage.Usage(ctx, generation.Path); err != nil {
			return err
		}
		if err := <-flushed; err != nil {
			return err
		}
		return s.publish(name, generation, b.record)
	}); err != nil {
		return Generation{}, err
	}
	// What no playbook changed is kept only now: on a file system without
	// copy-on-write, publishing would have to flush it too.
	b.keepBase(ctx)
	return generation, b.pruneOld(ctx)
}

// pruneOld removes what the image needs no more. If jobs keep starting all the
// time, it leaves that to the next build.
func (b *build) pruneOld(ctx context.Context) error {
	_, err := b.store.prune(ctx, b.image, KeptGenerations, func() error { return nil })
	if errors.Is(err, errImpatient) {
		b.store.note(b.image, "older generations stay for now: jobs are starting")
		return nil
	}
	if err != nil {
		return fmt.Errorf("it is well, but older generations could not be removed: %w", err)
	}
	return nil
}

// fromNothing fills the generation with a new Debian and runs the playbook.
func (b *build) fromNothing(ctx context.Context, o Bootstrap, book Playbook) error {
	o.Suite = cmp.Or(o.Suite, "unstable")
	b.record = Record{How: byBootstrap, Suite: o.Suite}
	b.shown = o.mirrorPaths()
	if err := b.needRoom(ctx, ""); err != nil {
		return err
	}
	if err := b.bootstrap(ctx, o); err != nil {
		return err
	}
	if book.hasPlays() {
		b.keepBase(ctx) // as long as no playbook has been in it
	}
	return b.play(ctx, book)
}

// fromCurrent fills the generation with a copy of the current one and changes it.
func (b *build) fromCurrent(ctx context.Context, how string, change func() error) error {
	base, err := b.store.Record(b.base)
	if err != nil {
		return err
	}
	b.record = Record{How: how, Suite: base.Suite, Playbook: base.Playbook, Maintained: base.Maintained}
	if err := b.needRoom(ctx, b.base.Path); err != nil {
		return err
	}
	if err := b.step(ctx, "copy the current generation", func() error {
		return storage.Clone(ctx, b.base.Path, b.generation.Path)
	}); err != nil {
		return err
	}
	return change()
}

// step does one named part of the build. Whatever it fails of once ctx has ended
// is the end of ctx.
func (b *build) step(ctx context.Context, name string, do func() error) error {
	b.store.tell(Event{Image: b.image, Step: name})
	b.log.begin(name)
	defer b.watchPackages()()
	fault.Here("image: begin to " + name)
	if err := do(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if b.lacksRoom(err) {
			err = b.store.sayRoom(err)
		}
		if b.log.mentions(" is expired (invalid since ") {
			err = fmt.Errorf("%w; if the mirror is a snapshot, set nspawn_runner_check_valid_until: false (an existing image needs --recreate)", err)
		}
		fmt.Fprintf(b.log, "== %s: %v\n", name, err)
		return &StepError{Step: name, Err: err, Log: b.log.path}
	}
	fault.Here("image: done with " + name)
	return nil
}

// run runs a program of the build, made with exec.CommandContext. What it prints
// goes to the log, and the line that matters into the error. The program has a
// session of its own: it cannot wait for an answer from a terminal, and a Ctrl-C
// there reaches it through its context only. It dies with this process.
func (b *build) run(ctx context.Context, cmd *exec.Cmd) error {
	fmt.Fprintf(b.log, "+ %s\n", shellescape.QuoteCommand(cmd.Args))
	cmd.Stdout, cmd.Stderr = b.log, b.log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.WaitDelay = 5 * time.Second

	// The kernel takes the thread that started the program for its parent.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	if err == nil {
		b.program.Store(int64(cmd.Process.Pid))
		err = cmd.Wait()
		b.program.Store(0)
	}
	if ctx.Err() != nil && cmd.Process != nil {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // what the program started and did not end
	}
	if err == nil || errors.Is(err, exec.ErrWaitDelay) { // it left a child that holds its output
		return nil
	}
	return b.log.reason(err)
}

// inBox does something in a box on the generation, whose apt uses the proxy.
func (b *build) inBox(ctx context.Context, p *downloads.Proxy, do func(*box.Box) error) error {
	tree := box.Tree{Root: b.generation.Path, Hostname: hostname(b.image), Shown: b.shown}
	err := tree.InBox(ctx, b.log, loansOf(p), do)
	var start *box.StartError
	if errors.As(err, &start) {
		return b.log.reason(err)
	}
	return err
}

// loansOf are what makes apt in a tree use a proxy, if there is one.
func loansOf(p *downloads.Proxy) []box.Loan {
	if conf := p.AptConf(); conf != nil {
		return []box.Loan{{Path: "etc/apt/apt.conf.d/00nspawn-runner", Content: conf, Mode: 0o644}}
	}
	return nil
}

// downloads are the cache of all builds.
func (s *Store) downloads() downloads.Cache {
	return downloads.Cache{Dir: filepath.Join(s.StateDir, ".downloads"), Max: s.DownloadsMax}
}

// download does a step of the build with a proxy, or with none if nothing is cached.
// listen opens the proxy's socket.
func (b *build) download(listen func() (net.Listener, error), do func(*downloads.Proxy) error) error {
	p, err := b.store.downloads().Serve(listen, b.store.Environment, b.log)
	if err != nil {
		return fmt.Errorf("download cache: %w", err)
	}
	if p == nil {
		return do(nil)
	}
	err = do(p)
	if err != nil && b.log.mentions("Hash Sum mismatch") {
		p.Reject()
	}
	fmt.Fprintf(b.log, "== downloads: %d bytes from mirrors, %d bytes kept from earlier builds\n", p.Fetched(), p.Cached())
	return errors.Join(err, p.Close())
}

// onLoopback listens on the loopback device of this process.
func onLoopback() (net.Listener, error) { return net.Listen("tcp", downloads.AnyPort) }

// environment is this process's own with the store's on top.
func (s *Store) environment() []string {
	env := os.Environ()
	for name, value := range s.Environment {
		env = append(env, name+"="+value)
	}
	return env
}

// hostname makes a host name of an image's name.
func hostname(image string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, image)
	return cmp.Or(strings.Trim(name[:min(len(name), 63)], "-"), "localhost")
}

// Shell runs root's login shell in the tree at root, the copy that Edit made.
// An exit status of the shell other than 0 is an *exec.ExitError.
func (s *Store) Shell(ctx context.Context, root string, stdin io.Reader, stdout, stderr io.Writer) error {
	image := filepath.Base(filepath.Dir(root)) // .generations/IMAGE/STAMP
	return box.Tree{Root: root, Hostname: hostname(image)}.Shell(ctx, s.Environment, stdin, stdout, stderr)
}
