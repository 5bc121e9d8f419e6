package image

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/image/build"
	"nspawn-runner/runner/storage"
)

// mountSmall mounts a file system of its own on the store's state directory.
func mountSmall(t *testing.T, s *Store, kind string) {
	t.Helper()
	if err := os.MkdirAll(s.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), kind)
	mkfs := []string{"mkfs." + kind, "-q", file}
	if kind == "btrfs" {
		// Data and metadata in the same place: so both are full at the same time.
		mkfs = []string{"mkfs.btrfs", "-q", "--mixed", file}
	}
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 1<<30)); err != nil {
		t.Fatal(err)
	}
	dir := s.StateDir
	for _, args := range [][]string{mkfs, {"mount", "-o", "loop", file, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%q: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// fillDisk leaves nothing free in a directory's file system, until the file it
// returns is removed.
func fillDisk(t *testing.T, dir string) (file string) {
	t.Helper()
	file = filepath.Join(dir, "filler")
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := int64(64 << 20); chunk >= 4096; chunk /= 4 {
		for size := int64(0); err == nil || !errors.Is(err, unix.ENOSPC); {
			if info, statErr := f.Stat(); statErr == nil {
				size = info.Size()
			}
			err = unix.Fallocate(int(f.Fd()), 0, size, chunk)
		}
		err = nil
	}
	return file
}

// used is how much is used of a file system.
func used(t *testing.T, dir string) int64 {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	return int64(fs.Blocks-fs.Bfree) * fs.Bsize
}

// awaitRoom waits until no more of a file system is used than before, but for some
// MB: btrfs frees what was removed in the background, once it is told to sync.
func awaitRoom(t *testing.T, dir, after string, before int64) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); used(t, dir) > before+16<<20; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %d MB were used, and %d are now", after, before>>20, used(t, dir)>>20)
		}
		if on, _ := storage.IsBtrfs(dir); on {
			if out, err := exec.Command("btrfs", "filesystem", "sync", dir).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
	}
}

// wantSpoken checks that an error of a full disk says so, where, and how much room
// there is.
func wantSpoken(t *testing.T, s *Store, err error) {
	t.Helper()
	text := strings.ToLower(err.Error())
	for _, want := range []string{"no space left on device", s.StateDir + " has ", " mib free"} {
		if !strings.Contains(text, strings.ToLower(want)) {
			t.Errorf("want %q in: %v", want, err)
		}
	}
}

func TestABuildThatFillsTheDiskSaysSoAndTheSpaceComesBack(t *testing.T) {
	for _, kind := range []string{"ext4", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			s, _ := fakeStore(t, "sid", killPlaybook)
			s.InUse = func(string) bool { return false }
			mountSmall(t, s, kind)
			t.Setenv("FAKE_BOOTSTRAP", killBootstrap)
			fill := func(file string) string {
				return "for m in 512 256 128 64 32; do fallocate -l ${m}M " + file + "$m; done; dd if=/dev/zero bs=1M of=" + file
			}
			empty := used(t, s.StateDir)

			// In memory there is room for it, and then on the disk not.
			t.Setenv("FAKE_BOOTSTRAP", "fallocate -l 1200M $root/big")
			_, err := s.Create(t.Context(), "sid", CreateOptions{})
			var step *build.StepError
			if !errors.As(err, &step) || !strings.HasPrefix(step.Step, "bootstrap") {
				t.Fatalf("bootstrap: %v", err)
			}
			wantSpoken(t, s, err)
			awaitRoom(t, s.StateDir, "bootstrap", empty)

			t.Setenv("FAKE_BOOTSTRAP", killBootstrap)
			twoGenerations(t, s)
			before := used(t, s.StateDir)
			for name, do := range map[string]func() error{
				"playbook": func() error { return maintainSid(t.Context(), s) },
				"recreate": func() error {
					_, _, err := s.Maintain(t.Context(), "sid", MaintainOptions{Bootstrap: ofSid.Bootstrap, Recreate: true})
					return err
				},
			} {
				t.Setenv("FAKE_VERSION", "new")
				t.Setenv("FAKE_PLAY", fill("$1/big"))
				err := do()
				if !errors.As(err, &step) || !strings.HasPrefix(step.Step, "playbook") {
					t.Fatalf("%s: %v", name, err)
				}
				wantSpoken(t, s, err)
				if exists(s.failed("sid")) {
					t.Errorf("%s: the tree that fills the disk is kept", name)
				}
				awaitRoom(t, s.StateDir, name, before)
				if version := published(t, s); version != "old" {
					t.Errorf("%s: published is %q", name, version)
				}
			}
		})
	}
}

// While something is done to an image another one fills the disk, at each moment.
func TestWhereverTheDiskGetsFullTheChrootIsWholeAndTheNextBuildIsWell(t *testing.T) {
	for _, kind := range []string{"ext4", "btrfs"} {
		for _, name := range []string{"create", "maintain", "roll back", "prune", "remove"} {
			t.Run(kind+", "+name, func(t *testing.T) {
				operation := killable[name]
				s, _ := fakeStore(t, "sid", killPlaybook)
				s.InUse = func(string) bool { return false }
				mountSmall(t, s, kind)
				t.Setenv("FAKE_BOOTSTRAP", killBootstrap)
				t.Setenv("FAKE_PLAY", "true")
				t.Cleanup(func() { fault.Hook = nil })
				top, failures, empty := s.StateDir, 0, used(t, s.StateDir)
				for number, reached := 1, true; reached; number++ {
					s.StateDir = filepath.Join(top, strconv.Itoa(number))
					operation.begin(t, s)
					var mark, filler string
					passed := 0
					fault.Hook = func(at string) {
						if passed++; passed == number {
							mark, filler = at, fillDisk(t, top)
						}
					}
					t.Setenv("FAKE_VERSION", "new")
					err := operation.do(t.Context(), s)
					fault.Hook = nil
					if reached = mark != ""; !reached {
						break
					}
					t.Logf("%2d %s: %v", number, mark, err)
					if err != nil {
						failures++
						if text := err.Error(); !strings.Contains(text, "o space left on device") && !strings.Contains(text, "no room for another generation: it needs ") {
							t.Errorf("full at %q: %v", mark, err)
						}
					}
					if version := published(t, s); !slices.Contains(operation.want, version) {
						t.Errorf("full at %q: published is %q", mark, version)
					}
					if err := os.Remove(filler); err != nil {
						t.Fatal(err)
					}
					awaitRoom(t, top, mark, empty)
					t.Setenv("FAKE_VERSION", "next")
					if err := maintainSid(t.Context(), s); err != nil {
						t.Errorf("full at %q: the next maintenance: %v", mark, err)
					}
					if version := published(t, s); version != "next" {
						t.Errorf("full at %q: published after the next maintenance is %q", mark, version)
					}
					wantTidy(t, s, fmt.Sprint("full at ", mark))
					if err := storage.Remove(t.Context(), s.StateDir); err != nil {
						t.Fatal(err)
					}
				}
				t.Logf("%d failures", failures)
			})
		}
	}
}
