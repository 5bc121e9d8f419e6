package harness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Recipe says how mmdebstrap makes a Debian tree. Two equal recipes share one
// cached tree.
type Recipe struct {
	Kind     string   // what the tree is for: the beginning of its name in the cache
	Suite    string   // Debian's name of the release
	Packages []string // what is added to a minimal Debian
	Before   []string // shell commands run before they are added, with the tree as $1
	Hooks    []string // shell commands run at the end, with the tree as $1
}

// LabTree is the host that a lab boots.
//
// A lab shares its kernel with the outer machine, so the units that would set
// up that kernel, or announce its devices again, are masked. A loop device
// that is made while the lab runs would not show in its /dev: its nodes are
// made beforehand.
var LabTree = Recipe{
	Kind:  "lab",
	Suite: "bookworm",
	Packages: []string{
		"systemd", "systemd-sysv", "systemd-container", "dbus", "udev",
		"procps", "iproute2", "passt", "netbase", "ca-certificates", "uidmap",
		"btrfs-progs", "e2fsprogs", "debootstrap", "mmdebstrap", "eatmydata",
		"ansible-core", "git",
	},
	Hooks: []string{
		`chroot "$1" systemctl mask systemd-udev-trigger.service systemd-modules-load.service systemd-sysctl.service \
			console-getty.service getty.target e2scrub_all.timer e2scrub_reap.service \
			apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer`,
		`echo lab >"$1/etc/hostname"`,
		`printf '127.0.0.1 localhost lab\n::1 localhost\n' >"$1/etc/hosts"`,
		`{ echo 'c! /dev/loop-control 0660 root disk - 10:237'
		   for n in $(seq 0 63); do echo "b! /dev/loop$n 0660 root disk - 7:$n"; done
		 } >"$1/etc/tmpfiles.d/loop.conf"`,
	},
}

// FreshTree is a Debian with systemd and apt on which nothing is installed yet: what an
// administrator begins with. As a lab it has what [LabTree] has for that.
var FreshTree = Recipe{
	Kind:     "fresh",
	Suite:    "bookworm",
	Packages: []string{"systemd", "systemd-sysv", "udev", "procps", "ca-certificates"},
	// dpkg need not wait for the disk: the lab does not outlive a crash.
	Hooks: append([]string{`echo force-unsafe-io >"$1/etc/dpkg/dpkg.cfg.d/unsafe"`}, LabTree.Hooks...),
}

// BaseTree is a small bootable Debian that tests use as a chroot where they do
// not want to wait for debootstrap.
var BaseTree = Recipe{
	Kind:  "base",
	Suite: "bookworm",
	Packages: []string{
		"systemd", "systemd-sysv", "dbus", "git", "python3", "ca-certificates",
		"netbase", "procps",
	},
	Hooks: []string{`rm -f "$1/etc/hostname"`},
}

// Of is the recipe for another release, "" for the same. It has a kind of its own, so that
// the cache keeps both trees.
func (r Recipe) Of(release string) Recipe {
	if release != "" && release != r.Suite {
		r.Kind, r.Suite = r.Kind+release, release
	}
	return r
}

// Tree is the directory of the tree that a recipe makes, from the cache or
// built now, which takes a minute and is said on out. Nobody may write to it.
// It stays as long as this process lives.
func Tree(ctx context.Context, out io.Writer, r Recipe) (string, error) {
	return cached(ctx, r.Kind, r.hash(), func(aside string) error {
		fmt.Fprintf(out, "Building the %s tree (%s), about a minute\n", r.Kind, r.Suite)
		return r.build(ctx, aside)
	})
}

// hash names what a recipe makes.
func (r Recipe) hash() string {
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%q", r)))[:16]
}

// build makes the tree in an empty directory.
func (r Recipe) build(ctx context.Context, dir string) error {
	// What mmdebstrap leaves in its TMPDIR goes away with a failed build.
	scratch := filepath.Join(filepath.Dir(dir), "tmp")
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(scratch)

	argv := []string{"mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory"}
	if acceptsExpired() {
		argv = append(argv, "--aptopt="+anyAge)
	}
	for _, p := range r.Packages {
		argv = append(argv, "--include="+p)
	}
	for _, h := range r.Before {
		argv = append(argv, "--essential-hook="+h)
	}
	for _, h := range r.Hooks {
		argv = append(argv, "--customize-hook="+h)
	}
	argv = contained(append(argv, r.Suite, dir)...)

	var output bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "TMPDIR="+scratch)
	cmd.Stdout, cmd.Stderr = &output, &output
	p, err := start(cmd)
	if err != nil {
		return err
	}
	select {
	case <-p.exited:
		return outcome(p.err, []string{"mmdebstrap of", r.Kind}, output.Bytes())
	case <-ctx.Done():
		p.kill()
		return context.Cause(ctx)
	}
}

// anyAge has apt accept Release files that have expired.
const anyAge = `Acquire::Check-Valid-Until "false"`

// acceptsExpired reports whether this machine's apt is configured to accept Release files
// that have expired: its mirror is a snapshot then. mmdebstrap does not read that
// configuration, and of a release that is still worked on, as sid, all Release files expire.
func acceptsExpired() bool {
	config, _ := exec.Command("apt-config", "dump").Output()
	return strings.Contains(string(config), anyAge+";\n")
}
