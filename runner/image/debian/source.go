package debian

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"nspawn-runner/runner/image/box"
	"nspawn-runner/runner/image/build"
	"nspawn-runner/runner/image/downloads"
	"nspawn-runner/runner/storage"
)

// Source fills the tree of one build with a minimal Debian.
type Source struct {
	Bootstrap Bootstrap
	Bases     Bases

	base *base // what the tree is to be saved as; nil if it is not to be
}

// Size is how many bytes the tree will take: 0, since that is not known.
func (s *Source) Size(context.Context) (bytes int64, known bool, err error) { return 0, false, nil }

// Fill makes the tree: a copy of a base if there is one, else from the mirror.
func (s *Source) Fill(ctx context.Context, b *build.Build) error {
	o, err := s.Bootstrap.complete()
	if err != nil {
		return err
	}
	exceptions := aptExceptions(ctx)
	if o.AnyAge && !slices.Contains(exceptions, anyAge) {
		exceptions = append(exceptions, anyAge)
	}
	found, err := s.Bases.open(ctx, b, o, exceptions)
	if err != nil {
		return err
	}
	if found.fresh() {
		defer found.close()
		return b.Step(ctx, "copy the base of "+o.Suite, func() error {
			if err := found.copyTo(ctx, b.Root); err != nil {
				return err
			}
			return box.SetHostname(b.Root, b.Hostname)
		})
	}
	s.base = found
	return b.Step(ctx, "bootstrap "+o.Suite+" with "+o.Program, func() error {
		return b.Download(build.OnLoopback, func(p *downloads.Proxy) error { return o.fill(ctx, b, exceptions, p) })
	})
}

// Save saves the tree, which is as Fill left it, as a base for the images that come after
// it. The image is as good without.
func (s *Source) Save(ctx context.Context, b *build.Build) {
	defer s.Close()
	if err := s.base.save(ctx, b.Root); err != nil && ctx.Err() == nil {
		b.Note("warning: the next image will need a bootstrap too: " + err.Error())
	}
}

// Close lets other builds make or use the base.
func (s *Source) Close() {
	s.base.close()
	s.base = nil
}

// fill runs the bootstrap program.
func (o Bootstrap) fill(ctx context.Context, b *build.Build, exceptions []string, p *downloads.Proxy) error {
	root := b.Root
	if err := storage.Create(root); err != nil {
		return err
	}
	if err := os.Chmod(root, 0o755); err != nil { // whatever the umask says
		return err
	}
	env := slices.Concat(b.HostEnvironment(), []string{"LC_ALL=C.UTF-8"}, p.Environment())
	more, err := o.corrections(ctx, b, env)
	if err != nil {
		return err
	}
	args := o.command(root, exceptions, more)
	if o.fitsMemory() {
		args = inMemory(root, args)
	} else if _, err := exec.LookPath("eatmydata"); err == nil {
		args = append([]string{"eatmydata"}, args...) // all is flushed once, before it is published
	}
	args, _ = box.Lift(root, args)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = slices.Concat(env, []string{o.sourcesVariable(more)})
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// Killed, debootstrap leaves mounts and processes behind. In
		// namespaces of its own all of them vanish with it.
		Cloneflags:   syscall.CLONE_NEWPID,
		Unshareflags: syscall.CLONE_NEWNS,
	}
	if err := box.WithoutSync(func() error { return b.Run(ctx, cmd) }); err != nil {
		// debootstrap's own log is in the tree, which is about to go.
		if text, readErr := os.ReadFile(filepath.Join(root, "debootstrap/debootstrap.log")); readErr == nil {
			fmt.Fprintf(b.Log, "== debootstrap/debootstrap.log\n%s", text)
		}
		return err
	}
	if o.Program == "debootstrap" {
		if err := finishDebootstrap(root, o, exceptions); err != nil {
			return err
		}
	}
	if err := trust(root, o.Keyring); err != nil {
		return err
	}
	if o.Program == "debootstrap" {
		if err := o.correct(ctx, b, more, env, p); err != nil {
			return err
		}
	}
	return box.SetHostname(root, b.Hostname)
}

// command is the command line that fills root. mmdebstrap takes packages of more
// archives, if there are any.
func (o Bootstrap) command(root string, exceptions []string, more []archive) []string {
	args := []string{o.Program}
	if o.Variant != "important" {
		args = append(args, "--variant="+o.Variant)
	} else if o.Program == "mmdebstrap" {
		args = append(args, "--variant=important") // debootstrap has no other name for it than none
	}
	args = append(args, "--components="+strings.Join(o.Components, ","), "--include="+strings.Join(o.Include, ","))
	if o.Keyring != "" {
		args = append(args, "--keyring="+o.Keyring)
	}
	if o.Program == "mmdebstrap" {
		for _, exception := range exceptions {
			args = append(args, "--aptopt="+exception)
		}
		if more != nil { // before other hooks, which have apt read the lists
			args = append(args, "--setup-hook="+sources)
		}
		// As debootstrap does it: without it bookworm installs a package that
		// moves everything, and three that this one needs.
		args = append(args, "--hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr")
		if o.MirrorPaths() != nil { // so that apt inside finds it too, see mmdebstrap(1)
			args = append(args, "--hook-dir=/usr/share/mmdebstrap/hooks/file-mirror-automount")
		}
	}
	args = append(args, o.Suite, root)
	if o.Mirror != "" {
		args = append(args, o.Mirror)
	}
	return args
}
