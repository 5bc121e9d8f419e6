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
)

// escaped escapes the characters of a path at which systemd-nspawn splits an option.
var escaped = strings.NewReplacer(`\`, `\\`, ":", `\:`)

// bindOptions mounts binds and devices in mnt, beside the machine's root. It returns the options by
// which systemd-nspawn shows them in the machine, and makes the mount points.
func bindOptions(mnt string, record Record) ([]string, error) {
	var options []string
	show := func(option, from, to string) {
		options = append(options, option+escaped.Replace(from)+":"+escaped.Replace(to))
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

// makeNodes makes nodes for the machine's devices, on a tmpfs of their own. In a user namespace, the
// host's nodes would belong to the user nobody, and with mode 0660 no program could open them. devtmpfs
// cannot be mounted idmapped. All users in the machine may use the nodes, as those of systemd-nspawn.
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

// node returns the path of a device's node. Two names of one device share a node.
func node(dir string, device Device) string {
	return filepath.Join(dir, fmt.Sprintf("%d-%d", unix.Major(device.Number), unix.Minor(device.Number)))
}
