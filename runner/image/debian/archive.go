package debian

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"nspawn-runner/runner/image/box"
	"nspawn-runner/runner/image/build"
	"nspawn-runner/runner/image/downloads"
)

// A stable release gets its corrections in two more suites: SUITE-updates, where the
// suite is, and SUITE-security, which Debian has in an archive of its own and Ubuntu has
// not. mmdebstrap adds both where it chooses the mirror itself; where one is given it
// does not, and debootstrap never does. So they are looked for, and an image is made of
// what is there.

// archive is a suite and the mirror that it is on, as a line of sources.list has them.
type archive struct{ mirror, suite string }

func (a archive) String() string { return a.mirror + " " + a.suite }

// rolling are Debian's suites that get their corrections by themselves.
var rolling = []string{"unstable", "sid", "experimental", "rc-buggy"}

// corrections lists what an image of this mirror is made of besides its suite. env is
// the environment in which apt asks for it.
func (o Bootstrap) corrections(ctx context.Context, b *build.Build, env []string) (more []archive, err error) {
	if o.Mirror == "" || slices.Contains(rolling, o.Suite) {
		return nil, nil
	}
	without := func(suite, setting string, places ...string) {
		b.Note(fmt.Sprintf("warning: there is no %s at %s, so the image goes without (%s)", suite, strings.Join(places, " or "), setting))
	}
	if suite := o.Suite + "-updates"; !o.NoUpdates {
		if more, err = find(ctx, suite, env, o.Mirror); err != nil {
			return nil, err
		}
		if more == nil {
			without(suite, "nspawn_runner_updates", o.Mirror)
		}
	}
	if o.Security == NoSecurity {
		return more, nil
	}
	suite, places := o.Suite+"-security", o.securityMirrors()
	security, err := find(ctx, suite, env, places...)
	switch {
	case err != nil || security != nil:
	case o.Security != "":
		err = fmt.Errorf("nspawn_runner_security_mirror: there is no %s at %s", suite, o.Security)
	default:
		without(suite, "nspawn_runner_security_mirror", places...)
	}
	return append(more, security...), err
}

// find looks for a suite at some mirrors, and returns the first that has it.
func find(ctx context.Context, suite string, env []string, mirrors ...string) ([]archive, error) {
	for _, mirror := range mirrors {
		for _, name := range []string{"InRelease", "Release"} {
			there, err := isThere(ctx, strings.TrimSuffix(mirror, "/")+"/dists/"+suite+"/"+name, env)
			if err != nil {
				return nil, fmt.Errorf("look for %s at %s: %w", suite, mirror, err)
			}
			if there {
				return []archive{{mirror, suite}}, nil
			}
		}
	}
	return nil, nil
}

// absent is what apt says of a file that is not there. Some servers say of all that is
// not there that it is forbidden.
var absent = regexp.MustCompile(`(?m)^E: Failed to fetch .*  (40[134] |410 |File not found )`)

// isThere asks for a file with apt's own helper: so it is asked for as apt will ask, by
// the host's proxies, certificates and passwords.
func isThere(ctx context.Context, address string, env []string) (bool, error) {
	dir, err := os.MkdirTemp("", "nspawn-runner-archive-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	helper, err := exec.LookPath("apt-helper")
	if err != nil {
		helper = "/usr/lib/apt/apt-helper"
	}
	cmd := exec.CommandContext(ctx, helper, "-o", "Acquire::Retries=1", "download-file", address, filepath.Join(dir, "file"))
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return true, nil
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case errors.Is(err, fs.ErrNotExist):
		return false, errors.New("there is no apt to ask with: apt-get install apt")
	case absent.Match(out):
		return false, nil
	}
	return false, fmt.Errorf("%w: %s", err, lastComplaint(string(out)))
}

// lastComplaint is the line in which apt says why it fetched nothing.
func lastComplaint(out string) string {
	last := ""
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "E: Failed to fetch ") || last == "" {
			last = strings.TrimSpace(line)
		}
	}
	return last
}

// sources adds lines to the sources.list of the tree $1. They are like the one of the
// mirror and suite in the first line of NSPAWN_RUNNER_SOURCES, keys and components
// included, with the mirror and suite of each further line.
const sources = `printf '%s\n' "$NSPAWN_RUNNER_SOURCES" | {
	read -r main
	line=$(grep -m 1 -F " $main " "$1/etc/apt/sources.list")
	while read -r more; do
		printf '%s\n' "${line%%" $main "*} $more ${line#*" $main "}"
	done >> "$1/etc/apt/sources.list"
}`

// sourcesVariable is the variable that the script sources reads.
func (o Bootstrap) sourcesVariable(more []archive) string {
	lines := []string{archive{o.Mirror, o.Suite}.String()}
	for _, one := range more {
		lines = append(lines, one.String())
	}
	return "NSPAWN_RUNNER_SOURCES=" + strings.Join(lines, "\n")
}

// correct brings corrections into a tree that debootstrap made, which takes packages of
// one suite only. more are those of a mirror that is given.
func (o Bootstrap) correct(ctx context.Context, b *build.Build, more []archive, env []string, p *downloads.Proxy) (err error) {
	if o.Mirror == "" {
		o.Mirror = mainMirror(b.Root, o.Suite)
		if more, err = o.corrections(ctx, b, env); err != nil {
			return err
		}
	}
	if more == nil {
		return nil
	}
	add := exec.CommandContext(ctx, "sh", "-c", sources, "sh", b.Root)
	add.Env = slices.Concat(env, []string{o.sourcesVariable(more)})
	if err := b.Run(ctx, add); err != nil {
		return fmt.Errorf("add to sources.list: %w", err)
	}
	return b.InBox(ctx, p, func(x *box.Box) error {
		args := append(x.Enter(), "sh", "-c", "apt-get update && apt-get --yes --no-install-recommends dist-upgrade && apt-get clean")
		upgrade := exec.CommandContext(ctx, args[0], args[1:]...)
		upgrade.Env = slices.Concat(env, []string{"DEBIAN_FRONTEND=noninteractive", "PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"})
		return b.Run(ctx, upgrade)
	})
}

// mainMirror is the mirror that debootstrap chose for a suite, as the tree's
// sources.list has it.
func mainMirror(root, suite string) string {
	text, err := os.ReadFile(filepath.Join(root, "etc/apt/sources.list"))
	if err != nil {
		return ""
	}
	words := strings.Fields(string(text))
	if at := slices.Index(words, suite); at > 0 {
		return words[at-1]
	}
	return ""
}
