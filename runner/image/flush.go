package image

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// flushAhead begins to write what is to be published to disk, while it is tested:
// then publish has little left to wait for. Its error counts: the kernel reports one
// to the first caller only, and publish would be the second.
func flushAhead(path string) <-chan error {
	done := make(chan error, 1)
	go func() { done <- flush(path, unix.Syncfs) }()
	return done
}

// flush writes a directory, or by unix.Syncfs all of its file system, to disk.
func flush(path string, how func(fd int) error) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := how(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}
