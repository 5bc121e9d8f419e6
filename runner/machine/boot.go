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
	if record.Leader != nil { // a unit that is bound to this one has systemd start it again
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

// payload prepares what a machine sees of the host, and returns systemd-nspawn's options for
// that, and behind them what it executes.
func payload(root string, record Record) ([]string, error) {
	mnt := filepath.Dir(root)
	if record.Program != nil {
		return programOptions(mnt, root, *record.Program)
	}
	options, err := bindOptions(mnt, record)
	if err != nil {
		return nil, err
	}
	// 1.1 s of a boot of trixie and newer go to a rate limit on mounts.
	options = append(options, "--boot", "--notify-ready=yes", "--setenv=SYSTEMD_DEFAULT_MOUNT_RATE_LIMIT_BURST=1000",
		"systemd.hostname="+record.hostname(), "systemd.show_status=auto")
	for _, unit := range slices.Concat(masked, record.Masked) {
		options = append(options, "systemd.mask="+unit)
	}
	return options, nil
}

// nspawnCommand is the command line of systemd-nspawn(1) for a machine whose root is
// mounted, without what it executes.
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
			// With it root would raise the machine's share again: see limits.Share.
			"--drop-capability=CAP_SYS_RESOURCE")
	}
	if _, err := os.Stat("/dev/fuse"); err == nil && !record.NoFUSE {
		argv = append(argv, "--bind=/dev/fuse")
	}
	return argv
}
