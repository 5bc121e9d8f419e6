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
// file in the machine's directory. It works wherever an overlay does: a
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
	if err := control.Close(); err != nil {
		return err
	}
	// And that of the layer's file system, which the machine's service must not load: the
	// kernel refuses modules of file systems to all that is in the slice.
	filesystem, err := unix.Fsopen("ext4", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("ext4, for the layer: %w", err)
	}
	return unix.Close(filesystem)
}

// makeLayer makes a layer of so many bytes in dir and attaches it to a loop device.
func makeLayer(dir string, bytes uint64) (*os.File, error) {
	path := filepath.Join(dir, "layer")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	// Reserved, or a host's disk that is full would show only when the layer's pages
	// are written, of which nobody in the machine learns. What ext4 needs for itself
	// comes on top: one inode of 256 bytes for 8 KiB, and 16 MiB that it keeps back.
	if err := unix.Fallocate(int(file.Fd()), 0, 0, int64(bytes+bytes/32+20<<20)); err != nil {
		return nil, fmt.Errorf("reserve %d MB (disk_max) in %s: %w", bytes/1e6, dir, err)
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
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENXIO) || tries == 100 {
			return nil, fmt.Errorf("%s: %w", device.Name(), err)
		}
		// Another process was faster, or is not yet done with it.
	}
}

// mountLayer mounts the layer of dir beside the machine's root and returns its path.
func mountLayer(dir, mnt, device string) (string, error) {
	attached, err := os.Open(device)
	if err != nil {
		return "", err
	}
	defer attached.Close()
	// When prepare was killed, the device may be another machine's by now.
	if err := isAttached(attached, filepath.Join(dir, "layer")); err != nil {
		return "", err
	}
	path := filepath.Join(mnt, "layer")
	if err := os.Mkdir(path, 0o755); err != nil {
		return "", err
	}
	// Inode tables are not written before they are used, and nothing waits for the
	// disk.
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
