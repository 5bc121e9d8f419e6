package image

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// needed is what a tree must have so that a machine boots from it and a job can
// run there: of each kind one.
var needed = []struct {
	kind string
	any  []string
	runs bool // it is a program
}{
	// Those that systemd-nspawn --boot tries, in its order.
	{"init", []string{"/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/sbin/init"}, true},
	{"D-Bus daemon", []string{"/usr/bin/dbus-daemon", "/usr/bin/dbus-broker-launch"}, true},
	{"D-Bus system socket", []string{"/usr/lib/systemd/system/dbus.socket", "/lib/systemd/system/dbus.socket", "/etc/systemd/system/dbus.socket"}, false},
	{"shell", []string{"/bin/bash"}, true},
}

// Check says what the tree at root lacks to be the root of a machine. It takes
// microseconds. Symbolic links are followed as they will be inside, so that one
// to /usr/bin never finds the host's.
func Check(root string) error {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("check %s: %w", root, err)
	}
	defer unix.Close(dir)
	var missing []string
	for _, need := range needed {
		found := false
		for _, path := range need.any {
			is, err := isFile(dir, path, need.runs)
			if err != nil {
				return fmt.Errorf("check %s: open %s: %w", root, path, err)
			}
			found = found || is
		}
		if !found {
			missing = append(missing, fmt.Sprintf("no %s (%s)", need.kind, strings.Join(need.any, ", ")))
		}
	}
	if missing != nil {
		return fmt.Errorf("broken image: %s has %s", root, strings.Join(missing, " and "))
	}
	return nil
}

// isFile says whether path inside dir is a file, and a program if runs is set.
// Its error is the host's, not the tree's.
func isFile(dir int, path string, runs bool) (bool, error) {
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err == unix.ENOSYS {
		return false, fmt.Errorf("openat2: %w", err)
	}
	if err != nil {
		return false, nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && (!runs || st.Mode&0o111 != 0), nil
}
