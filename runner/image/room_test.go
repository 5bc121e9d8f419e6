package image

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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
	if err == nil || !strings.Contains(err.Error(), "image sid: no room for another generation: it needs 734 MB, and "+s.StateDir+" has 6") {
		t.Errorf("creation: %v", err)
	}
	if text, _ := os.ReadFile(calls); len(text) > 0 {
		t.Errorf("called: %s", text)
	}
	wantNothing(t, s, "sid")
}

func TestAMaintenanceNeedsRoomForACopy(t *testing.T) {
	s, _ := fakeStore(t, "sid", "- fake: true\n")
	smallDisk(t, s, 750)
	t.Setenv("FAKE_BOOTSTRAP", `head -c 300000000 /dev/zero > "$root/big"`)
	generation := create(t, s, "sid")
	_, _, err := s.Maintain(t.Context(), "sid", ofSid)
	if err == nil || !strings.Contains(err.Error(), "it needs 509 MB, and ") {
		t.Errorf("%v", err)
	}
	wantOnly(t, s, "sid", generation)
}
