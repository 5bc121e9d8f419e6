package storage

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
)

// The upper layer of an overlay that is limited is a file system of its own, in a
// sparse file in the machine's directory. It works wherever an overlay does: a
// project quota needs a file system mounted for it, and on ext4 it does not hold
// for an overlay, which writes with the rights of the host's root.

// mkfs makes a layer's file system.
const mkfs = "mkfs.ext4"

// canMakeLayer says whether this host has what layers need.
func canMakeLayer() error {
	if _, err := exec.LookPath(mkfs); err != nil {
		return fmt.Errorf("there is no %s: apt-get install e2fsprogs", mkfs)
	}
	// The kernel loads its module when this is opened, modprobe(8).
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("loop devices: %w", err)
	}
	return control.Close()
}

// makeLayer makes a layer of so many bytes in dir and attaches it to a loop device.
func makeLayer(dir string, bytes uint64) (*os.File, error) {
	path := filepath.Join(dir, "layer")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	// What ext4 needs for itself, nearly all of it for inodes: one for 8 KiB, of
	// 256 bytes each.
	if err := file.Truncate(int64(bytes + bytes/32 + 4<<20)); err != nil {
		return nil, err
	}
	// Nothing of it survives a crash, so it needs no journal.
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

// attach attaches a file to a loop device that is free: loop(4). The kernel
// detaches it when it is neither open nor mounted.
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
			return nil, fmt.Errorf("find a free one: %w", err)
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
		if !errors.Is(err, unix.EBUSY) || tries == 100 {
			return nil, fmt.Errorf("%s: %w", device.Name(), err)
		}
		// Another process was faster.
	}
}

// mountLayer mounts a layer beside the machine's root and returns its path.
func mountLayer(mnt, device string) (string, error) {
	path := filepath.Join(mnt, "layer")
	if err := os.Mkdir(path, 0o755); err != nil {
		return "", err
	}
	// Inode tables are not written before they are used, nothing waits for the
	// disk, and what is deleted in the layer leaves the file.
	if err := unix.Mount(device, path, "ext4", unix.MS_NOATIME, "noinit_itable,nobarrier,discard"); err != nil {
		return "", fmt.Errorf("mount %s, the layer, on %s: %w", device, path, err)
	}
	fault.Here("boot: layer mounted")
	return path, nil
}
