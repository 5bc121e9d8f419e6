package machine

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/storage"
)

// furnish gives a machine what its chroot cannot know: names for its loopback
// and itself, and the host's resolver. A minbase has no /etc/hosts at all.
func furnish(root string, record Record) error {
	name, owner := Name(record.ID), record.RootUID
	etc, err := storage.OpenIn(root, "etc", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("open /etc of the chroot: %w", err)
	}
	defer etc.Close()
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	if own, err := readIn(etc, "hosts"); err == nil && len(own) > 0 {
		hosts = strings.TrimRight(string(own), "\n") + "\n"
		if !strings.Contains(hosts, "localhost") {
			hosts += "127.0.0.1\tlocalhost\n::1\tlocalhost\n"
		}
	}
	hosts += "127.0.1.1\t" + name + "\n"
	if err := replaceIn(etc, "hosts", []byte(hosts), owner); err != nil {
		return fmt.Errorf("write /etc/hosts: %w", err)
	}
	resolver, err := hostResolver()
	if err != nil || resolver == "" {
		return err
	}
	if record.Network == NetworkPrivate {
		resolver = forMachine(resolver)
	}
	if err := replaceIn(etc, "resolv.conf", []byte(resolver), owner); err != nil {
		return fmt.Errorf("write /etc/resolv.conf: %w", err)
	}
	return nil
}

// readIn reads a regular file in a directory, not following a link.
func readIn(dir *os.File, name string) ([]byte, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
		return nil, errors.New("no small regular file")
	}
	data := make([]byte, info.Size())
	n, err := file.ReadAt(data, 0)
	return data[:n], err
}

// replaceIn puts a file in a directory in place of whatever has that name, a
// link too: it is replaced, not followed.
func replaceIn(dir *os.File, name string, data []byte, owner int) error {
	temporary := ".nspawn-runner." + name
	fd, err := unix.Openat(int(dir.Fd()), temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	if _, err := file.Write(data); err != nil {
		return err
	}
	if err := file.Chmod(0o644); err != nil {
		return err
	}
	if err := file.Chown(owner, owner); err != nil {
		return err
	}
	fault.Here("boot: next " + name + " written")
	return unix.Renameat(int(dir.Fd()), temporary, int(dir.Fd()), name)
}
