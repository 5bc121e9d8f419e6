package storage

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
)

// overlay is the overlay backend, and with inMemory the tmpfs backend.
//
// The lower layer is an idmapped mount of the chroot. The upper layer is not idmapped: it is removed with the
// machine, so its files have the machine's user ids. This also works on tmpfs, which cannot be mounted idmapped
// before Linux 6.3, and no file on the host's disk is setuid root.
type overlay struct{ inMemory bool }

func (o overlay) Name() string {
	if o.inMemory {
		return "tmpfs"
	}
	return "overlay"
}

func (o overlay) Traits() Traits {
	return Traits{InMemory: o.inMemory, Reserved: !o.inMemory, Volatile: true}
}

func (o overlay) CanLimit(string) error {
	if o.inMemory {
		return nil
	}
	return canMakeLayer()
}

func (o overlay) Prepare(dir, chroot string, owner int, limit uint64) (*os.File, error) {
	switch {
	case o.inMemory:
		return nil, nil
	case limit > 0:
		return makeLayer(dir, limit)
	}
	return nil, layers(dir, chroot, owner)
}

// Used asks the file system of the upper layer.
func (o overlay) Used(dir string) (bytes, files uint64, err error) {
	holder := filepath.Join(dir, "mnt")
	if !o.inMemory {
		holder = filepath.Join(holder, "layer")
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(holder, &fs); err != nil {
		return 0, 0, fmt.Errorf("statfs %s: %w", holder, err)
	}
	return percent(fs.Blocks-fs.Bavail, fs.Blocks), percent(fs.Files-fs.Ffree, fs.Files), nil
}

// percent returns how much of the whole a part is, in percent; 0 if the whole is 0.
func percent(part, whole uint64) uint64 {
	if whole == 0 {
		return 0
	}
	return uint64(float64(part) / float64(whole) * 100)
}

// holder returns the directory of the file system for the upper layer: the tmpfs, or the mounted layer.
func (o overlay) holder(dir, mnt string, disk Disk) (string, error) {
	if o.inMemory {
		return mnt, nil
	}
	return mountLayer(dir, mnt, disk.Device)
}

// layers makes the upper and work directories in dir. The root directory of an overlay has the mode of the upper
// directory, so that gets the mode of the chroot.
func layers(dir, chroot string, owner int) error {
	info, err := os.Stat(chroot)
	if err != nil {
		return err
	}
	for _, name := range []string{"upper", "work"} {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		fault.Here("storage: layer " + name + " made")
		if err := os.Chmod(path, info.Mode().Perm()); err != nil {
			return err
		}
		if err := os.Chown(path, owner, owner); err != nil {
			return err
		}
	}
	return nil
}

func (o overlay) Mount(dir, chroot string, owner int, disk Disk) (string, error) {
	options := ""
	if o.inMemory {
		// Without a limit, memory_max of the machine counts: pages of a tmpfs count as its memory.
		options = ",size=90%,nr_inodes=0"
		if disk.Limit > 0 {
			options = fmt.Sprintf(",size=%d,nr_inodes=0", disk.Limit)
		}
	}
	mnt, err := scratch(dir, options)
	if err != nil {
		return "", err
	}
	lower, root := filepath.Join(mnt, "lower"), filepath.Join(mnt, "root")
	for _, path := range []string{lower, root} {
		if err := os.Mkdir(path, 0o755); err != nil {
			return "", err
		}
	}
	if err := bindTree(chroot, lower, owner); err != nil {
		return "", err
	}
	fault.Here("storage: lower layer bound")
	upperDir := dir // Prepare has made the layers there
	if o.inMemory || disk.Limit > 0 {
		if upperDir, err = o.holder(dir, mnt, disk); err != nil {
			return "", err
		}
		if err := layers(upperDir, chroot, owner); err != nil {
			return "", err
		}
	}
	if err := o.lay(root, mnt, upperDir); err != nil {
		return "", fmt.Errorf("mount overlay over %s with its upper layer in %s: %w", chroot, upperDir, err)
	}
	if err := mountStores(root, upperDir, owner); err != nil {
		return "", err
	}
	return root, nil
}

// lay mounts the overlay on root. Its lower layer is in mnt, its upper layer in upperDir.
func (o overlay) lay(root, mnt, upperDir string) error {
	// The options name file descriptors, because the kernel splits paths at colons and commas.
	upper, err := unix.Open(upperDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", upperDir, err)
	}
	defer unix.Close(upper)
	at, err := unix.Open(mnt, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", mnt, err)
	}
	defer unix.Close(at)
	data := fmt.Sprintf("lowerdir=/proc/self/fd/%d/lower,upperdir=/proc/self/fd/%d/upper,workdir=/proc/self/fd/%d/work", at, upper, upper)
	data += ",redirect_dir=on" // so directories of the chroot can be renamed
	if !o.inMemory {
		// A machine does not survive a crash, so its root need not wait for the disk. fsync(2) does
		// nothing then, and dpkg is twice as fast.
		data += ",volatile"
	}
	return unix.Mount("machine", root, "overlay", 0, data)
}
