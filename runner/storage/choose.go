package storage

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// backends are those for machines of jobs.
var backends = []Backend{btrfs{}, overlay{}, overlay{inMemory: true}}

// Names returns the names of the backends in the configuration.
func Names() []string {
	var names []string
	for _, b := range backends {
		names = append(names, b.Name())
	}
	return names
}

// Named returns the backend with a name. It knows InPlace too, which is in records of builds.
func Named(name string) (Backend, error) {
	for _, b := range slices.Concat(backends, []Backend{InPlace()}) {
		if b.Name() == name {
			return b, nil
		}
	}
	return nil, fmt.Errorf("backend %q: unknown; use one of %s", name, strings.Join(Names(), ", "))
}

// Choose returns the backend for machines of a chroot. machines is the directory with the machines'
// directories. If wanted is "" or "auto", the backend is btrfs if the chroot is a subvolume on the file system
// of machines, else overlay. If the wanted backend cannot work here, the error names one that can.
func Choose(wanted, machines, chroot string) (Backend, error) {
	subvolume, err := IsSubvolume(chroot)
	if err != nil {
		return nil, err
	}
	// A snapshot is on the file system of its subvolume.
	snapshots := subvolume && sameBtrfs(machines, chroot)
	switch wanted {
	case "btrfs":
		if !subvolume {
			return nil, fmt.Errorf("backend btrfs: %s is not a btrfs subvolume: use backend overlay or tmpfs", chroot)
		}
		if !snapshots {
			return nil, fmt.Errorf("backend btrfs: %s and %s lie on different file systems: use backend overlay or tmpfs", chroot, machines)
		}
		return btrfs{}, nil
	case "", "auto":
		if snapshots {
			return btrfs{}, nil
		}
		wanted = "overlay"
	}
	backend, err := Named(wanted)
	if err != nil {
		return nil, err
	}
	if wanted == "overlay" {
		if err := canHoldUpper(machines); err != nil {
			return nil, err
		}
	}
	return backend, nil
}

// canHoldUpper returns an error if dir cannot have the upper layer of an overlay. The kernel needs trusted
// extended attributes, d_type and RENAME_WHITEOUT, which overlay itself, NFS, FAT and old XFS lack.
func canHoldUpper(dir string) error {
	bad, err := FileSystem(dir)
	if err != nil {
		return fmt.Errorf("backend overlay: %w", err)
	}
	switch bad {
	case "overlay", "NFS", "FAT", "9p", "FUSE":
	default:
		// Other file systems are asked for an attribute that an upper layer needs. This makes no
		// file, which a kill could leave behind.
		if _, err := unix.Getxattr(dir, "trusted.overlay.opaque", nil); !errors.Is(err, unix.ENOTSUP) {
			return nil
		}
		bad = "without trusted extended attributes"
	}
	return fmt.Errorf("backend overlay: the file system of %s (%s) cannot hold an overlay: "+
		"set \"backend: tmpfs\", or put state_dir on ext4, xfs or btrfs", dir, bad)
}
