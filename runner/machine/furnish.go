package machine

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

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
