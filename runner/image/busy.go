package image

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nspawn-runner/runner/lock"
)

// BusyError says that an image is being built, and by which process. A caller gets it
// that does not want to wait.
type BusyError struct {
	By string
}

func (e *BusyError) Error() string { return "it is busy with " + e.By }

// Building says whether an image is being built, or its generations are being changed,
// at this moment.
func (s *Store) Building(name string) bool {
	return lock.IsHeld(filepath.Join(s.generations(name), ".build"))
}

// builder words which operation has the lock .build of an image: a build, which notes
// its process in the file, or a short rollback or removal, which does not.
func (s *Store) builder(name string) string {
	text, _ := os.ReadFile(filepath.Join(s.generations(name), ".build"))
	stamp, pid, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if pid == "" {
		return "a change of its generations"
	}
	by := "a build by process " + pid
	if command, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline")); err == nil {
		by += fmt.Sprintf(" (%s)", strings.ReplaceAll(string(bytes.Trim(command, "\x00")), "\x00", " "))
	}
	if began, err := time.Parse(stampFormat, stamp); err == nil {
		by += fmt.Sprintf(", for %s", max(0, time.Since(began)).Truncate(time.Second))
	}
	return by
}
