package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/systemd"
)

// What a machine's network can be.
const (
	// NetworkPrivate is a network of its own, from which passt's pasta leads
	// out: as on any computer behind a router.
	NetworkPrivate = "private"
	// NetworkHost is the host's own.
	NetworkHost = "host"
	// NetworkNone is a loopback and nothing else.
	NetworkNone = "none"
)

// The addresses of a private network. RFC 7335 sets them aside for what never
// leaves a computer, so that they hide nobody's; every machine has the same.
const (
	ownAddress      = "192.0.0.2"
	gatewayAddress  = "192.0.0.1"
	resolverAddress = "192.0.0.3"
	prefixLength    = "29"
)

// CheckNetwork says whether the host has what a machine with such a network
// needs.
func CheckNetwork(network string) error {
	if network != NetworkPrivate {
		return nil
	}
	if _, err := exec.LookPath("pasta"); err != nil {
		return errors.New(`network private: there is no pasta: apt-get install passt, or set "network: host"`)
	}
	return nil
}

// connect gives a machine with a private network its way out, as soon as its
// first process is there, while it boots.
//
// pasta moves what the machine sends, from the namespace of its network into
// ordinary sockets of the host. It is the machine's root while it does, and so
// nobody on the host: what it can do there it can do in the machine's user
// namespace only. It lives in a control group of the machine's service, counts
// to its limits, and ends with it.
func (s Store) connect(ctx context.Context, bus *systemd.Bus, record Record) error {
	if record.Network != NetworkPrivate {
		return nil
	}
	leader, err := bus.AwaitLeader(ctx, Name(record.ID))
	if err != nil {
		return fmt.Errorf("wait for its first process: %w", err)
	}
	path, err := serviceCgroup(leader.PID, unitName(record.ID))
	if err != nil {
		return err
	}
	group := filepath.Join("/sys/fs/cgroup", path, "network")
	if err := os.Mkdir(group, 0o755); err != nil {
		return fmt.Errorf("network private: %w", err)
	}
	fault.Here("machine: control group of its network made")
	cgroup, err := os.Open(group)
	if err != nil {
		return fmt.Errorf("network private: %w", err)
	}
	defer cgroup.Close()
	text, err := hostResolver()
	if err != nil {
		return err
	}
	resolver, err := forwarded(text)
	if err != nil {
		return fmt.Errorf("network private: %w", err)
	}
	if err := keepFromLoopback(cgroup, resolver); err != nil {
		return fmt.Errorf("network private: %w", err)
	}
	fault.Here("machine: kept from the loopback of the host")
	if err := s.attach(ctx, leader, record, cgroup, resolver); err != nil {
		return err
	}
	fault.Here("machine: network there")
	s.logf("%s: its network is there", Name(record.ID))
	return nil
}

// attach starts pasta, which goes on in the background when the network is
// there.
func (s Store) attach(ctx context.Context, leader systemd.Process, record Record, cgroup *os.File, resolver netip.Addr) error {
	// Opened here: pids are used again, and who is not root may not look at the
	// leader before it is the machine's init.
	network, err := leader.Namespace("net")
	if err != nil {
		return err
	}
	defer network.Close()
	users, err := leader.Namespace("user")
	if err != nil {
		return err
	}
	defer users.Close()

	argv := pastaCommand(resolver)
	if record.RootUID > 0 {
		argv = append([]string{"nsenter", "--user=/proc/self/fd/3", "--setuid=0", "--setgid=0", "--"}, argv...)
	} else {
		argv = append(argv, "--runas=0") // who may enter a privileged machine's
	}
	var words bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	// Not one of the other descriptors, which pasta is free to close.
	cmd.Stdin = network
	cmd.Stdout, cmd.Stderr = &words, &words
	cmd.ExtraFiles = []*os.File{users}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.WaitDelay = time.Second
	// In its control group from the first moment, and in no group of
	// gitlab-runner's processes.
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd()), Setsid: true}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf(`network private: pasta: %w: %s; "network: host" and "network: none" need none`, err, pastaWords(words.String()))
	}
	return nil
}

// pastaCommand is pasta's command line: pasta(1). Nothing is forwarded into
// the machine, and standard input is the namespace of its network. The options
// are those that also the pasta of 2023 has.
func pastaCommand(resolver netip.Addr) []string {
	argv := []string{
		"pasta", "--quiet", "--config-net", "--no-map-gw", "--netns-only", "--netns=/proc/self/fd/0", "--no-netns-quit",
		"--ns-ifname=host0",
		"--address=" + ownAddress, "--netmask=" + prefixLength, "--gateway=" + gatewayAddress,
		"--tcp-ports=none", "--udp-ports=none", "--tcp-ns=none", "--udp-ns=none",
	}
	if resolver.IsValid() {
		argv = append(argv, "--dns-forward="+resolverAddress)
	}
	return argv
}

// pastaWords is what pasta said that tells something.
func pastaWords(output string) string {
	var lines []string
	for line := range strings.Lines(output) {
		// It has no syslog in its namespace, and the pasta of 2023 says so of
		// each line.
		if line = Printable(line); line != "" && !strings.Contains(line, "to syslog") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}

// hasOwnNetwork says whether a machine does not share the host's.
func (r Record) hasOwnNetwork() bool {
	return r.Network == NetworkPrivate || r.Network == NetworkNone
}
