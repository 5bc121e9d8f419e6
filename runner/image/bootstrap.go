package image

import (
	"bytes"
	"cmp"
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
	"nspawn-runner/runner/image/downloads"
	"nspawn-runner/runner/storage"
)

// included are the packages without which an image is of no use: git, dbus,
// systemd and python3 are the original's; git needs ca-certificates to clone
// from https, a boot needs systemd-sysv, and jobs expect netbase and procps.
var included = []string{"git", "dbus", "systemd", "python3", "ca-certificates", "systemd-sysv", "netbase", "procps"}

// Bootstrap says what the first tree of an image is made of. It is for the
// caller to see that the words are good ones: they stand on a command line.
type Bootstrap struct {
	// Suite is unstable if it is empty, but see Maintain.
	Suite string
	// Mirror is the address of the packages; empty for the one that the
	// program knows, which is Debian's.
	Mirror string
	// Security is the address of the mirror with SUITE-security, empty for Mirror or
	// what lies beside it, NoSecurity for none. NoUpdates leaves out SUITE-updates. Both
	// are for a Mirror that is given.
	Security  string
	NoUpdates bool
	// AnyAge takes a mirror whose Release files say that their time is over.
	AnyAge bool
	// Components of the mirror; none means main.
	Components []string
	// Keyring is a file of the host with the mirror's keys, empty for what the
	// host's apt trusts. The image's apt comes to trust them too.
	Keyring string
	// Include are packages to install besides those that each image has.
	Include []string
	// Variant is minbase, which is also the empty one, buildd or important.
	Variant string
	// Program is mmdebstrap, debootstrap, or auto or empty for the first of
	// these that is installed.
	Program string
}

// complete puts in place of what is left empty what it means.
func (o Bootstrap) complete() (Bootstrap, error) {
	o.Variant = cmp.Or(o.Variant, "minbase")
	if len(o.Components) == 0 {
		o.Components = []string{"main"}
	}
	o.Include = append(slices.Clone(included), o.Include...)
	if o.Mirror == "" && (o.Security != "" || o.NoUpdates) {
		return o, errors.New("nspawn_runner_security_mirror and nspawn_runner_updates are for a mirror that is given too, as nspawn_runner_mirror")
	}
	if o.Keyring != "" {
		if _, err := os.ReadFile(o.Keyring); err != nil {
			return o, fmt.Errorf("keyring: %w", err)
		}
	}
	if o.Program != "" && o.Program != "auto" {
		if _, err := exec.LookPath(o.Program); err != nil {
			return o, fmt.Errorf("there is no %s: apt-get install %[1]s", o.Program)
		}
		return o, nil
	}
	for _, program := range []string{"mmdebstrap", "debootstrap"} { // the first needs half the time
		if _, err := exec.LookPath(program); err == nil {
			o.Program = program
			return o, nil
		}
	}
	return o, errors.New("there is neither mmdebstrap nor debootstrap: apt-get install mmdebstrap")
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
		if o.mirrorPaths() != nil { // so that apt inside finds it too, see mmdebstrap(1)
			args = append(args, "--hook-dir=/usr/share/mmdebstrap/hooks/file-mirror-automount")
		}
	}
	args = append(args, o.Suite, root)
	if o.Mirror != "" {
		args = append(args, o.Mirror)
	}
	return args
}

// mirrorPaths are where mirrors lie that are directories of this host.
func (o Bootstrap) mirrorPaths() []string {
	var paths []string
	for _, mirror := range append([]string{o.Mirror}, o.securityMirrors()...) {
		path, is := strings.CutPrefix(mirror, "file://")
		if is && isDir(path) && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths
}

// bootstrap fills the generation with a minimal Debian: a copy of a base if
// there is one, else from the mirror. Then keepBase makes it a base.
func (b *build) bootstrap(ctx context.Context, o Bootstrap) error {
	o, err := o.complete()
	if err != nil {
		return err
	}
	exceptions := aptExceptions(ctx)
	if o.AnyAge && !slices.Contains(exceptions, anyAge) {
		exceptions = append(exceptions, anyAge)
	}
	base, err := b.store.openBase(ctx, b.image, o, exceptions)
	if err != nil {
		return err
	}
	if base.fresh() {
		defer base.Close()
		return b.step(ctx, "copy the base of "+o.Suite, func() error {
			if err := base.copyTo(ctx, b.generation.Path); err != nil {
				return err
			}
			return box.SetHostname(b.generation.Path, hostname(b.image))
		})
	}
	b.keptAs = base
	return b.step(ctx, "bootstrap "+o.Suite+" with "+o.Program, func() error {
		return b.download(onLoopback, func(p *downloads.Proxy) error { return b.firstTree(ctx, o, exceptions, p) })
	})
}

// keepBase keeps what a bootstrap made for the images that come after it. The
// image is as good without.
func (b *build) keepBase(ctx context.Context) {
	base := b.keptAs
	b.keptAs = nil
	defer base.Close()
	if err := base.keep(ctx, b.generation.Path); err != nil && ctx.Err() == nil {
		b.store.note(b.image, "warning: the next image will need a bootstrap too: "+err.Error())
	}
}

// firstTree runs the bootstrap program.
func (b *build) firstTree(ctx context.Context, o Bootstrap, exceptions []string, p *downloads.Proxy) error {
	root := b.generation.Path
	if err := storage.Create(root); err != nil {
		return err
	}
	if err := os.Chmod(root, 0o755); err != nil { // whatever the umask says
		return err
	}
	env := slices.Concat(b.store.environment(), []string{"LC_ALL=C.UTF-8"}, p.Environment())
	more, err := b.corrections(ctx, o, env)
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
	if err := box.WithoutSync(func() error { return b.run(ctx, cmd) }); err != nil {
		// debootstrap's own log is in the tree, which is about to go.
		if text, readErr := os.ReadFile(filepath.Join(root, "debootstrap/debootstrap.log")); readErr == nil {
			fmt.Fprintf(b.log, "== debootstrap/debootstrap.log\n%s", text)
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
		if err := b.correct(ctx, o, more, env, p); err != nil {
			return err
		}
	}
	return box.SetHostname(root, hostname(b.image))
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
