package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/storage"
)

// masked are the units that only do harm, or only take time, in a machine that
// lives for minutes.
var masked = []string{
	"getty.target", "console-getty.service",
	"apt-daily.timer", "apt-daily-upgrade.timer", "apt-daily.service", "apt-daily-upgrade.service",
	"dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "logrotate.timer", "man-db.timer",
	"systemd-tmpfiles-clean.timer", "systemd-networkd-wait-online.service",
	"tmp.mount",
	// A fifth of a boot (measured): who was logged in when, a journal that
	// outlives a reboot, the root's mount options, and device nodes, of which
	// a machine has what nspawn gave it.
	"systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
	"systemd-journal-flush.service", "systemd-remount-fs.service",
	"systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-setup-dev-early.service",
}

// Boot is the command of a machine's service. In a mount namespace of its own
// it mounts the root of the machine whose directory is given, and becomes
// systemd-nspawn. The host never sees these mounts, and however nspawn ends,
// they end with it. It returns only when it fails.
func Boot(dir string) error {
	runtime.LockOSThread() // the namespace is this thread's, which then becomes nspawn
	record, err := readRecord(dir)
	if err != nil {
		return err
	}
	fault.Here("boot: record read")
	backend, err := storage.Named(record.Backend)
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare the mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make / a slave: %w", err)
	}
	fault.Here("boot: namespace made")
	root, err := backend.Mount(dir, record.Chroot, record.RootUID)
	if err != nil {
		return err
	}
	fault.Here("boot: root mounted")
	if err := furnish(root, record); err != nil {
		return err
	}
	fault.Here("boot: root furnished")
	argv := []string{
		"systemd-nspawn",
		"--quiet",
		"--machine=" + Name(record.ID),
		"--directory=" + root,
		"--boot",
		"--keep-unit",
		"--register=yes",
		"--notify-ready=yes",
		"--suppress-sync=yes",
		"--link-journal=no",
		"--resolv-conf=off",
		"--timezone=off",
		// 1.1 s of a boot of trixie and newer go to a rate limit on mounts.
		"--setenv=SYSTEMD_DEFAULT_MOUNT_RATE_LIMIT_BURST=1000",
	}
	if record.hasOwnNetwork() {
		argv = append(argv, "--private-network")
	}
	if record.RootUID > 0 {
		argv = append(argv,
			fmt.Sprintf("--private-users=%d:%d", record.RootUID, storage.RangeSize),
			"--private-users-ownership=off")
	}
	if _, err := os.Stat("/dev/fuse"); err == nil {
		argv = append(argv, "--bind=/dev/fuse")
	}
	binds, err := bindOptions(filepath.Dir(root), record)
	if err != nil {
		return err
	}
	argv = append(argv, binds...)
	argv = append(argv, "systemd.hostname="+Name(record.ID), "systemd.show_status=auto")
	for _, unit := range masked {
		argv = append(argv, "systemd.mask="+unit)
	}
	nspawn, err := exec.LookPath("systemd-nspawn")
	if err != nil {
		return fmt.Errorf("%w: apt-get install systemd-container", err)
	}
	fault.Here("boot: about to become systemd-nspawn")
	return fmt.Errorf("execute %s: %w", nspawn, unix.Exec(nspawn, argv, os.Environ()))
}

// furnish gives a machine what its chroot cannot know: names for its loopback
// and itself, and the host's resolver. A minbase has no /etc/hosts at all.
func furnish(root string, record Record) error {
	name, owner := Name(record.ID), record.RootUID
	etc, err := openIn(root, "etc", unix.O_PATH|unix.O_DIRECTORY)
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
		resolver = withoutLoopback(resolver)
	}
	if err := replaceIn(etc, "resolv.conf", []byte(resolver), owner); err != nil {
		return fmt.Errorf("write /etc/resolv.conf: %w", err)
	}
	return nil
}

// openIn opens a path below root as the machine would see it: links are
// resolved inside it.
func openIn(root, path string, flags uint64) (*os.File, error) {
	at, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(at)
	fd, err := unix.Openat2(at, path, &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
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
