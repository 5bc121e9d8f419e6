package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/printable"
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

// interfaceName is its network interface.
const interfaceName = "host0"

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

// connect gives a machine with a private network its way out, while it boots.
//
// pasta moves what the machine sends, from the namespace of its network into
// ordinary sockets of the host. It is the machine's root while it does, and so
// nobody on the host: what it can do there it can do in the machine's user
// namespace only. It lives in a control group of the machine's service, counts
// to its limits, and ends with it.
func (s Store) connect(ctx context.Context, leader host.Process, service *os.File, record Record) error {
	if record.Network != NetworkPrivate {
		return nil
	}
	group := filepath.Join(service.Name(), "network")
	if err := os.Mkdir(group, 0o755); err != nil {
		return fmt.Errorf("network private: %w", err)
	}
	fault.Here("machine: control group of its network made")
	cgroup, err := os.Open(group)
	if err != nil {
		return fmt.Errorf("network private: %w", err)
	}
	defer cgroup.Close()
	if err := confine(cgroup, record); err != nil {
		return fmt.Errorf("network private: %w", err)
	}
	fault.Here("machine: kept from the loopback of the host")
	if err := startPasta(ctx, leader, record, cgroup); err != nil {
		return err
	}
	fault.Here("machine: network there")
	s.logf("%s: its network is there", Name(record.ID))
	return nil
}

// confine keeps what pasta does for a job from what is the host's own.
func confine(cgroup *os.File, record Record) error {
	text, err := hostResolver()
	if err != nil {
		return err
	}
	resolver, err := forwarded(text)
	if err != nil {
		return err
	}
	closed := egress{closed: loopback, resolvers: resolvers(text)}
	if !record.CloudMetadata {
		closed.closed = slices.Concat(loopback, metadata)
	}
	if err := closed.keepFrom(cgroup); err != nil {
		return err
	}
	if resolver.IsValid() {
		if err := forwardNames(cgroup, resolver); err != nil {
			return err
		}
	}
	if err := letInAnswers(cgroup); err != nil { // who is asked is known by now
		return err
	}
	return hidePorts(cgroup)
}

// keepFromMetadata does for a machine that has the host's network what confine does
// for others. Root in it has no privilege in that network, and makes no packets.
func keepFromMetadata(service *os.File, record Record) error {
	if record.Network != NetworkHost || record.CloudMetadata {
		return nil
	}
	text, err := hostResolver()
	if err != nil {
		return err
	}
	if err := (egress{closed: metadata, resolvers: resolvers(text)}).keepFrom(service); err != nil {
		return fmt.Errorf(`network host: %w; "cloud_metadata: true" does without`, err)
	}
	return nil
}

// startPasta starts pasta, which goes on in the background when the network is
// there.
func startPasta(ctx context.Context, leader host.Process, record Record, cgroup *os.File) error {
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

	argv := pastaCommand()
	if record.RootUID > 0 {
		argv = append([]string{"nsenter", "--user=/proc/self/fd/3", "--setuid=0", "--setgid=0", "--"}, argv...)
	} else {
		argv = append(argv, "--runas=0") // who may enter a privileged machine's
	}
	files, err := pastaFiles()
	if err != nil {
		return err
	}
	argv = append([]string{"prlimit", "--nofile=" + files}, argv...)
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
	if err := dropFlagless(network); err != nil {
		return fmt.Errorf("network private: %w", err)
	}
	return nil
}

// pastaCommand is pasta's command line: pasta(1). Nothing is forwarded into
// the machine, and standard input is the namespace of its network. The options
// are those that also the pasta of 2023 has.
func pastaCommand() []string {
	return []string{
		"pasta", "--quiet", "--config-net", "--no-map-gw", "--netns-only", "--netns=/proc/self/fd/0", "--no-netns-quit",
		"--ns-ifname=" + interfaceName,
		"--address=" + ownAddress, "--netmask=" + prefixLength, "--gateway=" + gatewayAddress,
		"--tcp-ports=none", "--udp-ports=none", "--tcp-ns=none", "--udp-ns=none",
		"--dns=none", "--search=none",
	}
}

// pastaFiles is how many files pasta may have open. It has a socket of the host for
// each of a job's connections, and for each port that it sends datagrams from, which
// takes a port of the host's for three minutes: a job may have a share of those, as of
// all that machines have in common. A connection takes two files of the pasta of 2023.
func pastaFiles() (string, error) {
	const its = 256 // for itself
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return "", fmt.Errorf("network private: the host's ports: %w", err)
	}
	var first, last int
	if _, err := fmt.Sscan(string(text), &first, &last); err != nil {
		return "", fmt.Errorf("network private: the host's ports: %w", err)
	}
	return strconv.Itoa(its + (last-first+1)/shareOfHost), nil
}

// pastaWords is what pasta said that tells something.
func pastaWords(output string) string {
	var lines []string
	for line := range strings.Lines(output) {
		// It has no syslog in its namespace, and the pasta of 2023 says so of
		// each line.
		if line = printable.Line(line); line != "" && !strings.Contains(line, "to syslog") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}

// hasOwnNetwork says whether a machine does not share the host's.
func (r Record) hasOwnNetwork() bool {
	return r.Network == NetworkPrivate || r.Network == NetworkNone
}

// allowPings lets everybody in a machine send pings, as on any Debian: the ping of trixie
// is neither setuid nor has a capability. What systemd sets there for itself, all groups
// that there are, a user namespace has not.
func allowPings(leader host.Process, record Record) error {
	if !record.hasOwnNetwork() || record.Privileged {
		return nil
	}
	network, err := leader.Namespace("net")
	if err != nil {
		return err
	}
	defer network.Close()
	ids := record.ids()
	text := fmt.Sprintf("%d %d", ids.first, ids.first+ids.count-1)
	return inNetwork(network, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte(text), 0)
	})
}

// inNetwork does something in another network than this program's.
func inNetwork(namespace *os.File, do func() error) error {
	done := make(chan error)
	go func() {
		// This goroutine's thread is never unlocked, so that it ends with it.
		runtime.LockOSThread()
		err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}
