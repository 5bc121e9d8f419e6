package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/storage"
)

// Bind is a path of the host's that a machine sees.
type Bind struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Writable binds belong to the machine's root inside, and to root on the disk:
	// programs in them that are setuid, or have capabilities, are so on the host.
	Writable bool `json:"writable,omitempty"`
}

// Resolved is a bind as machines get it, whose From leads through no symbolic link. It is
// an error if they cannot have it, or if it would open this host to its own users. jobs
// are directories that jobs can write to.
func (b Bind) Resolved(jobs []string) (Bind, error) {
	var err error
	if b.From, err = storage.Resolve(b.From, jobs); err == nil && b.Writable {
		err = storage.CheckClosed(b.From, jobs)
	}
	return b, err
}

// Device is a character device of the host's that a machine may use.
type Device struct {
	Path   string `json:"path"`   // in the machine
	Number uint64 `json:"number"` // its major and minor number, stat(2)'s st_rdev
}

// FindDevice looks at a device of the host; links are followed. Only character
// devices will do: who can write to a block device can write to what is mounted
// from it.
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

// allow is the device as DeviceAllow= of systemd.resource-control(5) names it,
// whatever the node is called.
func (d Device) allow() [2]string {
	// m is for our own mknod.
	return [2]string{fmt.Sprintf("/dev/char/%d:%d", unix.Major(d.Number), unix.Minor(d.Number)), "rwm"}
}

// mount mounts what a machine sees on at, which it makes. systemd-nspawn would follow
// links to it, and let the machine see what the host mounts below it later.
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

// mountPoint makes what a mount of from can lie on.
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
