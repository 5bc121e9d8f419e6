package integration

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/renameio/v2"
)

// The image cut is published, on ext4 and btrfs at once, version by version, until
// the VM's power is cut; the boot that follows looks what is left. A version is a
// number; it is in the name and the text of a file in each of many directories.

// cutAway is what the image cut lacks of the base tree, so that a VM copies it in
// seconds.
var cutAway = []string{
	"usr/share/doc", "usr/share/locale", "usr/share/man", "usr/share/zoneinfo", "usr/share/perl",
	"usr/lib/python3", "usr/lib/python3.11", "usr/lib/git-core", "usr/lib/x86_64-linux-gnu/gconv", "var/lib/dpkg/info",
}

// versioned are the directories that have a version's files, links left out.
var versioned = []string{"etc/*", "usr/lib/*", "usr/lib/x86_64-linux-gnu/*", "usr/share/*", "var/lib/*"}

// versionText is what a version's files hold: some blocks of a disk.
func versionText(version int) []byte { return bytes.Repeat(fmt.Appendf(nil, "%07d\n", version), 1500) }

// versionScript is what somebody types who makes a version of the one before.
func versionScript(version int) string {
	script := "shopt -s dotglob\nprintf -v text '%07d\\n%.0s' " + fmt.Sprintf("$(for i in {1..1500}; do echo %d x; done)", version) + "\n"
	script += "for dir in"
	for _, pattern := range versioned {
		script += " /" + pattern + "/"
	}
	return script + fmt.Sprintf("; do [ -L ${dir%%/} ] && continue; rm -f $dir.cut-*; printf %%s \"$text\" >$dir.cut-%d; done\nexit 0\n", version)
}

// versionOf is the version of a tree, which must be whole in it; 0 is the base tree.
func versionOf(root string) (version int, err error) {
	var dirs, unlike []string
	for _, pattern := range versioned {
		found, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, path := range found {
			if info, err := os.Lstat(path); err == nil && info.IsDir() {
				dirs = append(dirs, path)
			}
		}
	}
	for i, dir := range dirs {
		files, _ := filepath.Glob(filepath.Join(dir, ".cut-*"))
		number := 0
		if len(files) > 0 {
			number, _ = strconv.Atoi(strings.TrimPrefix(filepath.Base(files[0]), ".cut-"))
			if text, err := os.ReadFile(files[0]); err != nil || len(files) > 1 || !bytes.Equal(text, versionText(number)) {
				unlike = append(unlike, fmt.Sprintf("%q: %d bytes, %v", files, len(text), err))
			}
		}
		if i == 0 {
			version = number
		}
		if number != version {
			unlike = append(unlike, fmt.Sprintf("%s: version %d", dir, number))
		}
	}
	if len(dirs) < 50 || len(unlike) > 0 {
		return version, fmt.Errorf("%s of %d directories is version %d, but for %s", root, len(dirs), version, strings.Join(unlike, "\n"))
	}
	return version, nil
}

// sameAs compares all else in a tree with the base tree.
func sameAs(base, root string) error {
	var unlike []string
	err := filepath.WalkDir(base, func(path string, entry fs.DirEntry, err error) error {
		name, _ := filepath.Rel(base, path)
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains(cutAway, name):
			return fs.SkipDir
		case name == "etc/machine-id": // each machine has its own
			return nil
		}
		var want, got []byte
		switch other := filepath.Join(root, name); {
		case entry.Type().IsRegular():
			want, err = os.ReadFile(path)
			if err == nil {
				got, err = os.ReadFile(other)
			}
		case entry.Type() == fs.ModeSymlink:
			var from, to string
			from, err = os.Readlink(path)
			if err == nil {
				to, err = os.Readlink(other)
			}
			want, got = []byte(from), []byte(to)
		default:
			_, err = os.Lstat(other)
		}
		if err != nil || !bytes.Equal(want, got) {
			unlike = append(unlike, fmt.Sprintf("%s: %d bytes and not %d, %v", name, len(got), len(want), err))
		}
		return nil
	})
	if err == nil && len(unlike) > 0 {
		err = fmt.Errorf("%s is broken: %s", root, strings.Join(unlike, "\n"))
	}
	return err
}

// cutHosts are the hosts of the image cut, by file system.
func cutHosts(t *testing.T) map[string]*host {
	t.Helper()
	hosts := map[string]*host{"ext4": install(t, "overlay"), "btrfs": install(t, "btrfs")}
	for _, h := range hosts {
		if _, err := os.Lstat(filepath.Join(h.state, "cut")); err != nil {
			h.makeImage(t, "cut", "rm -r "+strings.Join(cutAway, " "))
			shell(t, "sync")
		}
	}
	return hosts
}

// chroot is the published tree of the image cut.
func (h *host) chroot(t *testing.T) string {
	t.Helper()
	root, err := filepath.EvalSymlinks(filepath.Join(h.state, "cut"))
	must(t, err)
	return root
}

// Notes of versions lie on a third disk: to write one must not sync the others.
const (
	// surelyPublished is the version of which the driver has said that it is published.
	surelyPublished = "surely"
	// firstWanted is the first version that was to be published since the host started.
	firstWanted = "first"
)

func (h *host) noted(what string) int {
	text, _ := os.ReadFile("/var/tmp/cut-" + h.backend + "-" + what)
	version, _ := strconv.Atoi(string(text))
	return version
}

func (h *host) note(what string, version int) error {
	return renameio.WriteFile("/var/tmp/cut-"+h.backend+"-"+what, []byte(strconv.Itoa(version)), 0o600)
}

// TestUntilThePowerIsCutVersionsArePublished ends with the VM's power cut: what
// the driver prints at its marks is the sign for it.
func TestUntilThePowerIsCutVersionsArePublished(t *testing.T) {
	needVM(t)
	var publishing sync.WaitGroup
	for on, h := range cutHosts(t) {
		version, err := versionOf(h.chroot(t))
		must(t, err, h.note(firstWanted, version+1))
		publishing.Go(func() {
			for range 3 {
				version++
				cmd := exec.Command(os.Getenv("NSPAWN_RUNNER_FAULTS"), "--config", h.config, "chroot-login", "cut")
				cmd.Env = append(os.Environ(), "NSPAWN_RUNNER_MARKS="+on)
				cmd.Stdin = strings.NewReader(versionScript(version))
				// Not through a pipe and this process: the power is to be cut
				// at the mark, and not later.
				cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
				err := cmd.Run()
				if err == nil {
					err = h.note(surelyPublished, version)
				}
				if err != nil {
					t.Errorf("%s: publish version %d: %v", on, version, err)
					return
				}
			}
		})
	}
	publishing.Wait()
	t.Error("the power was not cut")
}

// publishedAt are marks that come when a publication must be on disk. The power is cut some
// time after a mark came for the first time.
var publishedAt = []string{"image: done with publish", "image: old generation in the trash", "image: old generations forgotten"}

func TestAfterAPowerCutEachChrootIsTheOldOneOrTheNewAndWhole(t *testing.T) {
	needVM(t)
	cutOn, cutAt, _ := strings.Cut(os.Getenv("NSPAWN_RUNNER_CUT"), ": ")
	hosts := cutHosts(t)
	t.Run("on", func(t *testing.T) {
		for on, h := range hosts {
			t.Run(on, func(t *testing.T) {
				t.Parallel()
				version, err := versionOf(h.chroot(t))
				must(t, err, sameAs(filepath.Join(h.state, "bookworm")+"/", h.chroot(t)))
				least, most := h.noted(surelyPublished), h.noted(surelyPublished)+1
				if on == cutOn && slices.Contains(publishedAt, cutAt) {
					least = max(least, h.noted(firstWanted))
				}
				if version < least || version > most {
					t.Errorf("version %d is published, and not %d or %d", version, least, most)
				}
				fmt.Printf("after the power cut: %s has version %d of %d to %d, whole\n", on, version, least, most)
				if c := h.run(t, h.prepared(t, "cut"), "echo works"); c.stdout != "works\n" {
					t.Errorf("a job: %+v", c)
				}

				version++
				if status, out := h.login(t, versionScript(version), "cut"); status != 0 {
					t.Fatalf("the next publication: %d: %s", status, out)
				}
				must(t, h.note(surelyPublished, version))
				if now, err := versionOf(h.chroot(t)); err != nil || now != version {
					t.Errorf("version %d is published, and not %d: %v", now, version, err)
				}
				h.checkGenerations(t)
			})
		}
	})
	for _, h := range hosts {
		await(t, "the trash to be emptied", func() bool { return len(h.leftovers(t)) == 0 })
	}
}

// checkGenerations checks that nothing is left of a broken publication beside the
// generations of the image cut, and that those are whole.
func (h *host) checkGenerations(t *testing.T) {
	t.Helper()
	dir := filepath.Join(h.state, ".generations", "cut")
	entries, err := os.ReadDir(dir)
	must(t, err)
	trees := 0
	for _, entry := range entries {
		name := entry.Name()
		switch tree, isRecord := strings.CutSuffix(name, ".json"); {
		case name == ".build", name == ".hold":
		case isRecord:
			if _, err := os.Stat(filepath.Join(dir, tree)); err != nil {
				t.Errorf("a record without a generation: %v", err)
			}
		case entry.IsDir() && name[0] != '.':
			trees++
			if _, err := versionOf(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
		default:
			t.Errorf("left of a broken publication: %s", name)
		}
	}
	if trees != 2 {
		t.Errorf("%d generations: %v", trees, entries)
	}
}
