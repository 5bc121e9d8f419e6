package network

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"nspawn-runner/runner/limits"
	"nspawn-runner/runner/printable"
)

// startPasta starts pasta, which goes on in the background when the network is
// there.
func startPasta(ctx context.Context, m Machine, cgroup *os.File) error {
	// Opened here: pids are used again, and who is not root may not look at the
	// leader before it is the machine's init.
	network, err := m.Leader.Namespace("net")
	if err != nil {
		return err
	}
	defer network.Close()
	users, err := m.Leader.Namespace("user")
	if err != nil {
		return err
	}
	defer users.Close()

	argv := pastaCommand()
	if m.FirstID > 0 {
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
		"--ns-ifname=" + Interface,
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
	return strconv.Itoa(its + (last-first+1)/limits.HostShare), nil
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
