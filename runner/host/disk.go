package host

import "golang.org/x/sys/unix"

// DiskSize is the size in bytes of the file system of a directory, or 0 as long
// as there is none.
func DiskSize(dir string) uint64 {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0
	}
	return fs.Blocks * uint64(fs.Bsize)
}
