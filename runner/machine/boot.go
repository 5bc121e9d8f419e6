package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/network"
	"nspawn-runner/runner/storage"
)

// masked are units that are harmful or useless in a machine that lives for minutes.
var masked = []string{
	"getty.target", "console-getty.service",
	"apt-daily.timer", "apt-daily-upgrade.timer", "apt-daily.service", "apt-daily-upgrade.service",
	"dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "logrotate.timer", "man-db.timer",
	"systemd-tmpfiles-clean.timer", "systemd-networkd-wait-online.service",
	"tmp.mount",
	// These take a fifth of a boot (measured): records of logins, a journal that outlives a
	// reboot, mount options of the root, and device nodes, which systemd-nspawn makes.
	"systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
	"systemd-journal-flush.service", "systemd-remount-fs.service",
	"systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-setup-dev-early.service",
}

// Boot is the command of a machine's service. dir is the directory of the machine. Boot mounts the
// machine's root in a mount namespace of its own, and becomes systemd-nspawn. The host never sees these
// mounts, and they end with systemd-nspawn. Boot returns only if it fails.
func Boot(dir string) error {
	runtime.LockOSThread() // the namespace belongs to this thread, which becomes systemd-nspawn
	record, err := readRecord(dir)
	if err != nil {
		return err
	}
	fault.Here("boot: record read")
	if record.Leader != nil { // systemd starts this unit again for a unit that is bound to it
		return errors.New("it has been up: a machine lives for one boot")
	}
	backend, err := storage.Named(record.Backend)
	if err != nil {
		return err
	}
	attached, err := record.attached()
	if err != nil {
		return err
	}
	if record.Joins != nil {
		if err := network.Enter(*record.Joins); err != nil {
			return err
		}
		fault.Here("boot: network joined")
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare the mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make / a slave: %w", err)
	}
	fault.Here("boot: namespace made")
	if !record.NoNesting {
		if err := mountBeneath(); err != nil {
			return fmt.Errorf(`mount a proc and a sysfs for containers: %w; "nesting: false" turns this off`, err)
		}
	}
	root, err := backend.Mount(dir, record.Chroot, record.RootUID, storage.Disk{Limit: record.DiskMax, Device: record.Layer})
	if err != nil {
		return err
	}
	fault.Here("boot: root mounted")
	if err := furnish(root, record); err != nil {
		return err
	}
	fault.Here("boot: root furnished")
	options, err := payload(root, record)
	if err != nil {
		return err
	}
	argv := append(nspawnCommand(record, root, attached), options...)
	nspawn, err := exec.LookPath(argv[0])
	if err != nil {
		return fmt.Errorf("%w: apt-get install systemd-container", err)
	}
	if err := filterCalls(record, backend); err != nil {
		return err
	}
	fault.Here("boot: about to become systemd-nspawn")
	return fmt.Errorf("execute %s: %w", nspawn, unix.Exec(nspawn, argv, os.Environ()))
}

// payload mounts what the machine sees of the host. It returns the options of systemd-nspawn for that,
// followed by the command line that systemd-nspawn executes.
func payload(root string, record Record) ([]string, error) {
	mnt := filepath.Dir(root)
	if record.Program != nil {
		return programOptions(mnt, root, *record.Program)
	}
	options, err := bindOptions(mnt, record)
	if err != nil {
		return nil, err
	}
	// A rate limit on mounts costs 1.1 s of a boot of trixie and newer.
	options = append(options, "--boot", "--notify-ready=yes", "--setenv=SYSTEMD_DEFAULT_MOUNT_RATE_LIMIT_BURST=1000",
		"systemd.hostname="+record.hostname(), "systemd.show_status=auto")
	for _, unit := range slices.Concat(masked, record.Masked) {
		options = append(options, "systemd.mask="+unit)
	}
	return options, nil
}

// nspawnCommand returns the command line of systemd-nspawn(1) for a machine whose root is mounted. The
// result of payload follows it.
func nspawnCommand(record Record, root string, attached network.Network) []string {
	argv := []string{
		"systemd-nspawn",
		"--quiet",
		"--machine=" + Name(record.ID),
		"--directory=" + root,
		"--keep-unit",
		"--register=yes",
		callsOption(record),
		"--link-journal=no",
		"--resolv-conf=off",
		"--timezone=off",
	}
	if record.Privileged {
		argv = append(argv, "--capability=all")
	}
	if attached.IsApart() {
		argv = append(argv, "--private-network")
	}
	if record.RootUID > 0 {
		argv = append(argv,
			fmt.Sprintf("--private-users=%d:%d", record.RootUID, record.ids().count),
			"--private-users-ownership=off",
			// With it, root in the machine could raise the limits of limits.Share.
			"--drop-capability=CAP_SYS_RESOURCE")
	}
	if _, err := os.Stat("/dev/fuse"); err == nil && !record.NoFUSE {
		argv = append(argv, "--bind=/dev/fuse")
	}
	return argv
}
