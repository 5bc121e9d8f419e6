package runner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"nspawn-runner/runner/host"

	"golang.org/x/sys/unix"
)

// needRoot is asked before anything is done that only root can do.
func needRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("nspawn-runner must run as root")
	}
	return nil
}

// needHost is asked before machines are started.
func (h *Host) needHost() error {
	if err := needSystemd(); err != nil {
		return err
	}
	return h.makeStateDir()
}

// needSystemd is asked before machines are touched.
func needSystemd() error {
	if err := needRoot(); err != nil {
		return err
	}
	if !host.RunsSystemd() {
		return errors.New("systemd does not run this host, so no machine can be started here; " +
			"to try nspawn-runner anyway, run 'go tool mage demo' in its source: it boots a lab that has one")
	}
	return nil
}

// makeStateDir makes the state directory, closed to everybody but root, since
// files in it belong to jobs and may be setuid.
func (h *Host) makeStateDir() error {
	if err := os.MkdirAll(h.Config.StateDir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if err := os.Chmod(h.Config.StateDir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return h.oneFileSystem()
}

// resolved is a path without links, as far as it is there; what is not there yet is
// made where the links lead.
func resolved(path string) string {
	there := lowest(path)
	end, err := filepath.EvalSymlinks(there)
	if err != nil {
		return path
	}
	return filepath.Join(end, strings.TrimPrefix(path, there))
}

// oneFileSystem looks at the parts of the state directory between which trees
// are moved by renaming.
func (h *Host) oneFileSystem() error {
	var first string
	var device uint64
	for _, name := range []string{".generations", ".machines", ".trash"} {
		path := filepath.Join(h.Config.StateDir, name)
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("state directory: %w", err)
		}
		dev := info.Sys().(*syscall.Stat_t).Dev
		if first == "" {
			first, device = path, dev
		} else if dev != device {
			return fmt.Errorf("state directory: %s and %s lie on different file systems; they must lie on one", first, path)
		}
	}
	return nil
}

// diskSize is the size in bytes of the file system of a directory, or 0 as long
// as there is none.
func diskSize(dir string) uint64 {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0
	}
	return fs.Blocks * uint64(fs.Bsize)
}
