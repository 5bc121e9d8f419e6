package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/storage"
)

// Bind shows a path of the host in a machine.
type Bind struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Writable binds belong to root in the machine, and to root on the disk. So a setuid program
	// that a job writes there is setuid on the host too.
	Writable bool `json:"writable,omitempty"`
}

// Resolved returns the bind with a From that leads through no symbolic link. jobs are directories that
// jobs can write to. It is an error if a link lies in one of them, or if users of this host could become
// root by what jobs write to the bind.
func (b Bind) Resolved(jobs []string) (Bind, error) {
	var err error
	if b.From, err = storage.Resolve(b.From, jobs); err == nil && b.Writable {
		err = storage.CheckClosed(b.From, jobs)
	}
	return b, err
}

// Device is a character device of the host that a machine may use.
type Device struct {
	Path   string `json:"path"`   // in the machine
	Number uint64 `json:"number"` // its major and minor number, stat(2)'s st_rdev
}

// FindDevice returns a character device of the host. It follows links. Block devices are refused,
// because a job could write to a file system that is mounted from one.
func FindDevice(path string) (Device, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("there is no such device on this host")
		}
		return Device{}, fmt.Errorf("device %s: %w", path, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		return Device{path, st.Rdev}, nil
	case unix.S_IFBLK:
		return Device{}, fmt.Errorf("device %s: it is a block device: jobs could write to what is mounted from it", path)
	}
	return Device{}, fmt.Errorf("device %s: it is not a device", path)
}

// allow returns the device for DeviceAllow= of systemd.resource-control(5), by its number.
func (d Device) allow() [2]string {
	// m is for mknod(2) in makeNodes.
	return [2]string{fmt.Sprintf("/dev/char/%d:%d", unix.Major(d.Number), unix.Minor(d.Number)), "rwm"}
}

// mount makes the mount point at, and mounts the bind there. systemd-nspawn would follow links, and
// would show the machine what the host mounts below the path later.
func (b Bind) mount(at string, owner int) error {
	from, err := storage.OpenPlace(b.From)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := mountPoint(from, at); err != nil {
		return err
	}
	view := storage.View{Set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if b.Writable {
		view.Owner = owner
	} else {
		view.Set |= unix.MOUNT_ATTR_RDONLY
		view.Below = true
	}
	return storage.Bind(from, at, view)
}

// mountPoint makes a mount point for from: a directory or a file.
func mountPoint(from *os.File, at string) error {
	info, err := from.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.Mkdir(at, 0o755)
	}
	return os.WriteFile(at, nil, 0o644)
}
