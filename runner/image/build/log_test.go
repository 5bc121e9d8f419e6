package build

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func openTestLog(t *testing.T, verbose io.Writer) *Log {
	log, err := OpenLog(filepath.Join(t.TempDir(), "log"), verbose)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func TestLogHasAllWithoutColours(t *testing.T) {
	var verbose bytes.Buffer
	log := openTestLog(t, &verbose)
	long := strings.Repeat("x", 3*maxLine/2)
	fmt.Fprint(log, "\x1b[0;32mok\x1b", "[0m\nhalf a ", "line\n", long, "\nno end")
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(log.Path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(text), "ok\nhalf a line\n"+long+"\nno end\n"; got != want {
		t.Errorf("the log is %.60q", got)
	}
	if !strings.HasPrefix(verbose.String(), "\x1b[0;32mok\x1b[0m\n") {
		t.Errorf("shown was %.60q", verbose.String())
	}
}

func TestReasonIsTheLineThatExplains(t *testing.T) {
	for output, want := range map[string]string{
		"":                               "exit status 1",
		"I: fetching\ncannot stat x\n\n": "exit status 1: cannot stat x",
		"I: a\nE: Unable to locate package x\nI: cleaning up\n": "exit status 1: E: Unable to locate package x",
		// mmdebstrap 1.3
		"E: The repository 'x Release' does not have a Release file.\n" +
			"E: apt-get update --error-on=any failed\nI: main() received signal PIPE: waiting for setup...\nE: mmdebstrap failed to run\n": "exit status 1: E: The repository 'x Release' does not have a Release file.",
		"E: Release file for x/dists/old/Release is expired (invalid since 2878d).\n" +
			"E: command failed: /usr/share/mmdebstrap/hooks/maybe-merged-usr/setup00.sh\nI: main() received signal PIPE: waiting for setup...\nE: mmdebstrap failed to run\n": "exit status 1: E: Release file for x/dists/old/Release is expired (invalid since 2878d).",
		"I: Pinned packages:\nE: apt-get update did not find any indices for architecture 'amd64' in suite 'x'\nE: mmdebstrap failed to run\n": "exit status 1: E: apt-get update did not find any indices for architecture 'amd64' in suite 'x'",
		"dpkg: error processing archive x.deb (--install):\nErrors were encountered while processing:\n x.deb\nERROR: ld.so: object 'libeatmydata.so' from LD_PRELOAD cannot be preloaded: ignored.\n" +
			"E: setup failed: E: env chroot dpkg --install x.deb failed\nI: main() received signal PIPE: waiting for setup...\nE: mmdebstrap failed to run\n": "exit status 1: dpkg: error processing archive x.deb (--install):",
		// debootstrap under eatmydata
		"E: Couldn't find these debs: x\nERROR: ld.so: object 'libeatmydata.so' from LD_PRELOAD cannot be preloaded: ignored.\n": "exit status 1: E: Couldn't find these debs: x",
		// ansible 2.14 and 2.19
		"ERROR! the role 'x' was not found\n\n  roles: [x]\n          ^ here\n":       "exit status 1: ERROR! the role 'x' was not found",
		"\x1b[0;31m[ERROR]: the role 'x' was not found\x1b[0m\nOrigin: x.yaml:3:11\n": "exit status 1: [ERROR]: the role 'x' was not found",
		// systemd-nspawn
		"Directory /x doesn't look like it has an OS tree.\n": "exit status 1: Directory /x doesn't look like it has an OS tree.",
	} {
		log := openTestLog(t, nil)
		fmt.Fprint(log, output)
		if got := log.reason(errors.New("exit status 1")).Error(); got != want {
			t.Errorf("of %q:\ngot  %s\nwant %s", output, got, want)
		}
		log.Close()
	}
}
