package machine

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/network"
	"nspawn-runner/runner/storage"
)

// furnished are the files that furnish may write, below the machine's root.
func furnished() []string {
	all := []string{"etc/hosts", "etc/resolv.conf"}
	for path := range dropIns([]string{"any"}, false) {
		all = append(all, "etc/"+path)
	}
	return all
}

// furnish gives a machine what its chroot cannot know: names for its loopback,
// itself and services, and the host's resolver. A minbase has no /etc/hosts at all.
func furnish(root string, record Record) error {
	owner := record.RootUID
	etc, err := storage.OpenIn(root, "etc", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("open /etc of the chroot: %w", err)
	}
	defer etc.Close()
	if err := replaceIn(etc, "hosts", []byte(hosts(etc, record)), owner); err != nil {
		return fmt.Errorf("write /etc/hosts: %w", err)
	}
	attached, err := record.attached()
	if err != nil {
		return err
	}
	resolver, err := network.HostResolver()
	if err != nil {
		return err
	}
	resolver = attached.Resolver(resolver)
	if resolver != "" {
		if err := replaceIn(etc, "resolv.conf", []byte(resolver), owner); err != nil {
			return fmt.Errorf("write /etc/resolv.conf: %w", err)
		}
	}
	if record.Program != nil {
		if err := forgetLink(etc, "machine-id", owner); err != nil {
			return fmt.Errorf("write /etc/machine-id: %w", err)
		}
		return replaceIn(etc, "hostname", []byte(record.hostname()+"\n"), owner)
	}
	for path, text := range dropIns(network.Nameservers(resolver), record.Privileged) {
		if err := placeIn(etc, path, text, owner); err != nil {
			return fmt.Errorf("write /etc/%s: %w", path, err)
		}
	}
	return nil
}

// hosts is the text of a machine's /etc/hosts. That of a booted image's is the beginning.
func hosts(etc *os.File, record Record) string {
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	if own, err := readIn(etc, "hosts"); err == nil && len(own) > 0 && record.Program == nil {
		hosts = strings.TrimRight(string(own), "\n") + "\n"
		if !strings.Contains(hosts, "localhost") {
			hosts += "127.0.0.1\tlocalhost\n::1\tlocalhost\n"
		}
	}
	hosts += "127.0.1.1\t" + record.hostname() + "\n"
	for _, name := range record.Names { // one a line: programs have bounds for lines
		hosts += "127.0.0.1\t" + name + "\n::1\t" + name + "\n"
	}
	return hosts
}

// dropIns are files below /etc that tell services of systemd what a machine is like. An
// image may have these services, and a job may install them.
func dropIns(nameservers []string, privileged bool) map[string]string {
	// The machine's network is there without it, with addresses that it would take away.
	all := map[string]string{"systemd/network/10-nspawn-runner.network": "[Match]\nName=" + network.Interface + "\n\n[Link]\nUnmanaged=yes\n"}
	if !privileged {
		all["systemd/system/systemd-binfmt.service.d/nspawn-runner.conf"] = binfmt
		for _, name := range idleGenerators {
			all["systemd/system-generators/systemd-"+name+"-generator"] = "" // an empty file masks it
		}
	}
	if nameservers != nil { // it does not read a resolv.conf(5) that is a link to its own
		all["systemd/resolved.conf.d/nspawn-runner.conf"] = "[Resolve]\nDNS=" + strings.Join(nameservers, " ") + "\n"
	}
	return all
}

// idleGenerators are the generators of systemd that find nothing in a machine, since they look
// for disks, consoles or a firmware: systemd.generator(7). They take a tenth of the time until
// units start (measured). Those for fstab(5), scripts of SysV and rc.local do run, and the one
// that masks units.
var idleGenerators = []string{
	"bless-boot", "cryptsetup", "getty", "gpt-auto", "hibernate-resume", "integritysetup", "run", "tpm2", "veritysetup",
}

// binfmt lets systemd-binfmt.service work for the interpreters of foreign programs that
// the machine has. It would wait for a /proc/sys that can be written. The kernel has a
// list for each user namespace since Linux 6.7. The host's list counts until a machine
// mounts its own. So a machine whose only interpreters are Debian's Python mounts none: it
// boots sooner, and the foreign programs that the host can run still run.
const binfmt = `[Unit]
# An empty condition takes all of them back.
ConditionPathIsReadWrite=
ConditionKernelVersion=>=6.7
ConditionPathExistsGlob=|/usr/lib/binfmt.d/[!p]*
ConditionPathExistsGlob=|/usr/lib/binfmt.d/p[!y]*
ConditionDirectoryNotEmpty=|/usr/local/lib/binfmt.d
ConditionDirectoryNotEmpty=|/etc/binfmt.d
ConditionDirectoryNotEmpty=|/run/binfmt.d

[Service]
ExecStartPre=/bin/sh -c 'test -e /proc/sys/fs/binfmt_misc/status || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc'
`

// forgetLink replaces what is no regular file by an empty one. systemd-nspawn reads the file and
// follows a link out of the machine, to the host's id or to a fifo that nobody writes to.
func forgetLink(dir *os.File, name string, owner int) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) || err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		return nil
	}
	if err != nil {
		return err
	}
	return replaceIn(dir, name, nil, owner)
}

// placeIn puts a file below a directory, and makes directories on the way where there are
// none. An image with something else on the way has an arrangement of its own.
func placeIn(dir *os.File, path, text string, owner int) error {
	name, rest, deeper := strings.Cut(path, "/")
	if !deeper {
		return replaceIn(dir, name, []byte(text), owner)
	}
	err := unix.Mkdirat(int(dir.Fd()), name, 0o755)
	if err == nil {
		err = unix.Fchownat(int(dir.Fd()), name, owner, owner, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	next := os.NewFile(uintptr(fd), name)
	defer next.Close()
	return placeIn(next, rest, text, owner)
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
	if err := unix.Unlinkat(int(dir.Fd()), temporary, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err // an image may have what it likes
	}
	fd, err := unix.Openat(int(dir.Fd()), temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
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
