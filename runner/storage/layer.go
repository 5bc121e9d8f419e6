package storage

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/size"
)

// If the writes of a machine on overlay are limited, its upper layer is a file system in a file in the machine's
// directory. This works wherever an overlay works. A project quota would need a file system that is mounted for
// it. On ext4 it would not limit an overlay, which writes with the capabilities of the host's root.

// mkfs is the program that makes a layer's file system.
const mkfs = "mkfs.ext4"

// canMakeLayer returns an error if this host lacks what layers need.
func canMakeLayer() error {
	if _, err := exec.LookPath(mkfs); err != nil {
		return fmt.Errorf("there is no %s: apt-get install e2fsprogs", mkfs)
	}
	// The kernel loads the module for loop devices when this file is opened.
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("loop devices: %w", err)
	}
	if err := control.Close(); err != nil {
		return err
	}
	// This loads the module for ext4. The machine's service cannot load it: package guard refuses
	// modules of file systems in the slice.
	filesystem, err := unix.Fsopen("ext4", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("ext4, for the layer: %w", err)
	}
	return unix.Close(filesystem)
}

// makeLayer makes a layer in dir and attaches it to a loop device, which it returns. bytes is how many bytes the
// machine may write.
func makeLayer(dir string, bytes uint64) (*os.File, error) {
	path := filepath.Join(dir, "layer")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	// The space is reserved. Otherwise, if the host's disk is full, data of the layer would be lost
	// when the kernel writes it later, and no program in the machine would get an error. ext4 itself
	// needs more: an inode of 256 bytes for each 8 KiB, and 16 MiB that it keeps back.
	if err := unix.Fallocate(int(file.Fd()), 0, 0, int64(bytes+bytes/32+20<<20)); err != nil {
		return nil, fmt.Errorf("reserve %s (disk_max) in %s: %w", size.MiB(bytes), dir, err)
	}
	// A layer does not survive a crash, so it needs no journal.
	out, err := exec.Command(mkfs, "-q", "-F", "-m", "0", "-i", "8192", "-O", "^has_journal,^resize_inode", "-E", "lazy_itable_init=1,nodiscard", path).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", mkfs, path, err, lastLine(out))
	}
	fault.Here("storage: layer made")
	device, err := attach(file)
	if err != nil {
		return nil, fmt.Errorf("attach %s to a loop device: %w", path, err)
	}
	fault.Here("storage: layer attached")
	return device, nil
}

// attach attaches a file to a free loop device: loop(4). The kernel detaches the device when it is neither open
// nor mounted.
func attach(file *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
	for tries := 0; ; tries++ {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", number), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENXIO) || tries == 100 {
			return nil, fmt.Errorf("%s: %w", device.Name(), err)
		}
		// Another process has taken the device meanwhile, or is about to release it.
	}
}

// mountLayer mounts the layer of a machine in mnt and returns the path of the mount. dir is the machine's
// directory.
func mountLayer(dir, mnt, device string) (string, error) {
	attached, err := os.Open(device)
	if err != nil {
		return "", err
	}
	defer attached.Close()
	// If prepare was killed, the kernel has detached the device, and another machine may have it now.
	if err := isAttached(attached, filepath.Join(dir, "layer")); err != nil {
		return "", err
	}
	path := filepath.Join(mnt, "layer")
	if err := os.Mkdir(path, 0o755); err != nil {
		return "", err
	}
	// With these options, inode tables are written when they are used, and no write waits for the disk.
	if err := unix.Mount(device, path, "ext4", unix.MS_NOATIME, "noinit_itable,nobarrier"); err != nil {
		return "", fmt.Errorf("mount %s, the layer, on %s: %w", device, path, err)
	}
	fault.Here("boot: layer mounted")
	return path, nil
}

// isAttached returns an error if a loop device does not show the file at path.
func isAttached(device *os.File, path string) error {
	info, err := unix.IoctlLoopGetStatus64(int(device.Fd()))
	if err != nil {
		return fmt.Errorf("ask %s for its file: %w", device.Name(), err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	if info.Inode != st.Ino || info.Device != st.Dev {
		return fmt.Errorf("%s is not attached to %s", device.Name(), path)
	}
	return nil
}
