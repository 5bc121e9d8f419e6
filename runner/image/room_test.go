package image

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
)

// smallDisk makes the state directory a file system of so many megabytes.
func smallDisk(t *testing.T, s *Store, megabytes int) {
	t.Helper()
	if err := os.MkdirAll(s.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", s.StateDir, "tmpfs", 0, fmt.Sprintf("size=%dm", megabytes)); err != nil {
		t.Skipf("mount a tmpfs: %v", err)
	}
	dir := s.StateDir
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func TestABuildWithoutRoomForAnotherGenerationDoesNotBegin(t *testing.T) {
	s, calls := fakeStore(t)
	smallDisk(t, s, 600)
	_, err := s.Create(t.Context(), "sid", CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), "image sid: no room for another generation: it needs 700 MiB, and "+s.StateDir+" has 5") {
		t.Errorf("creation: %v", err)
	}
	if text, _ := os.ReadFile(calls); len(text) > 0 {
		t.Errorf("called: %s", text)
	}
	wantNothing(t, s, "sid")
}

func TestAMaintenanceNeedsRoomForACopy(t *testing.T) {
	s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: true\n")
	smallDisk(t, s, 750)
	t.Setenv("FAKE_BOOTSTRAP", `head -c 300000000 /dev/zero > "$root/big"`)
	generation := create(t, s, "sid")
	_, _, err := s.Maintain(t.Context(), "sid", ofSid)
	if err == nil || !strings.Contains(err.Error(), "it needs 486 MiB, and ") {
		t.Errorf("%v", err)
	}
	wantOnly(t, s, "sid", generation)
}

func TestAMaintenanceNeedsNoRoomForACopyThatSharesBlocks(t *testing.T) {
	s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: true\n")
	mountSmall(t, s, "btrfs")
	t.Setenv("FAKE_BOOTSTRAP", `head -c 500000000 /dev/zero > "$root/big"`)
	generation := create(t, s, "sid")
	if next, outcome, err := s.Maintain(t.Context(), "sid", ofSid); err != nil {
		t.Error(err)
	} else if outcome == Published {
		wantOnly(t, s, "sid", generation, next)
	}
}

func TestAFullDiskFailsTheBuildAndNothingElse(t *testing.T) {
	s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: dd if=/dev/zero of=$1/big bs=1M count=$FAKE_MEGABYTES && cp $1/etc/hostname $1/etc/played && $FAKE_END\n")
	smallDisk(t, s, 900)
	t.Setenv("FAKE_MEGABYTES", "1")
	t.Setenv("FAKE_END", "true")
	generation := create(t, s, "sid")
	t.Setenv("FAKE_MEGABYTES", "2000")
	if _, _, err := s.Maintain(t.Context(), "sid", ofSid); err == nil || !strings.Contains(err.Error(), "image sid: playbook ") {
		t.Errorf("%v", err)
	}
	if text := dump(s); !strings.Contains(text, "No space left on device") {
		t.Errorf("the log does not say why: %s", text)
	}
	if current, err := s.Current("sid"); err != nil || current != generation {
		t.Errorf("current is %v, %v", current, err)
	}
	if got := read(t, generation.Path+"/etc/played"); got != "sid\n" {
		t.Errorf("the current chroot is changed: %q", got)
	}
	// What failed was kept to be looked at, but a build needs the room more. A kill leaves it
	// whole, or nothing of it.
	t.Setenv("FAKE_MEGABYTES", "700")
	t.Setenv("FAKE_END", "false")
	if _, _, err := s.Maintain(t.Context(), "sid", ofSid); err == nil || !exists(s.failed("sid")) {
		t.Errorf("no tree is kept: %v", err)
	}
	inTrash := false
	fault.Hook = func(mark string) {
		inTrash = inTrash || mark == "image: old generation in the trash" && !exists(s.failed("sid"))
	}
	defer func() { fault.Hook = nil }()
	t.Setenv("FAKE_MEGABYTES", "3")
	t.Setenv("FAKE_END", "true")
	next, outcome, err := s.Maintain(t.Context(), "sid", ofSid)
	if !inTrash {
		t.Error("the failed tree was not moved away in one step before it was removed")
	}
	if err != nil || outcome != Published {
		t.Errorf("the next maintenance: %v, %v", outcome, err)
	}
	wantOnly(t, s, "sid", generation, next)
}
