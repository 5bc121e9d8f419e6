package machine

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/network"
	"nspawn-runner/runner/storage"
)

// furnished returns the files, below a machine's root, that furnish may write.
func furnished() []string {
	all := []string{"etc/hosts", "etc/resolv.conf"}
	for path := range dropIns([]string{"any"}, false) {
		all = append(all, "etc/"+path)
	}
	return all
}

// furnish writes the files that depend on the machine: host names, resolvers, and settings of systemd.
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

// hosts returns the text of a machine's /etc/hosts. For a machine that boots, it begins with the image's own
// text. A minbase has no such file.
func hosts(etc *os.File, record Record) string {
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	if own, err := readIn(etc, "hosts"); err == nil && len(own) > 0 && record.Program == nil {
		hosts = strings.TrimRight(string(own), "\n") + "\n"
		if !strings.Contains(hosts, "localhost") {
			hosts += "127.0.0.1\tlocalhost\n::1\tlocalhost\n"
		}
	}
	hosts += "127.0.1.1\t" + record.hostname() + "\n"
	for _, name := range record.Names { // one name a line, because programs limit the length of lines
		hosts += "127.0.0.1\t" + name + "\n::1\t" + name + "\n"
	}
	return hosts
}

// dropIns returns files below /etc for services of systemd, which an image may have, or a job may install.
func dropIns(nameservers []string, privileged bool) map[string]string {
	// systemd-networkd would remove the addresses of the machine's network, which is configured
	// without it.
	all := map[string]string{"systemd/network/10-nspawn-runner.network": "[Match]\nName=" + network.Interface + "\n\n[Link]\nUnmanaged=yes\n"}
	if !privileged {
		all["systemd/system/systemd-binfmt.service.d/nspawn-runner.conf"] = binfmt
		for _, name := range idleGenerators {
			all["systemd/system-generators/systemd-"+name+"-generator"] = "" // an empty file masks it
		}
	}
	if nameservers != nil { // systemd-resolved ignores a resolv.conf(5) that is a link to its own file
		all["systemd/resolved.conf.d/nspawn-runner.conf"] = "[Resolve]\nDNS=" + strings.Join(nameservers, " ") + "\n"
	}
	return all
}

// idleGenerators are the generators of systemd that find nothing in a machine, because they look for disks,
// consoles or firmware: systemd.generator(7). They take a tenth of the time until units start (measured). The
// generators for fstab(5), SysV scripts and rc.local run, and the one that masks units.
var idleGenerators = []string{
	"bless-boot", "cryptsetup", "getty", "gpt-auto", "hibernate-resume", "integritysetup", "run", "tpm2", "veritysetup",
}

// binfmt is a drop-in for systemd-binfmt.service, which registers the machine's interpreters for foreign
// programs. The unit's own condition wants a /proc/sys that can be written. Since Linux 6.7 the kernel has a
// list for each user namespace. The host's list counts until a machine mounts its own. So a machine whose
// only interpreters are Debian's Python does not mount one: it boots faster, and foreign programs that the
// host can run still run.
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
