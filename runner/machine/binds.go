package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
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
	return Device{}, fmt.Errorf("device %s: it is no device", path)
}

// allow is the device as DeviceAllow= of systemd.resource-control(5) names it,
// whatever the node is called.
func (d Device) allow() [2]string {
	// m is for our own mknod.
	return [2]string{fmt.Sprintf("/dev/char/%d:%d", unix.Major(d.Number), unix.Minor(d.Number)), "rwm"}
}

// bindOptions mounts what a machine sees of the host beside the machine's root, and
// returns nspawn's options for all of it. nspawn makes the mount points.
func bindOptions(mnt string, record Record) ([]string, error) {
	var options []string
	escape := strings.NewReplacer(`\`, `\\`, ":", `\:`)
	show := func(option, from, to string) {
		options = append(options, option+escape.Replace(from)+":"+escape.Replace(to))
	}
	for i, bind := range record.Binds {
		at := filepath.Join(mnt, fmt.Sprintf("bind-%d", i))
		if err := bind.mount(at, record.RootUID); err != nil {
			return nil, fmt.Errorf("bind %w", err)
		}
		fault.Here("boot: bind made")
		show("--bind=", at, bind.To)
	}
	if len(record.Devices) == 0 {
		return options, nil
	}
	nodes := filepath.Join(mnt, "devices")
	if err := makeNodes(nodes, record); err != nil {
		return nil, err
	}
	for _, device := range record.Devices {
		show("--bind=", node(nodes, device), device.Path)
	}
	return options, nil
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

// makeNodes makes the machine's own nodes of its devices, on a tmpfs of theirs.
// The host's would belong to nobody in a user namespace, and could not be opened
// if their mode is 0660; and an idmapped mount of devtmpfs there is not. As
// with nspawn's own nodes, everybody inside may use them.
func makeNodes(dir string, record Record) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("devices", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755,size=64k"); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	for _, device := range record.Devices {
		path := node(dir, device)
		if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(device.Number)); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make a node of device %s: %w", device.Path, err)
		}
		if err := os.Chown(path, record.RootUID, record.RootUID); err != nil {
			return err
		}
		if err := os.Chmod(path, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// node is where the node of a device lies. Two names of one device share it.
func node(dir string, device Device) string {
	return filepath.Join(dir, fmt.Sprintf("%d-%d", unix.Major(device.Number), unix.Minor(device.Number)))
}
