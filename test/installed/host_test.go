package installed

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"nspawn-runner/test/harness"
)

// host is a new Debian that has the package as a file, and nothing that it depends on.
type host struct{ lab *harness.Lab }

// Where things are in the host.
const (
	debs  = "/opt/debs"
	tools = "/opt/tools"
	base  = "/opt/base"
)

// boot boots a host.
func boot(t *testing.T) host {
	t.Helper()
	dir := os.Getenv("NSPAWN_RUNNER_DEB")
	if dir == "" {
		t.Skip("needs a package: run 'go tool mage test:package'")
	}
	release := cmp.Or(os.Getenv("NSPAWN_RUNNER_SUITE"), harness.FreshTree.Suite)
	image, err := harness.Tree(t.Context(), os.Stdout, harness.BaseTree.Of(release))
	if err != nil {
		t.Fatal(err)
	}
	lab, err := harness.StartLab(t.Context(), harness.LabOptions{
		Tree:     harness.FreshTree.Of(release),
		ReadOnly: map[string]string{dir: debs, os.Getenv("NSPAWN_RUNNER_BUILD"): tools, image: base},
		Out:      os.Stdout,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Stop(); err != nil {
			t.Error(err)
		}
	})
	return host{lab}
}

// bash runs a script in the host and returns what it prints. $version is the version of
// the package, $deb its file, $older and $newer are the same with other versions.
func (h host) bash(t *testing.T, script string) string {
	t.Helper()
	out, err := h.try(t, script)
	if err != nil {
		t.Fatalf("%s\n%v:\n%s", script, err, out)
	}
	return out
}

// try is bash of a script that may fail.
func (h host) try(t *testing.T, script string) (string, error) {
	t.Helper()
	return outcome(h.command(t, script))
}

// quietly runs a command that prints a lot, and shows that only if it fails.
const quietly = `
quietly() {
	"$@" >/root/quiet 2>&1 || { cat /root/quiet; return 1; }
}
`

func outcome(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// command is a command in the host that runs a script.
func (h host) command(t *testing.T, script string) *exec.Cmd {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(os.Getenv("NSPAWN_RUNNER_DEB"), "*_"+runtime.GOARCH+".deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("want one package: %q, %v", found, err)
	}
	name := filepath.Base(found[0])
	cmd := h.lab.Command(t.Context(), "bash", "-euo", "pipefail", "-c", quietly+script)
	cmd.Env = append(cmd.Env, "DEBIAN_FRONTEND=noninteractive", "deb="+debs+"/"+name, "version="+strings.Split(name, "_")[1],
		"older=/root/older.deb", "newer=/root/newer.deb")
	return cmd
}

// want checks that a text has parts.
func want(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("want %q in:\n%s", part, text)
		}
	}
}

// repack makes packages with other versions of the same files, but that the older one has a
// program that was built for tests.
const repack = `
for v in older:0.0.9 newer:9.0; do
	dpkg-deb -R "$deb" /root/package
	[ $v != older:0.0.9 ] || install ` + tools + `/faults/nspawn-runner /root/package/usr/bin
	sed -i "s/^Version: .*/Version: ${v#*:}/" /root/package/DEBIAN/control
	dpkg-deb -b -Zgzip -z1 --root-owner-group /root/package /root/${v%:*}.deb >/dev/null
	rm -r /root/package
done
`

// playing plays short jobs, those of $1.yaml, one after the other until $1 is gone, and fails
// with the first one that does.
const playing = `
play() {
	while [ -e "$1" ]; do
		` + tools + `/simulate --driver /usr/bin/nspawn-runner "$1.yaml" >"$1.log" 2>&1 || { cat "$1.log"; return 1; }
		echo >>"$1.played"
	done
}
`
