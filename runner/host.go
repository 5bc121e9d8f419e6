package runner

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

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
	if !runsSystemd() {
		return errors.New("systemd does not run this host, so no machine can be started here; " +
			"to try nspawn-runner anyway, run 'go tool mage demo' in its source: it boots a lab that has one")
	}
	return nil
}

// runsSystemd says whether systemd runs this host: sd_booted(3).
func runsSystemd() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
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

// memory is the host's memory in bytes.
func memory() (uint64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("sysinfo: %w", err)
	}
	return uint64(info.Totalram) * uint64(info.Unit), nil
}

// mostTasks is how many processes and threads the host can have.
func mostTasks() (uint64, error) {
	most := uint64(math.MaxUint64)
	for _, name := range []string{"threads-max", "pid_max"} {
		text, err := os.ReadFile("/proc/sys/kernel/" + name)
		if err != nil {
			return 0, err
		}
		limit, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("kernel.%s: %w", name, err)
		}
		most = min(most, limit)
	}
	return most, nil
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
