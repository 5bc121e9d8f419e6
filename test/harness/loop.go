package harness

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// detachLoops detaches the loop devices whose backing files lie below a
// directory, and is the number of those it found. The kernel detaches one
// that is still open or mounted when it is no longer. A device whose backing
// file was removed before cannot be told from another's.
func detachLoops(dir string) (int, error) {
	type file struct{ device, inode uint64 }
	files := map[file]bool{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		files[file{stat.Dev, stat.Ino}] = true
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("loop: %w", err)
	}
	// Only devices in use have this directory.
	attached, _ := filepath.Glob("/sys/block/loop*/loop")
	found := 0
	for _, a := range attached {
		device, err := os.Open(filepath.Join("/dev", filepath.Base(filepath.Dir(a))))
		if err != nil {
			continue
		}
		info, err := unix.IoctlLoopGetStatus64(int(device.Fd()))
		if err == nil && files[file{info.Device, info.Inode}] {
			found++
			_ = unix.IoctlSetInt(int(device.Fd()), unix.LOOP_CLR_FD, 0)
		}
		device.Close()
	}
	return found, nil
}
