package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
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
func (s *Source) Size(context.Context) (int64, error) { return 0, nil }

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

// finishDebootstrap does what mmdebstrap does by itself: the exceptions for apt in
// the image, a mirror that is a directory in its sources.list, which debootstrap
// leaves empty, and no packages left in apt's cache.
func finishDebootstrap(root string, o Bootstrap, exceptions []string) error {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer tree.Close()
	if exceptions != nil {
		conf := strings.Join(exceptions, ";\n") + ";\n"
		if err := tree.WriteFile("etc/apt/apt.conf.d/99debootstrap", []byte(conf), 0o644); err != nil {
			return err
		}
	}
	if strings.HasPrefix(o.Mirror, "file://") {
		line := fmt.Sprintf("deb %s %s %s\n", o.Mirror, o.Suite, strings.Join(o.Components, " "))
		if err := tree.WriteFile("etc/apt/sources.list", []byte(line), 0o644); err != nil {
			return err
		}
	}
	const archives = "var/cache/apt/archives"
	entries, err := fs.ReadDir(tree.FS(), archives)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if filepath.Ext(entry.Name()) == ".deb" {
			if err := tree.Remove(filepath.Join(archives, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// trust gives apt in the tree the keys of the mirror that it was made from, unless
// they came with a package, as Ubuntu's do.
func trust(root, keyring string) error {
	if keyring == "" {
		return nil
	}
	keys, err := os.ReadFile(keyring)
	if err != nil {
		return err
	}
	tree, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer tree.Close()
	if _, err := tree.Stat(strings.TrimPrefix(keyring, "/")); err == nil {
		return nil
	}
	// apt-key(8): what is armored must be called .asc.
	name := "etc/apt/trusted.gpg.d/nspawn-runner.gpg"
	if bytes.HasPrefix(keys, []byte("-----BEGIN PGP")) {
		name = "etc/apt/trusted.gpg.d/nspawn-runner.asc"
	}
	if err := tree.MkdirAll("etc/apt/trusted.gpg.d", 0o755); err != nil {
		return err
	}
	return box.WriteFile(tree, name, keys, 0o644)
}

// anyAge has apt take Release files whose time is over.
const anyAge = `Acquire::Check-Valid-Until "false"`

// aptExceptions are the host's exceptions from apt's checks of a mirror's age.
// Who has them uses a mirror that stands still, and then neither a bootstrap nor
// apt in the image does without them.
func aptExceptions(ctx context.Context) []string {
	out, err := exec.CommandContext(ctx, "apt-config", "dump").Output()
	if err != nil {
		return nil // a host without apt
	}
	var exceptions []string
	for line := range strings.Lines(string(out)) {
		option := strings.TrimRight(line, ";\n")
		if option == anyAge || option == `Acquire::Check-Date "false"` {
			exceptions = append(exceptions, option)
		}
	}
	return exceptions
}
