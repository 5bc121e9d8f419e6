package doctor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/network"
	"nspawn-runner/runner/packages"
	"nspawn-runner/runner/systemd"
)

// What the doctor asks of the host's kernel and of systemd.

// atLeast says whether a version, like 6.1.0-18-amd64, is not older than another.
func atLeast(version string, major, minor int) bool {
	var have [2]int
	// A version of one number is read as far as it goes.
	_, _ = fmt.Sscanf(version, "%d.%d", &have[0], &have[1])
	return have[0] > major || have[0] == major && have[1] >= minor
}

func checkKernel(context.Context) []Finding {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return isBad("", "uname: %v", err)
	}
	release := unix.ByteSliceToString(name.Release[:])
	if !atLeast(release, 5, 19) {
		return isBad("boot Linux 5.19 or newer", "Linux %s does not support overlays on idmapped mounts", release)
	}
	return isGood("Linux %s", release)
}

func checkSystemd(ctx context.Context) []Finding {
	if !host.RunsSystemd() {
		return isBad("boot this host with systemd; 'go tool mage demo' in the source boots a lab that has one",
			"systemd does not run this host")
	}
	version, err := systemdVersion(ctx)
	if err != nil {
		return isBad("", "systemctl --version: %v", err)
	}
	if !atLeast(version, 252, 0) {
		return isBad("upgrade to Debian 12 or newer", "systemd %s is older than 252", version)
	}
	return isGood("systemd %s", version)
}

// systemdVersion is the version of the host's systemd, such as 252.
func systemdVersion(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "systemctl", "--version").Output()
	words := strings.Fields(string(out)) // systemd 252 (252.39-1~deb12u1) +PAM...
	if err == nil && len(words) < 2 {
		err = errors.New("it does not say which")
	}
	if err != nil {
		return "", err
	}
	return words[1], nil
}

// Versions are those of the host's systemd and Linux, "" if they are not known.
func Versions(ctx context.Context) (systemd, kernel string) {
	systemd, _ = systemdVersion(ctx)
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		kernel = unix.ByteSliceToString(name.Release[:])
	}
	return systemd, kernel
}

// checkCgroups looks at the root of the control groups: what is offered there,
// systemd delegates to machines.
func checkCgroups(context.Context) []Finding {
	const root = "/sys/fs/cgroup"
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return isBad("boot with systemd.unified_cgroup_hierarchy=1", "%s is not cgroup v2", root)
	}
	text, err := os.ReadFile(root + "/cgroup.controllers")
	if err != nil {
		return isBad("", "%v", err)
	}
	have := strings.Fields(string(text))
	missing := slices.DeleteFunc([]string{"cpu", "memory", "pids"}, func(c string) bool { return slices.Contains(have, c) })
	if len(missing) > 0 {
		return isWarning("remove cgroup_disable= from the kernel command line; in a container, let its host delegate the controllers",
			"cgroup v2 without %s: these limits have no effect", strings.Join(missing, ", "))
	}
	return isGood("cgroup v2 with cpu, memory, pids")
}

// sharedLimit is a setting of the kernel's that bounds what the host and all machines
// share, though each machine has namespaces of its own.
type sharedLimit struct {
	sysctl string
	// Who has less than least or more than most is warned, and advised to have enough.
	least, most, enough int
	// meaning is what comes of another value.
	meaning string
}

var sharedLimits = []sharedLimit{
	// What is made in a machine's user namespace counts to who made that: root. The kernel
	// counts for each user of the machine apart, so no share of a machine's holds (seen). But
	// it counts the memory to the machine, which is a limit where these are high.
	{"fs.inotify.max_user_instances", 1 << 30, math.MaxInt, 1 << 30, "a machine needs about 8 to boot, beyond that boots wait without an error, and one job can use them all"},
	{"user.max_*_namespaces", 1 << 30, math.MaxInt, 1 << 30, "a machine needs about 20 to boot, and one job can use them all"},
	// This is the kernel's own. The host has a reserve of its own, kernel.pty.reserve.
	{"kernel.pty.max", 4096, math.MaxInt, 4096, "if jobs use up all terminals, apt, ssh and sudo fail in other jobs"},
	{"fs.aio-max-nr", 1 << 20, math.MaxInt, 1 << 20, "if jobs use up all asynchronous I/O, databases and virtual machines fail, also those of the host"},
	// Linux 6.15; 0 means no limit.
	{"fs.fuse.max_request_timeout", 1, math.MaxInt, 600, "programs that read the command line of a job's process, such as systemctl status, may wait for a file system of the job that never answers, and with them the host's service manager"},
	// 2 is for the loopback only. Jobs' connections are the host's: the limit of those that
	// are open at a time does not count what is over.
	{"net.ipv4.tcp_tw_reuse", 1, 1, 1, "a job that makes hundreds of connections per second to one server, such as GitLab, blocks the host's connections to that server for a minute"},
}

func checkSharedLimits(context.Context) (all []Finding) {
	for _, limit := range sharedLimits {
		all = append(all, limit.check("/proc/sys", sysctlFile)...)
	}
	return all
}

// check looks at the limit, of several at the lowest one. One that this kernel does not
// have is not a finding.
//
// file is where a fix keeps settings for the next boot.
func (l sharedLimit) check(sysctls, file string) []Finding {
	paths, err := filepath.Glob(filepath.Join(sysctls, strings.ReplaceAll(l.sysctl, ".", "/")))
	if err != nil || paths == nil {
		return nil
	}
	value := math.MaxInt
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return isBad("", "%v", err)
		}
		each, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return isBad("", "%s: %v", l.sysctl, err)
		}
		value = min(value, each)
	}
	if value >= l.least && value <= l.most {
		return isGood("%s is %d", l.sysctl, value)
	}
	return withFix(isWarning(fmt.Sprintf("set %s = %d in a file of /etc/sysctl.d, and run 'sysctl --system'", l.sysctl, l.enough),
		"%s is %d: %s", l.sysctl, value, l.meaning), func(context.Context) error { return fixSysctls(file, sysctls, paths, l.enough) },
		"set %s = %d, now and in %s", l.sysctl, l.enough, file)
}

// checkHugePages looks at what a host has set aside. No limit of a machine counts it, and
// mmap(2) gives it to everybody (seen).
func checkHugePages(context.Context) []Finding {
	text, err := os.ReadFile("/proc/sys/vm/nr_hugepages")
	if err != nil {
		return nil // this kernel has none
	}
	if pages := strings.TrimSpace(string(text)); pages != "0" {
		return isWarning("run jobs on a host without programs that need huge pages, such as databases and virtual machines",
			"vm.nr_hugepages is %s: one job can use them all", pages)
	}
	return isGood("none are reserved")
}

func checkBus(ctx context.Context) []Finding {
	bus, err := systemd.Host(ctx)
	if err != nil {
		return isBad(packages.Install(packages.DBus)+", systemctl start dbus.socket", "%v", err)
	}
	defer bus.Close()
	state, err := bus.SystemState(ctx)
	if err != nil {
		return isBad("systemctl status dbus", "systemd does not answer on the system bus: %v", err)
	}
	if state == "stopping" || state == "maintenance" {
		return isBad("systemctl list-jobs", "the system is in state %s", state)
	}
	return isGood("the system is %s", state)
}

// checkMachined asks for a machine that there is not: that is an answer too.
func checkMachined(ctx context.Context) []Finding {
	bus, err := systemd.Host(ctx)
	if err != nil {
		return isBad("repair the bus first", "not reached: %v", err)
	}
	defer bus.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := bus.Leader(ctx, "nspawn-runner-doctor"); !systemd.IsNoSuchUnit(err) {
		return isBad(packages.Install(packages.Nspawn)+", systemctl unmask systemd-machined; if it hangs: systemctl restart systemd-machined", "it does not answer: %v", err)
	}
	return isGood("it answers")
}

// checkNspawn asks for the options that machines are started with: distributions
// add some to older versions.
func checkNspawn(ctx context.Context) []Finding {
	path, err := exec.LookPath("systemd-nspawn")
	if err != nil {
		return isBad(packages.Install(packages.Nspawn), "there is no systemd-nspawn")
	}
	help, err := exec.CommandContext(ctx, path, "--help").Output()
	if err != nil {
		return isBad("", "%s --help: %v", path, err)
	}
	for _, option := range []string{"--notify-ready", "--private-users-ownership"} {
		if !strings.Contains(string(help), option) {
			return isBad("upgrade to Debian 12 or newer", "%s has no option %s", path, option)
		}
	}
	return isGood("%s", path)
}

// checkNetwork asks for what the network of machines needs whose image says
// nothing of it.
func (d Doctor) checkNetwork(context.Context) []Finding {
	attached, err := network.Named(d.Jobs.Config.Network)
	if err == nil {
		err = attached.Check()
	}
	if err != nil {
		return isBad(packages.Install(packages.Pasta), "%v", err)
	}
	return isGood("%s", d.Jobs.Config.Network)
}

// checkCoreDumps looks whether the kernel hands core dumps to a program: it does so for
// machines too, whatever their limit of core dumps is (core(5)), outside of all control
// groups (seen), so that a job which crashes on purpose takes processors and the journal.
func checkCoreDumps(context.Context) []Finding {
	text, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		return isBad("", "%v", err)
	}
	const toDo = "set kernel.core_pattern = core in a file of /etc/sysctl.d, and run 'sysctl --system'"
	if program, piped := strings.CutPrefix(strings.TrimSpace(string(text)), "|"); piped {
		return isWarning(toDo, "each crash in a job starts a process as root on the host, which no limit of jobs counts, and jobs have no core dumps: %s", program)
	}
	if !machine.HaveCoreDumps() {
		return isWarning(toDo, "core dumps of jobs would be stored on this host, so jobs have none: %s", strings.TrimSpace(string(text)))
	}
	return isGood("kernel.core_pattern names no program, and core dumps of jobs stay in their machines")
}

// checkGuard asks whether the kernel keeps machines to some families of sockets,
// whichever way they are made, and from loading file systems. A filter of socket(2) does
// without.
func checkGuard(context.Context) []Finding {
	if err := machine.CheckGuard(); err != nil {
		return isWarning("boot Linux 6.0 or newer, 6.4 on arm64, with the security module bpf: lsm= on the kernel command line sets the modules, /sys/kernel/security/lsm lists them",
			"filters of system calls do not see i386 calls and io_uring, by which a job can open sockets of AF_VSOCK to the hypervisor, load modules of file systems, and start threads beyond its limits: %v", err)
	}
	return isGood("the kernel supports security programs for machines")
}
